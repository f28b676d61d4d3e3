"""The messages owed to callers: which are due, what became of each try, and sending one again by hand.

Settling a batch writes the row, its payload complete; from then on a row is either due, or leased to a worker that
tries it (`due_at` pushed ahead), or at rest: delivered, or given up. SQL only; when to try again is the lane's say.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from models.statements import RowSet, Statement

ERROR_CHARS = 300
"""Characters of `last_error`."""


class DueNotification(NamedTuple):
    """One message to deliver now."""

    id: UUID
    batch_id: UUID
    url: str
    payload: str
    """The database's own text of it: the same bytes at every try, no number rendered anew."""
    attempt: int
    client: str
    """Whose batch it is about: the message is signed for this client alone."""


CLAIM_NOTIFICATIONS = Statement(
    """
    WITH due AS (
        SELECT n.id, b.client FROM notifications n JOIN batches b ON b.id = n.batch_id
        WHERE n.due_at <= now() AND (%(clients)s::text[] IS NULL OR b.client = ANY(%(clients)s::text[]))
        ORDER BY n.attempt, n.due_at LIMIT %(limit)s FOR UPDATE OF n SKIP LOCKED
    )
    UPDATE notifications n
    SET due_at = now() + %(lease)s * interval '1 s', attempt = n.attempt + 1, attempted_at = now()
    FROM due WHERE n.id = due.id
    RETURNING n.id, n.batch_id, n.url, n.payload::text, n.attempt, due.client
""",
    index="notifications_due",
)


def claim_notifications(
    connection: Connection, *, limit: int, lease: float, clients: Collection[str] | None = None
) -> list[DueNotification]:
    """Messages to deliver, those that were never tried first: a dead receiver's retries make nobody else wait.

    `clients` takes only messages to these; None: to everyone.
    """
    rows = connection.exec_driver_sql(
        CLAIM_NOTIFICATIONS,
        {"limit": limit, "lease": lease, "clients": None if clients is None else list(clients)},
    )
    return [DueNotification(*row) for row in rows]


RENEW_NOTIFICATIONS = Statement(
    "UPDATE notifications SET due_at = now() + %s * interval '1 s' WHERE id = ANY(%s) AND due_at IS NOT NULL",
    index="notifications_pkey|notifications_due",
)


def renew_notifications(connection: Connection, notification_ids: Sequence[UUID], *, lease: float) -> None:
    """Keep claimed messages for as long again."""
    connection.exec_driver_sql(
        RENEW_NOTIFICATIONS,
        (lease, list(notification_ids)),
    )


PUT_OFF_NOTIFICATIONS = Statement(
    """
    WITH due AS (
        SELECT n.id FROM notifications n JOIN batches b ON b.id = n.batch_id
        WHERE n.due_at <= now() AND NOT b.client = ANY(%(signable)s::text[])
        ORDER BY n.due_at LIMIT %(limit)s FOR UPDATE OF n SKIP LOCKED
    )
    UPDATE notifications n
    SET due_at = now() + %(delay)s * interval '1 s', last_status = NULL, last_error = %(reason)s
    FROM due WHERE n.id = due.id
    RETURNING n.id
""",
    index="notifications_due",
)


def put_off_notifications(
    connection: Connection, reason: str, signable: Collection[str], *, limit: int, delay: float
) -> list[UUID]:
    """Let due messages to all clients but those in `signable` wait `delay` seconds more, with the reason; that spends
    no attempt."""
    rows = connection.exec_driver_sql(
        PUT_OFF_NOTIFICATIONS,
        {"limit": limit, "delay": delay, "reason": printable(reason), "signable": list(signable)},
    )
    return list(rows.scalars())


class Attempt(NamedTuple):
    """How one try ended: delivered (no `error`), to be tried again after `delay` seconds, or given up (no `delay`)."""

    id: UUID
    attempt: int
    status: int | None
    """The HTTP status that was answered; None where none was."""
    error: str | None
    delay: float | None


_ATTEMPTS = RowSet("m", id="uuid", attempt="integer", status="integer", error="text", delay="float8")
RECORD_ATTEMPTS = Statement(
    """
    UPDATE notifications n
    SET delivered_at = CASE WHEN m.error IS NULL THEN now() END,
        due_at = CASE WHEN m.error IS NOT NULL THEN now() + m.delay * interval '1 s' END,
        last_status = m.status, last_error = m.error
    FROM {attempts}
    WHERE n.id = m.id AND n.delivered_at IS NULL AND (m.error IS NULL OR n.attempt = m.attempt)
""",
    attempts=_ATTEMPTS,
    index="notifications_pkey",
)


def record_attempts(connection: Connection, attempts: Sequence[Attempt]) -> None:
    """Write down how tries ended.

    A delivery counts whoever made it. A failure counts only while it is the latest try of a message that is not
    delivered: a worker whose lease lapsed takes nothing back from the one that came after it.
    """
    connection.exec_driver_sql(
        RECORD_ATTEMPTS,
        _ATTEMPTS.arrays(
            attempt._replace(error=None if attempt.error is None else printable(attempt.error)) for attempt in attempts
        ),
    )


class Redelivery(NamedTuple):
    """A message that is due again, and how it stood before."""

    notification_id: UUID
    event: str
    url: str
    attempt: int
    last_status: int | None
    last_error: str | None
    created_at: datetime
    delivered_at: datetime | None


REDELIVER = Statement(
    """
    WITH chosen AS (
        SELECT * FROM notifications WHERE batch_id = %(batch_id)s
        ORDER BY created_at DESC, id LIMIT CASE WHEN %(every)s THEN NULL ELSE 1 END FOR UPDATE
    ), again AS (
        UPDATE notifications n SET due_at = now(), attempt = 0, delivered_at = NULL
        FROM chosen WHERE n.id = chosen.id
    )
    SELECT id, event, url, attempt, last_status, last_error, created_at, delivered_at
    FROM chosen ORDER BY created_at, id
""",
    index="notifications_batch",
)


def redeliver(connection: Connection, batch_id: UUID | str, *, every: bool) -> list[Redelivery]:
    """Have the newest message of a batch, or every one, delivered again from the first attempt; the oldest first."""
    rows = connection.exec_driver_sql(
        REDELIVER,
        {"batch_id": batch_id, "every": every},
    )
    return [Redelivery(*row) for row in rows]


def printable(text: str) -> str:
    """A receiver's words in a form that a column and a terminal can take."""
    return "".join(character if character.isprintable() else "?" for character in text)[:ERROR_CHARS]
