"""Incidents of a model: everything sent to one endpoint fails, and not because of the edits.

Failures in a row, over several edits and without a success between them, say that the model or what it rests on is
down. Then submitting to that endpoint pauses (`lane_pauses`, lane `submit`), the edits keep their attempts, and one
edit at a time probes, until the first success. All of it is read from the submissions, so that the receiver and every
worker agree. It costs nothing: the provider charges for successful outputs only (provider-protocol 6).
"""

from collections.abc import Sequence
from uuid import UUID

import structlog
from sqlalchemy import Connection, Row

from models.pauses import pause_lane
from models.statements import Statement
from models.states import Outcome
from models.transitions import SubmissionEnd, excuse_failures

log = structlog.get_logger()

_TYPES = """
    internal_server_error internal_error downstream_service_error downstream_service_unavailable startup_timeout
    runner_scheduling_failure runner_connection_timeout runner_disconnected runner_connection_refused
    runner_connection_error runner_incomplete_response runner_server_error
"""
INCIDENT_TYPES = frozenset(_TYPES.split())
"""Error types that a model, its runner or its partner being down brings on every edit (provider-protocol 5.2, 5.3). Not
`generation_timeout` and `request_timeout`, which one heavy edit brings on itself."""
FAILURES, EDITS = 5, 3
"""Failures in a row, of so many different edits at least, that are an incident."""
WITHIN = 3600.0
"""Seconds; failures that are older say nothing about now."""
LOOKED_AT = 200
"""Submissions that are looked at, the latest to end."""
EXCUSED_MOST = 6
"""Failures of one edit that are excused; from then on they count, whoever else fails beside it."""
REASON = "model_down"


def watch_endpoints(connection: Connection, ends: Sequence[SubmissionEnd], *, retry_after: float) -> None:
    """Take notice of how submissions ended; call it once they are written, in the same transaction.

    `retry_after`: seconds until a paused endpoint is probed first.
    """
    if succeeded := [end.id for end in ends if end.outcome is Outcome.SUCCEEDED]:
        _resume(connection, succeeded)
    failed = [end.id for end in ends if end.outcome is Outcome.FAILED and end.error_type in INCIDENT_TYPES]
    for endpoint in _endpoints(connection, failed) if failed else ():
        _judge(connection, endpoint, retry_after)


RESUME_ENDPOINTS = Statement(
    """
    DELETE FROM lane_pauses WHERE lane = 'submit' AND subject IN (
        SELECT b.endpoint FROM submissions s JOIN edits e ON e.id = s.edit_id JOIN batches b ON b.id = e.batch_id
        WHERE s.id = ANY(%s))
    RETURNING subject
""",
    index="submissions_pkey edits_pkey",
)


def _resume(connection: Connection, submission_ids: Sequence[UUID]) -> None:
    rows = connection.exec_driver_sql(
        RESUME_ENDPOINTS,
        (list(submission_ids),),
    )
    for endpoint in rows.scalars():
        log.warning("endpoint_resumed", endpoint=endpoint)


ENDPOINTS_OF = Statement(
    """
    SELECT DISTINCT b.endpoint
    FROM submissions s JOIN edits e ON e.id = s.edit_id JOIN batches b ON b.id = e.batch_id
    WHERE s.id = ANY(%s) ORDER BY b.endpoint
""",
    index="submissions_pkey edits_pkey",
)


def _endpoints(connection: Connection, submission_ids: Sequence[UUID]) -> Sequence[str]:
    return (
        connection.exec_driver_sql(
            ENDPOINTS_OF,
            (list(submission_ids),),
        )
        .scalars()
        .all()
    )


ENDPOINT_PAUSED = Statement("SELECT FROM lane_pauses WHERE lane = 'submit' AND subject = %s")


def _judge(connection: Connection, endpoint: str, retry_after: float) -> None:
    """Pause the endpoint if this is an incident; while it is one, no failure counts against its edit."""
    run = _failures_in_a_row(connection, endpoint)
    paused = connection.exec_driver_sql(ENDPOINT_PAUSED, (endpoint,)).first()
    if not run or (paused is None and (len(run) < FAILURES or len({row.edit_id for row in run}) < EDITS)):
        return
    message = f"{len(run)} submissions in a row failed, the last one with {run[0].error_type}"
    pause_lane(connection, "submit", endpoint, reason=REASON, message=message, retry_after=retry_after)
    excused = excuse_failures(connection, [row.id for row in run if not row.excused], most=EXCUSED_MOST)
    if paused is None:
        log.warning("endpoint_paused", endpoint=endpoint, reason=message, excused=excused)


LATEST_FAILURES = Statement(
    """
    WITH recent AS MATERIALIZED (
        SELECT s.id, s.edit_id, s.outcome, s.error_type, s.completed_at, s.excused
        FROM submissions s JOIN edits e ON e.id = s.edit_id JOIN batches b ON b.id = e.batch_id
        WHERE s.completed_at > now() - %(within)s * interval '1 s' AND s.outcome IN ('succeeded', 'failed')
          AND b.endpoint = %(endpoint)s
        ORDER BY s.completed_at DESC LIMIT %(looked_at)s
    )
    SELECT id, edit_id, error_type, excused FROM recent
    WHERE outcome = 'failed' AND error_type = ANY(%(types)s)
      AND completed_at > coalesce((SELECT max(completed_at) FROM recent WHERE outcome = 'succeeded'), '-infinity')
    ORDER BY completed_at DESC
""",
    index="submissions_completed",
)


def _failures_in_a_row(connection: Connection, endpoint: str) -> Sequence[Row[tuple[UUID, int, str, bool]]]:
    """Failures since the endpoint's last success, the latest first."""
    return connection.exec_driver_sql(
        LATEST_FAILURES,
        {"endpoint": endpoint, "within": WITHIN, "looked_at": LOOKED_AT, "types": sorted(INCIDENT_TYPES)},
    ).all()
