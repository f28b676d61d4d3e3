"""The arrows of an input: looked at and ready, refused, to be looked at again.

Edits are locked before inputs, and these before their batch.
"""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from models.statements import RowSet, Statement

ROWS_AT_ONCE = 5_000
"""Inputs that one statement moves at most."""


class ReadyInput(NamedTuple):
    """An input that was looked at and is fit to be sent."""

    id: int
    sha256: str
    content_type: str
    bytes: int
    width: int
    height: int
    url: str | None = None
    """What the provider is given in the place of an object of the store; None: the caller's own URL."""
    lasts: float | None = None
    """Seconds for which that URL leads somewhere; None: nobody named an end."""


_READY = RowSet(
    "m",
    id="bigint",
    sha256="text",
    content_type="text",
    bytes="bigint",
    width="integer",
    height="integer",
    url="text",
    lasts="float8",
)
RECORD_READY_INPUTS = Statement(
    """
    UPDATE inputs i
    SET state = 'ready', due_at = NULL, sha256 = m.sha256, content_type = m.content_type, bytes = m.bytes,
        width = m.width, height = m.height, url = m.url, url_expires_at = now() + m.lasts * interval '1 s'
    FROM {ready} WHERE i.id = m.id AND i.state = 'waiting'
    """,
    ready=_READY,
    index="inputs_pkey",
)


def record_ready_inputs(connection: Connection, ready: Sequence[ReadyInput]) -> None:
    """waiting -> ready."""
    connection.exec_driver_sql(RECORD_READY_INPUTS, _READY.arrays(ready))


class InputFault(NamedTuple):
    """What is wrong with an input, and in how many seconds it is looked at again; None: it is refused."""

    id: int
    type: str
    message: str
    delay: float | None = None


_FAULTS = RowSet("m", id="bigint", type="text", message="text", delay="float8")
RECORD_INPUT_FAULTS = Statement(
    """
    UPDATE inputs i
    SET state = CASE WHEN m.delay IS NULL THEN 'refused' ELSE 'waiting' END,
        due_at = now() + m.delay * interval '1 s',
        errors = i.errors || jsonb_build_array(jsonb_build_object(
            'at', now(), 'attempt', i.attempt, 'type', m.type, 'message', m.message))
    FROM {faults} WHERE i.id = m.id AND i.state = 'waiting'
    """,
    faults=_FAULTS,
    index="inputs_pkey",
)


def record_input_faults(connection: Connection, faults: Sequence[InputFault]) -> None:
    """waiting -> refused, or looked at again later; the edits that have it fail when their turn comes."""
    connection.exec_driver_sql(RECORD_INPUT_FAULTS, _FAULTS.arrays(faults))


RELEASE_INPUTS = Statement(
    """
    UPDATE inputs SET due_at = now() + %s * interval '1 s', attempt = greatest(attempt - 1, 0)
    WHERE id = ANY(%s) AND state = 'waiting'
    """,
    index="inputs_pkey|inputs_waiting",
)


def release_inputs(connection: Connection, input_ids: Sequence[int], *, delay: float) -> None:
    """Give claimed inputs back after a trouble that is ours, which used up no try."""
    connection.exec_driver_sql(RELEASE_INPUTS, (delay, list(input_ids)))


class NeededInput(NamedTuple):
    """An entry of `image_urls` of an edit that is to be submitted."""

    batch_id: UUID
    digest: bytes
    position: int
    number: int


_NEEDED = RowSet("m", batch="uuid", digest="bytea", position="integer", number="integer")
LOOK_AGAIN_AT_NEEDED = Statement(
    """
    INSERT INTO inputs (batch_id, digest, position, number, holds_from)
    SELECT DISTINCT ON (m.batch, m.digest) m.batch, m.digest, m.position, m.number, m.position FROM {needed}
    ORDER BY m.batch, m.digest, m.position
    ON CONFLICT (batch_id, digest) DO UPDATE
    SET state = 'waiting', url = NULL, url_expires_at = NULL,
        due_at = CASE WHEN inputs.state = 'waiting' THEN inputs.due_at ELSE now() END,
        attempt = CASE WHEN inputs.state = 'waiting' THEN inputs.attempt ELSE 0 END,
        holds_from = CASE WHEN inputs.state = 'waiting' THEN least(inputs.holds_from, excluded.holds_from)
                     ELSE excluded.holds_from END
    """,
    needed=_NEEDED,
)
LOOK_AGAIN_AT_EXPIRING = Statement(
    """
    UPDATE inputs SET state = 'waiting', due_at = now(), attempt = 0, url = NULL, url_expires_at = NULL,
                      holds_from = position
    WHERE id IN (SELECT id FROM inputs
                 WHERE batch_id = %(batch)s AND state = 'ready' AND position >= %(position)s
                   AND url_expires_at < now() + %(needed_for)s * interval '1 s'
                 ORDER BY position LIMIT %(limit)s)
    """,
    index="inputs_batch_id_digest_key|inputs_waiting inputs_pkey",
)
HOLD_EDITS = Statement(
    """
    UPDATE batches b SET inputs_ready_to = least(coalesce(b.inputs_ready_to, 2147483647), m.position)
    FROM (SELECT DISTINCT ON (m.batch) m.batch, m.position FROM {needed} ORDER BY m.batch, m.position) m
    WHERE b.id = m.batch
    """,
    needed=_NEEDED,
)


def look_again(connection: Connection, needed: Sequence[NeededInput], *, needed_for: float) -> None:
    """ready or refused -> waiting: what edits need that were to be submitted, and what would be needed soon after.

    What the provider was given for these would not last for `needed_for` seconds. Their edits wait, and so do those
    behind them.
    """
    values = _NEEDED.arrays(needed)
    connection.exec_driver_sql(LOOK_AGAIN_AT_NEEDED, values)
    for batch_id in {entry.batch_id for entry in needed}:
        first = min(entry.position for entry in needed if entry.batch_id == batch_id)
        soon = {"batch": batch_id, "position": first, "needed_for": needed_for, "limit": ROWS_AT_ONCE}
        connection.exec_driver_sql(LOOK_AGAIN_AT_EXPIRING, soon)
    connection.exec_driver_sql(HOLD_EDITS, values)


LOOK_AGAIN_AT_REFUSED = Statement(
    """
    WITH again AS (
        UPDATE inputs SET state = 'waiting', due_at = now(), attempt = 0,
                          holds_from = CASE WHEN sampled THEN holds_from ELSE position END
        WHERE id IN (SELECT id FROM inputs WHERE batch_id = %(batch)s AND state = 'refused' ORDER BY id LIMIT %(limit)s)
        RETURNING holds_from
    )
    SELECT count(*) AS inputs, min(holds_from) AS first FROM again
    """,
    index="inputs_refused inputs_pkey",
)
HOLD_BATCH = Statement(
    "UPDATE batches SET inputs_ready_to = least(coalesce(inputs_ready_to, 2147483647), %s) WHERE id = %s",
    index="batches_pkey",
)


def look_again_at_refused(connection: Connection, batch_id: UUID) -> None:
    """refused -> waiting for a batch whose failed edits are retried: what was wrong may have been mended."""
    found: list[int] = []
    while True:
        row = connection.exec_driver_sql(LOOK_AGAIN_AT_REFUSED, {"batch": batch_id, "limit": ROWS_AT_ONCE}).one()
        found += [] if row.first is None else [row.first]
        if row.inputs < ROWS_AT_ONCE:
            break
    if found:
        connection.exec_driver_sql(HOLD_BATCH, (min(found), batch_id))
