"""What is due? One function per lane; fairness and the in-flight window live here.

A claim takes rows that no other worker holds (SKIP LOCKED, or the window's lock) and leases them by pushing
`due_at` ahead: whoever claimed them and dies simply lets them fall due again. Claims move no state; the submit
lane's claim is followed by `transitions.start_submissions` in the same transaction.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from models.criteria import MAX_IMAGES_SQL
from models.pauses import claim_probes, due_probes
from models.predicates import batch_submits, edit_has_inputs, edit_in_flight, submission_open
from models.provider import is_paused
from models.queries.locks import LOCK_UNTIL_COMMIT
from models.statements import Statement

WINDOW_LOCK = 7362
"""Key of the advisory lock under which claimers take turns, so that the in-flight window is exact."""


CLAIM_ACCOUNT_PROBE = Statement("""
    UPDATE provider_status
    SET probes = probes + 1, retry_at = now() + least(%s * 2 ^ (probes + 1), 900) * interval '1 s'
    WHERE retry_at <= now() RETURNING probes
""")


def claim_edits(connection: Connection, *, limit: int, window: int, probe_after: float, price: Decimal) -> list[int]:
    """Ids of pending edits to submit now: by priority, then round-robin over batches, inside every window.

    A batch's turn counts what it has in flight already, so that a batch of 10 does not wait behind one of
    100 000. A batch with a ceiling of cost gets what fits under it in the worst case, at `price` (USD an image),
    beside what it has committed. An edit whose inputs were not looked at yet is left out (`input_claims.py`).
    While the provider's account is paused nothing is claimed; once `retry_at` has come one edit probes it, and the next
    probe is put off, doubling from `probe_after` seconds up to 15 minutes. So it is with an endpoint whose model is
    down (`incidents.py`), while other endpoints go on.
    """
    connection.exec_driver_sql(LOCK_UNTIL_COMMIT, (WINDOW_LOCK,))
    paused = connection.exec_driver_sql(
        CLAIM_ACCOUNT_PROBE,
        (probe_after,),
    ).all()
    if paused:
        limit = 1
    elif is_paused(connection):
        return []
    ids = _choose_ids(connection, CHOOSE_RUNNING, limit=limit, window=window, price=price)
    if len(ids) < limit:
        ids += _choose_probes(
            connection, limit=limit - len(ids), window=window - len(ids), price=price, after=probe_after
        )
    return ids


def _choose_edits(*, batches: str, edits: str, order: str) -> Statement:
    """Which batches `b`, which of their edits `e`, in which order."""
    return Statement(
        _CHOOSE_EDITS,
        index="edits_open submissions_open",
        batches=batches,
        edits=edits,
        order=order,
        in_flight=edit_in_flight("edits"),
        submission_open=submission_open("s"),
        batch_submits=batch_submits("b"),
        has_inputs=edit_has_inputs("e", "b"),
        max_images=MAX_IMAGES_SQL,
    )


_CHOOSE_EDITS = """
    WITH in_flight AS MATERIALIZED (
        SELECT batch_id, count(*) AS edits FROM edits
        WHERE {in_flight} GROUP BY batch_id
    ), free AS (
        SELECT least(%(limit)s, %(window)s - coalesce(sum(edits), 0)) AS slots FROM in_flight
    )
    SELECT candidate.id
    FROM batches b
    LEFT JOIN in_flight ON in_flight.batch_id = b.id
    CROSS JOIN LATERAL (
        SELECT e.id, coalesce(in_flight.edits, 0) + row_number() OVER (ORDER BY e.position) AS turn,
               sum(CASE WHEN b.max_cost IS NOT NULL THEN {max_images} END) OVER (ORDER BY e.position)
               * %(price)s::numeric AS cost
        FROM edits e
        WHERE e.batch_id = b.id AND e.state = 'pending' AND e.due_at <= now() AND e.cancel_requested_at IS NULL
          AND {has_inputs}
          AND NOT EXISTS (SELECT FROM submissions s WHERE s.edit_id = e.id AND {submission_open})
          AND {edits}
        ORDER BY {order}
        LIMIT CASE WHEN b.max_in_flight IS NULL THEN %(limit)s
              ELSE least(%(limit)s, greatest(0, b.max_in_flight - coalesce(in_flight.edits, 0))) END
    ) candidate
    LEFT JOIN spending ON spending.batch_id = b.id
    WHERE {batch_submits}
      AND {batches}
      AND (b.deadline IS NULL OR b.deadline > now())
      AND (b.max_cost IS NULL OR candidate.cost + coalesce(spending.committed, 0) <= b.max_cost)
    ORDER BY b.priority DESC, candidate.turn, b.created_at
    LIMIT (SELECT greatest(slots, 0) FROM free)
