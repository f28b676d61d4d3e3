"""Record what the provider said: lock, rule (`rulings.py`) and write (`transitions/`) in sets.

The callback and the poll lane both come through `record_answers`, inside a transaction of their own. It never
calls the provider.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection

from models.rulings import WATCHDOG, Answer, Ruling, Standing, rule
from models.settings import PolicySettings
from models.states import EditState, Effect, LearnedBy, Outcome
from models.transitions import add_images, close_submissions, move_edits, reveal_request


def record_answers(connection: Connection, answers: Sequence[Answer], policy: PolicySettings) -> list[Effect]:
    """Lock, rule and write a set of answers; the effects come in the order of the answers.

    Answers about the same edit are ruled one after the other, each on what the one before left behind.
    """
    effects: dict[int, Effect] = {}
    waiting = list(enumerate(answers))
    while waiting:
        standings = _lock(connection, [answer.submission_id for _, answer in waiting])
        owners = _owners(connection, [answer.request_id for _, answer in waiting if answer.request_id])
        rulings: list[tuple[Answer, Ruling]] = []
        later: list[tuple[int, Answer]] = []
        edits_seen: set[int] = set()
        for number, answer in waiting:
            standing = standings.get(answer.submission_id)
            if standing is not None and standing.edit_id in edits_seen:
                later.append((number, answer))
                continue
            ruling = _rule(standing, answer, owners, policy)
            effects[number] = ruling.effect
            if standing is not None and ruling.effect is Effect.APPLIED:
                edits_seen.add(standing.edit_id)
                rulings.append((answer, ruling))
        _write(connection, rulings)
        waiting = later
    return [effects[number] for number in range(len(answers))]


def _rule(standing: Standing | None, answer: Answer, owners: dict[str, UUID], policy: PolicySettings) -> Ruling:
    if standing is None:
        return Ruling(Effect.ORPHAN)
    if answer.request_id and owners.setdefault(answer.request_id, answer.submission_id) != answer.submission_id:
        return Ruling(Effect.MISMATCH)  # a request id that belongs to another submission
    return rule(standing, answer, policy)


def _write(connection: Connection, rulings: Sequence[tuple[Answer, Ruling]]) -> None:
    for answer, ruling in rulings:
        if ruling.reveal and answer.request_id:
            reveal_request(connection, answer.submission_id, answer.request_id, patience=WATCHDOG)
    close_submissions(connection, [ruling.end for _, ruling in rulings if ruling.end])
    moved = move_edits(connection, [ruling.move for _, ruling in rulings if ruling.move])
    add_images(
        connection,
        [
            (answer.submission_id, ruling.move is not None and ruling.move.edit_id in moved, answer.verdict.images)
            for answer, ruling in rulings
            if ruling.end and ruling.end.outcome is Outcome.SUCCEEDED
        ],
    )


def _lock(connection: Connection, submission_ids: Sequence[UUID]) -> dict[UUID, Standing]:
    """Lock the submissions and their edits, then read them: a statement that waited for a lock has seen what else
    belongs to an edit before its wait."""
    ids = (list(set(submission_ids)),)
    connection.exec_driver_sql(
        """
        SELECT FROM submissions s JOIN edits e ON e.id = s.edit_id
        WHERE s.id = ANY(%s) ORDER BY e.id, s.id FOR UPDATE OF e, s
        """,
        ids,
    )
    rows = connection.exec_driver_sql(
        """
        SELECT s.id, s.request_id, s.outcome, s.learned_by, s.error_type, s.attempt AS submission_attempt,
               e.id AS edit_id, e.state, e.attempt AS edit_attempt, e.attempts_before, b.max_attempts,
               e.cancel_requested_at IS NOT NULL AS cancel_wished,
               EXISTS (SELECT FROM submissions o WHERE o.edit_id = e.id AND o.id <> s.id AND o.outcome IS NULL)
               AS others_open,
               EXISTS (SELECT FROM submissions o WHERE o.edit_id = e.id AND o.id <> s.id AND o.outcome = 'succeeded'
                       AND NOT o.doubled) AS others_paid,
               ARRAY(SELECT entry ->> 'type' FROM jsonb_array_elements(e.errors) AS entry) AS earlier_errors
        FROM submissions s JOIN edits e ON e.id = s.edit_id JOIN batches b ON b.id = e.batch_id
        WHERE s.id = ANY(%s)
        """,
        ids,
    )
    return {
        row.id: Standing(
            submission_id=row.id,
            request_id=row.request_id,
            outcome=row.outcome and Outcome(row.outcome),
            learned_by=row.learned_by and LearnedBy(row.learned_by),
            error_type=row.error_type,
            submission_attempt=row.submission_attempt,
            edit_id=row.edit_id,
            state=EditState(row.state),
            edit_attempt=row.edit_attempt,
            attempts_before=row.attempts_before,
            max_attempts=row.max_attempts,
            cancel_wished=row.cancel_wished,
            others_open=row.others_open,
            others_paid=row.others_paid,
            earlier_errors=tuple(row.earlier_errors),
        )
        for row in rows
    }


def _owners(connection: Connection, request_ids: Sequence[str]) -> dict[str, UUID]:
    rows = connection.exec_driver_sql(
        "SELECT request_id, id FROM submissions WHERE request_id = ANY(%s)", (list(request_ids),)
    )
    return {row.request_id: row.id for row in rows}
