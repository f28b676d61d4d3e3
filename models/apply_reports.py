"""Record what the provider said: lock, rule (`decisions.py`) and write (`transitions/`) in sets.

The callback and the poll lane both come through `apply_reports`, inside a transaction of their own. It never
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
from models.states import EditState, Effect, LearnedBy, Outcome
from models.transitions import (
    SubmissionEnd,
    add_images,
    attach_request_id,
    close_submissions,
    move_edits,
    replace_image_set,
)


def apply_reports(connection: Connection, answers: Sequence[ProviderReport], policy: PolicySettings) -> list[Effect]:
    """Lock, rule and write a set of answers; the effects come in the order of the answers.

    Answers about the same edit are ruled one after the other, each on what the one before left behind.
    """
    effects: dict[int, Effect] = {}
    ends: list[SubmissionEnd] = []
    healed: list[datetime] = []
    waiting = list(enumerate(answers))
    while waiting:
        snapshots, owners = _load_snapshots(connection, [answer for _, answer in waiting])
        rulings: list[tuple[ProviderReport, Decision]] = []
        later: list[tuple[int, ProviderReport]] = []
        edits_seen: set[int] = set()
        for number, answer in waiting:
            snapshot = snapshots.get(answer.submission_id)
            if snapshot is not None and snapshot.edit_id in edits_seen:
                later.append((number, answer))
                continue
            ruling = _decide(snapshot, answer, owners, policy)
            effects[number] = ruling.effect
            if snapshot is not None and ruling.effect is Effect.APPLIED:
                edits_seen.add(snapshot.edit_id)
                rulings.append((answer, ruling))
                if snapshot.request_id is None and answer.request_id:
                    healed.append(snapshot.posted_at)
        _write(connection, rulings, policy)
        ends += [ruling.end for _, ruling in rulings if ruling.end]
        waiting = later
    watch_endpoints(connection, ends, retry_after=policy.provider_retry_after)
    if healed:
        note_accepted(connection, max(healed))
    return [effects[number] for number in range(len(answers))]


def _decide(
    snapshot: SubmissionSnapshot | None, answer: ProviderReport, owners: dict[str, UUID], policy: PolicySettings
) -> Decision:
    if snapshot is None:
        return Decision(Effect.ORPHAN)
    if answer.request_id and owners.setdefault(answer.request_id, answer.submission_id) != answer.submission_id:
        return Decision(Effect.MISMATCH)  # a request id that belongs to another submission
    return decide(snapshot, answer, policy)


def _write(connection: Connection, rulings: Sequence[tuple[ProviderReport, Decision]], policy: PolicySettings) -> None:
    for answer, ruling in rulings:
        if ruling.reveal and answer.request_id:
            attach_request_id(connection, answer.submission_id, answer.request_id, overdue_after=READY_OVERDUE_AFTER)
    close_submissions(connection, [ruling.end for _, ruling in rulings if ruling.end])
    moved = move_edits(connection, [ruling.move for _, ruling in rulings if ruling.move])
    add_images(
        connection,
        [
            (answer.submission_id, ruling.move is not None and ruling.move.edit_id in moved, answer.verdict.images)
            for answer, ruling in rulings
            if ruling.end and ruling.end.outcome is Outcome.SUCCEEDED
        ],
        expire_after=policy.fal_output_expires_after,
    )
    replace_image_set(
        connection,
        [ruling.end.id for _, ruling in rulings if ruling.end and ruling.end.set_number and ruling.end.set_number > 1],
    )


def _load_snapshots(
    connection: Connection, answers: Sequence[ProviderReport]
) -> tuple[dict[UUID, SubmissionSnapshot], dict[str, UUID]]:
    """Lock what the answers are about: standings by submission, and who owns the requests that they name."""
    locked = _lock_submissions(connection, [answer.submission_id for answer in answers])
    named = [answer.request_id for answer in answers if answer.request_id]
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


def _lock_submissions(connection: Connection, submission_ids: Sequence[UUID]) -> Sequence[Row[*tuple[Any, ...]]]:
    return connection.exec_driver_sql(
        """
        SELECT s.id, s.request_id, s.posted_at, s.outcome, s.learned_by, s.error_type, s.attempt AS submission_attempt,
               e.id AS edit_id, e.state, e.attempt AS edit_attempt, e.attempts_before, b.max_attempts,
               e.cancel_requested_at IS NOT NULL AS cancel_requested,
               ARRAY(SELECT entry ->> 'type' FROM jsonb_array_elements(e.errors) AS entry) AS earlier_errors
        FROM submissions s JOIN edits e ON e.id = s.edit_id JOIN batches b ON b.id = e.batch_id
        WHERE s.id = ANY(%s) ORDER BY e.id, s.id FOR UPDATE OF e, s
        """,
        (list(set(submission_ids)),),
    ).all()


def _related(
    connection: Connection, edit_ids: Sequence[int], request_ids: Sequence[str]
) -> Sequence[Row[*tuple[Any, ...]]]:
    """Every submission of these edits, or of these requests.

    A statement of its own: while the lock was waited for, another submission may have been written down, which
    the snapshot of the locking statement does not show.
    """
    return connection.exec_driver_sql(
        """
        SELECT id, edit_id, request_id, outcome IS NULL AS open,
               -- whoever recorded it before sets had numbers left none
               coalesce(set_number, CASE WHEN outcome = 'succeeded' AND NOT doubled THEN 1 ELSE 0 END) AS set_number
        FROM submissions WHERE edit_id = ANY(%s) OR request_id = ANY(%s)
        """,
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