"""
CHOOSE_RUNNING = _choose_edits(
    batches="NOT EXISTS (SELECT FROM lane_pauses p WHERE p.lane = 'submit' AND p.subject = b.endpoint)",
    edits="true",
    order="e.position",
)
CHOOSE_UNTRIED = _choose_edits(batches="b.endpoint = %(endpoint)s", edits="e.attempt = 0", order="e.position")
CHOOSE_TRIED = _choose_edits(batches="b.endpoint = %(endpoint)s", edits="true", order="e.attempt, e.position")


def _choose_probes(connection: Connection, *, limit: int, window: int, price: Decimal, after: float) -> list[int]:
    """One edit for each paused endpoint that may be probed: one that was never tried, else the one tried least.

    So an edit that is bad itself does not keep its endpoint paused for the others. Those that were tried are few: what
    was in flight when the model went down, and the probes since.
    """
    ids: list[int] = []
    for endpoint in due_probes(connection, "submit")[:limit]:
        for statement in (CHOOSE_UNTRIED, CHOOSE_TRIED):
            found = _choose_ids(
                connection, statement, limit=1, window=window - len(ids), price=price, endpoint=endpoint
            )
            if found:
                claim_probes(connection, "submit", probe_after=after, subjects=[endpoint])
                ids += found
                break
    return ids


def _choose_ids(
    connection: Connection,
    statement: Statement,
    *,
    limit: int,
    window: int,
    price: Decimal,
    endpoint: str | None = None,
) -> list[int]:
    values = {"limit": limit, "window": window, "price": price, "endpoint": endpoint}
    rows = connection.exec_driver_sql(statement, values)
    return [row.id for row in rows]


LARGE = 2048
"""Bytes of stored arguments from which on it is worth asking how large they really are."""


STORED_SIZES = Statement("SELECT id, pg_column_size(arguments) FROM edits WHERE id = ANY(%s)", index="edits_pkey")
SENT_SIZE = Statement("SELECT octet_length(arguments::text) FROM edits WHERE id = %s", index="edits_pkey")


def fit_edits(connection: Connection, edit_ids: Sequence[int], *, max_bytes: int) -> list[int]:
    """The first of these edits, as many as have `max_bytes` bytes of arguments between them, but always one.

    An edit may hold its images as data URIs. What is stored may be compressed a hundredfold, so the large ones are
    measured as they will be sent, one after the other, until it is enough.
    """
    stored = connection.exec_driver_sql(STORED_SIZES, (list(edit_ids),))
    sizes = {row[0]: row[1] for row in stored}
    chosen: list[int] = []
    for edit_id in edit_ids:
        if max_bytes <= 0 and chosen:
            break
        chosen.append(edit_id)
        size = sizes.get(edit_id, 0)
        if size >= LARGE:
            query = SENT_SIZE
            size = connection.exec_driver_sql(query, (edit_id,)).scalar_one()
        max_bytes -= size
    return chosen


class DuePoll(NamedTuple):
    """A submission that has not been heard of in time."""

    id: UUID
    request_id: str
    endpoint: str
    polls: int
    age: float
    """Seconds since it was accepted."""
    cancel: bool
    """Its edit is to be cancelled, and the provider has not heard of that yet."""
    denials: int = 0
    """404s in a row, since it can have ended."""
    denied_for: float = 0.0
    """Seconds since the first of them."""


CLAIM_POLLS = Statement(
    """
    WITH due AS (
        SELECT id FROM submissions WHERE due_at <= now() AND request_id IS NOT NULL
        ORDER BY result_lost_after NULLS LAST, due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    )
    UPDATE submissions s SET due_at = now() + %(lease)s * interval '1 s', polls = polls + 1
    FROM due, edits e JOIN batches b ON b.id = e.batch_id
    WHERE s.id = due.id AND e.id = s.edit_id
    RETURNING s.id, s.request_id, b.endpoint, s.polls, extract(epoch FROM now() - s.accepted_at)::float8,
              e.cancel_requested_at IS NOT NULL AND s.cancel_sent_at IS NULL,
              s.denials, coalesce(extract(epoch FROM now() - s.denied_since), 0)::float8
