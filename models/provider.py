"""The provider's account as a whole: paused or not, why, until when, and what the provider calls us.

One row of `provider_status`. A pause stops all submitting and fails no edit (architecture: rulings, "paused
account"); `claims.claim_edits` lets single probes through.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import Connection

from models.statements import Statement

ACCOUNT = "fal"
LIST_PRICE = Decimal("0.03")
"""USD per image, as published (provider-protocol 6), for as long as nobody says otherwise."""


PAUSE_ACCOUNT = Statement("""
    INSERT INTO provider_status (account, paused_at, reason, message, retry_at)
    VALUES (%(account)s, now(), %(reason)s, %(message)s, now() + %(retry_after)s * interval '1 s')
    ON CONFLICT (account) DO UPDATE
    SET paused_at = coalesce(provider_status.paused_at, now()), reason = excluded.reason,
        message = excluded.message, retry_at = coalesce(provider_status.retry_at, excluded.retry_at)
""")


def pause(connection: Connection, reason: str, message: str, *, retry_after: float) -> None:
    """Stop submitting; a pause that stands already keeps its own clock and takes the newer reason."""
    connection.exec_driver_sql(
        PAUSE_ACCOUNT,
        {"account": ACCOUNT, "reason": reason, "message": message, "retry_after": retry_after},
    )


RESUME_ACCOUNT = Statement("""
    WITH before AS (
        SELECT account, paused_at FROM provider_status WHERE paused_at IS NOT NULL OR unknown_submits > 0 FOR UPDATE
    )
    UPDATE provider_status p
    SET paused_at = NULL, reason = NULL, message = NULL, retry_at = NULL, probes = 0,
        unknown_submits = 0, unknown_since = NULL
    FROM before WHERE p.account = before.account RETURNING before.paused_at IS NOT NULL
""")


def resume(connection: Connection) -> bool:
    """Submit again; True if there was a pause to end."""
    rows = connection.exec_driver_sql(RESUME_ACCOUNT)
    return any(rows.scalars())


POSTS = Statement(
    "SELECT posted_at, request_id IS NOT NULL AS accepted FROM submissions WHERE id = ANY(%s)", index="submissions_pkey"
)
COUNT_UNKNOWN = Statement("""
    INSERT INTO provider_status (account, unknown_submits, unknown_since)
    VALUES (%(account)s, %(count)s, %(first)s)
    ON CONFLICT (account) DO UPDATE
    SET unknown_submits = provider_status.unknown_submits + excluded.unknown_submits,
        unknown_since = least(provider_status.unknown_since, excluded.unknown_since)
    RETURNING unknown_submits
""")


def count_unknown(connection: Connection, submission_ids: Sequence[UUID]) -> int:
    """Count POSTs that brought no usable reply; answers how many there are in a row by now, over all workers.

    One of which a callback has told meanwhile was accepted: that is a success, and ends the run.
    """
    posts = connection.exec_driver_sql(
        POSTS,
        (list(submission_ids),),
    ).all()
    if accepted := [post.posted_at for post in posts if post.accepted]:
        note_accepted(connection, max(accepted))
    unknown = [post.posted_at for post in posts if not post.accepted]
    if not unknown:
        return 0
    row = connection.exec_driver_sql(
        COUNT_UNKNOWN,
        {"account": ACCOUNT, "count": len(unknown), "first": min(unknown)},
    )
    return int(row.scalar_one())


END_UNKNOWN_RUN = Statement("""
    UPDATE provider_status
    SET unknown_submits = 0, unknown_since = NULL,
        paused_at = CASE WHEN reason NOT IN ('outage', 'unreachable') THEN paused_at END,
        message = CASE WHEN reason NOT IN ('outage', 'unreachable') THEN message END,
        retry_at = CASE WHEN reason NOT IN ('outage', 'unreachable') THEN retry_at END,
        probes = CASE WHEN reason NOT IN ('outage', 'unreachable') THEN probes ELSE 0 END,
        reason = CASE WHEN reason NOT IN ('outage', 'unreachable') THEN reason END
    WHERE coalesce(unknown_since, CASE WHEN reason IN ('outage', 'unreachable') THEN paused_at END) <= %s
""")


def note_accepted(connection: Connection, posted_at: datetime) -> None:
    """Take a sign that the provider accepted a POST whose reply we never had: submitting works, only replies are lost.

    It ends the run of unknown submits, and a pause for `outage` or `unreachable`, if it is no older than these; a
    refused key or a locked account is none of its business. While nothing is wrong this writes nothing: callbacks do
    not wait for each other here.
    """
    connection.exec_driver_sql(
        END_UNKNOWN_RUN,
        (posted_at,),
    )


ACCOUNT_PAUSED = Statement("SELECT FROM provider_status WHERE paused_at IS NOT NULL")


def is_paused(connection: Connection) -> bool:
    """Whether submitting is paused: what the provider refuses then, it refuses the account."""
    return bool(connection.exec_driver_sql(ACCOUNT_PAUSED).all())


USER_ID = Statement("SELECT user_id FROM provider_status WHERE account = %s")


def user_id(connection: Connection) -> str | None:
    """The provider's name for our account, once learned."""
    row = connection.exec_driver_sql(USER_ID, (ACCOUNT,)).first()
    return row.user_id if row else None


LEARN_USER_ID = Statement("""
    INSERT INTO provider_status (account, user_id) VALUES (%s, %s)
    ON CONFLICT (account) DO UPDATE SET user_id = coalesce(provider_status.user_id, excluded.user_id)
""")


def learn_user_id(connection: Connection, found: str) -> None:
    """Keep the sender of the first delivery about a request that our own reply had named; never replaced by itself."""
    connection.exec_driver_sql(
        LEARN_USER_ID,
        (ACCOUNT, found),
    )


PRICE = Statement("SELECT price_per_image FROM provider_status WHERE account = %s")


def price_per_image(connection: Connection, configured: Decimal | None) -> Decimal:
    """USD that one image costs: as configured, else as the provider said last, else as published."""
    if configured is not None:
        return configured
    row = connection.exec_driver_sql(PRICE, (ACCOUNT,)).first()
    # a price of nothing would let every ceiling of cost through; the release before believed one
    return row.price_per_image if row and row.price_per_image else LIST_PRICE


CLAIM_PRICE_READING = Statement("""
    INSERT INTO provider_status (account, price_read_at) VALUES (%(account)s, now())
    ON CONFLICT (account) DO UPDATE SET price_read_at = now()
    WHERE provider_status.price_read_at IS NULL
       OR provider_status.price_read_at < now() - %(seconds)s * interval '1 s'
    RETURNING account
""")


def price_is_older(connection: Connection, seconds: float) -> bool:
    """Whether nobody asked the provider for its price for so long; that somebody asks now is noted at once."""
    rows = connection.exec_driver_sql(
        CLAIM_PRICE_READING,
        {"account": ACCOUNT, "seconds": seconds},
    )
    return bool(rows.all())


LEARN_PRICE = Statement("UPDATE provider_status SET price_per_image = %s WHERE account = %s")


def learn_price(connection: Connection, price: Decimal) -> None:
    """Keep what the provider says that one image costs, in USD."""
    connection.exec_driver_sql(LEARN_PRICE, (price, ACCOUNT))
