"""Record what the provider said: lock, decide (`decisions.py`) and write (`transitions/`) in sets.

The callback and the poll lane both come through `record_reports`, inside a transaction of their own. It never
calls the provider.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row

from core.settings import PolicySettings
from models.decisions import READY_OVERDUE_AFTER, Decision, ProviderReport, SubmissionSnapshot, decide
from models.incidents import watch_endpoints
from models.provider import note_accepted
from models.statements import Statement
from models.states import EditState, Effect, LearnedBy, Outcome
from models.transitions import (
    SubmissionEnd,
    add_images,
    attach_request_id,
    close_submissions,
    move_edits,
    replace_image_set,
)


def record_reports(connection: Connection, reports: Sequence[ProviderReport], policy: PolicySettings) -> list[Effect]:
    """Lock, decide and write a set of reports; the effects come in the order of the reports.

    Reports about the same edit are decided one after the other, each on what the one before left behind.
    """
    if not reports:
        return []
    effects: dict[int, Effect] = {}
    ends: list[SubmissionEnd] = []
    accepted_at: list[datetime] = []
    waiting = list(enumerate(reports))
    while waiting:
        snapshots, owners = _load_snapshots(connection, [report for _, report in waiting])
        decisions: list[tuple[ProviderReport, Decision]] = []
        later: list[tuple[int, ProviderReport]] = []
        edits_seen: set[int] = set()
        for number, report in waiting:
            snapshot = snapshots.get(report.submission_id)
            if snapshot is not None and snapshot.edit_id in edits_seen:
                later.append((number, report))
                continue
            decision = _decide(snapshot, report, owners, policy)
            effects[number] = decision.effect
            if snapshot is not None and decision.effect is Effect.APPLIED:
                edits_seen.add(snapshot.edit_id)
                decisions.append((report, decision))
                if snapshot.request_id is None and report.request_id:
                    accepted_at.append(snapshot.posted_at)
        _write(connection, decisions, policy)
        ends += [decision.end for _, decision in decisions if decision.end]
        waiting = later
    watch_endpoints(connection, ends, retry_after=policy.provider_retry_after)
    if accepted_at:
        note_accepted(connection, max(accepted_at))
    return [effects[number] for number in range(len(reports))]


def _decide(
    snapshot: SubmissionSnapshot | None, report: ProviderReport, owners: dict[str, UUID], policy: PolicySettings
) -> Decision:
    if snapshot is None:
        return Decision(Effect.ORPHAN)
    named = report.request_id
    if named and owners.get(named, report.submission_id) != report.submission_id:
        return Decision(Effect.MISMATCH)  # a request id that belongs to another submission
    decision = decide(snapshot, report, policy)
    if named and decision.effect is Effect.APPLIED:
        owners[named] = report.submission_id  # only now: who names a request in vain takes it from nobody
    return decision


def _write(
    connection: Connection, decisions: Sequence[tuple[ProviderReport, Decision]], policy: PolicySettings
) -> None:
    for report, decision in decisions:
        if decision.reveal and report.request_id:
            attach_request_id(connection, report.submission_id, report.request_id, overdue_after=READY_OVERDUE_AFTER)
    close_submissions(connection, [decision.end for _, decision in decisions if decision.end])
    moved = move_edits(connection, [decision.move for _, decision in decisions if decision.move])
    add_images(
        connection,
        [
            (report.submission_id, decision.move is not None and decision.move.edit_id in moved, report.verdict.images)
            for report, decision in decisions
            if decision.end and decision.end.outcome is Outcome.SUCCEEDED
        ],
        expire_after=policy.fal_output_expires_after,
    )
    replace_image_set(
        connection,
        [
            decision.end.id
            for _, decision in decisions
            if decision.end and decision.end.set_number and decision.end.set_number > 1
        ],
    )


def _load_snapshots(
    connection: Connection, reports: Sequence[ProviderReport]
) -> tuple[dict[UUID, SubmissionSnapshot], dict[str, UUID]]:
    """Lock what the reports are about: snapshots by submission, and who owns the requests that they name."""
    locked = _lock_submissions(connection, [report.submission_id for report in reports])
    named = [report.request_id for report in reports if report.request_id]
    siblings: dict[int, list[Row[*tuple[Any, ...]]]] = {row.edit_id: [] for row in locked}
    owners: dict[str, UUID] = {}
    for row in _related(connection, list(siblings), named):
        siblings.setdefault(row.edit_id, []).append(row)
        if row.request_id:
            owners[row.request_id] = row.id
    snapshots = {
        row.id: _snapshot(row, [other for other in siblings[row.edit_id] if other.id != row.id]) for row in locked
    }
    return snapshots, owners


LOCK_SUBMISSIONS = Statement(
    """
    SELECT s.id, s.request_id, s.posted_at, s.outcome, s.learned_by, s.error_type, s.attempt AS submission_attempt,
           e.id AS edit_id, e.state, e.attempt AS edit_attempt, e.attempts_before, b.max_attempts,
           e.cancel_requested_at IS NOT NULL AS cancel_requested,
           ARRAY(SELECT entry ->> 'type' FROM jsonb_array_elements(e.errors) AS entry) AS earlier_errors
    FROM submissions s JOIN edits e ON e.id = s.edit_id JOIN batches b ON b.id = e.batch_id
    WHERE s.id = ANY(%s) AND b.pruned_at IS NULL ORDER BY e.id, s.id FOR UPDATE OF e, s
""",
    index="submissions_pkey edits_pkey",
)


def _lock_submissions(connection: Connection, submission_ids: Sequence[UUID]) -> Sequence[Row[*tuple[Any, ...]]]:
    return connection.exec_driver_sql(
        LOCK_SUBMISSIONS,
        (list(set(submission_ids)),),
    ).all()


RELATED_SUBMISSIONS = Statement(
    """
    SELECT id, edit_id, request_id, outcome IS NULL AS open,
           -- whoever recorded it before sets had numbers left none
           coalesce(set_number, CASE WHEN outcome = 'succeeded' AND NOT doubled THEN 1 ELSE 0 END) AS set_number
    FROM submissions WHERE edit_id = ANY(%s) OR request_id = ANY(%s)
""",
    index="submissions_edit submissions_request_id_key",
)


def _related(
    connection: Connection, edit_ids: Sequence[int], request_ids: Sequence[str]
) -> Sequence[Row[*tuple[Any, ...]]]:
    """Every submission of these edits, or of these requests.

    A statement of its own: while the lock was waited for, another submission may have been written down, which
    the snapshot of the locking statement does not show.
    """
    return connection.exec_driver_sql(
        RELATED_SUBMISSIONS,
        (list(edit_ids), list(request_ids)),
    ).all()


def _snapshot(row: Row[*tuple[Any, ...]], others: Sequence[Row[*tuple[Any, ...]]]) -> SubmissionSnapshot:
    return SubmissionSnapshot(
        submission_id=row.id,
        request_id=row.request_id,
        posted_at=row.posted_at,
        outcome=row.outcome and Outcome(row.outcome),
        learned_by=row.learned_by and LearnedBy(row.learned_by),
        error_type=row.error_type,
        submission_attempt=row.submission_attempt,
        edit_id=row.edit_id,
        state=EditState(row.state),
        edit_attempt=row.edit_attempt,
        attempts_before=row.attempts_before,
        max_attempts=row.max_attempts,
        cancel_requested=row.cancel_requested,
        others_open=any(other.open for other in others),
        sets_taken=max((other.set_number for other in others), default=0),
        earlier_errors=tuple(row.earlier_errors),
    )