""",
    index="submissions_due edits_pkey",
)


def claim_polls(connection: Connection, *, limit: int, lease: float) -> list[DuePoll]:
    """Submissions to ask about, the nearest retention deadline first."""
    rows = connection.exec_driver_sql(
        CLAIM_POLLS,
        {"limit": limit, "lease": lease},
    )
    return [DuePoll(*row) for row in rows]


class DueUnknown(NamedTuple):
    """A submission whose POST is past its unknown deadline, and of which no request id was ever heard."""

    id: UUID
    endpoint: str
    posted_at: datetime
    lookups: int
    """Times its request was looked for, this time included."""
    denials: int
    """Lookups in a row that could prove nothing and never will, as things stand."""
    denied_for: float
    """Seconds since the first of them."""
    searched_to: datetime | None
    """The listing, newest first, is read down to requests that ended then; None: not begun."""
    searched_from: datetime | None
    """When the newest request in the listing had ended as the reading began; newer ones are still to be read."""
    allowed: float = 0.0
    """Seconds after its POST by which its request must have ended: the unknown deadline of then, whatever it is now."""


CLAIM_UNKNOWN = Statement(
    """
    WITH due AS (
        SELECT id FROM submissions WHERE due_at <= now() AND request_id IS NULL
        ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    )
    UPDATE submissions s SET due_at = now() + %(lease)s * interval '1 s', polls = polls + 1
    FROM due, edits e JOIN batches b ON b.id = e.batch_id
    WHERE s.id = due.id AND e.id = s.edit_id
    RETURNING s.id, b.endpoint, s.posted_at, s.polls,
              s.denials, coalesce(extract(epoch FROM now() - s.denied_since), 0)::float8, s.searched_to,
              s.searched_from, coalesce(extract(epoch FROM e.due_at - s.posted_at), 0)::float8
""",
    index="submissions_due edits_pkey",
)


def claim_unknown(connection: Connection, *, limit: int, lease: float) -> list[DueUnknown]:
    """Submissions past the deadline of an unknown submit."""
    rows = connection.exec_driver_sql(
        CLAIM_UNKNOWN,
        {"limit": limit, "lease": lease},
    )
    return [DueUnknown(*row) for row in rows]


RENEW_POLLS = Statement(
    "UPDATE submissions SET due_at = now() + %s * interval '1 s' WHERE id = ANY(%s) AND due_at IS NOT NULL",
    index="submissions_pkey|submissions_due",
)


def renew_polls(connection: Connection, submission_ids: Sequence[UUID], *, lease: float) -> None:
    """Keep claimed submissions for as long again."""
    connection.exec_driver_sql(
        RENEW_POLLS,
        (lease, list(submission_ids)),
    )


class DueImage(NamedTuple):
    """An image to fetch, with what the provider declared of it."""

    id: int
    url: str
    file_size: int | None
    width: int | None
    height: int | None
    attempt: int
    name: str
    """Where it goes: `{batch_id}/{custom_id or position}/{index}`, the extension to be told by its bytes. A set that
    was taken in the place of another has its number behind that (`transitions/image_sets.py`)."""
    host: str
    """The host and port of its URL; empty where the URL holds the image itself."""


HOST = "lower(split_part(split_part(left(url, 300), '://', 2), '/', 1))"
"""Of an image's URL, for counting only: where it may be fetched from, the fetcher says."""


CLAIM_IMAGES = Statement(
    """
    WITH due AS (
        SELECT id, octet_length(url) AS bytes, expires_at, due_at FROM images
        WHERE due_at <= now() AND (cardinality(%(not_from)s::text[]) = 0 OR {host} <> ALL(%(not_from)s::text[]))
        ORDER BY expires_at NULLS LAST, due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ), fitting AS (
        SELECT id, sum(bytes) OVER (ORDER BY expires_at NULLS LAST, due_at, id) - bytes AS before FROM due
    )
    UPDATE images i SET due_at = now() + %(lease)s * interval '1 s', attempt = i.attempt + 1
    FROM fitting, submissions s JOIN edits e ON e.id = s.edit_id
    WHERE i.id = fitting.id AND fitting.before < %(max_bytes)s AND s.id = i.submission_id
    RETURNING i.id, i.url, i.file_size, i.width, i.height, i.attempt,
              e.batch_id || '/' || coalesce(e.custom_id, e.position::text) || '/' || i.index
              || CASE WHEN s.set_number > 1 THEN '.' || s.set_number ELSE '' END, {host}
""",
    index="images_due submissions_pkey edits_pkey",
    host=HOST,
)


def claim_images(
    connection: Connection,
    *,
    limit: int,
    lease: float,
    not_from: Sequence[str] = (),
    max_bytes: int = 2**40,
) -> list[DueImage]:
    """Images to fetch, the nearest expiry first.

    None from the hosts `not_from`; not more than `max_bytes` bytes of URLs, which may hold the images themselves,
    but always one.
    """
    rows = connection.exec_driver_sql(
        CLAIM_IMAGES,
        {"limit": limit, "lease": lease, "not_from": list(not_from), "max_bytes": max_bytes},
    )
    return [DueImage(*row) for row in rows]


RENEW_IMAGES = Statement(
    "UPDATE images SET due_at = now() + %s * interval '1 s' WHERE id = ANY(%s) AND due_at IS NOT NULL",
    index="images_pkey|images_due",
)


def renew_images(connection: Connection, image_ids: Sequence[int], *, lease: float) -> None:
    """Keep claimed images for as long again."""
    connection.exec_driver_sql(
        RENEW_IMAGES,
        (lease, list(image_ids)),
    )
