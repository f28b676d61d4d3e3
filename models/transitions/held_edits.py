"""Edits that are held back until their inputs were looked at, and the arrow of those whose inputs were refused.

The row of a batch says from which position on edits are held back (`inputs_ready_to`). It moves on in steps, each a
transaction, up to the first edit whose input still waits; on its way edits with a refused input fail, unpaid.
"""

from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from models.predicates import batch_waits_for_inputs
from models.statements import Statement

EDITS_AT_ONCE = 5_000
"""Edits that one step passes."""
LONG_EDITS_AT_ONCE = 100
"""The same where their images stand in the edits themselves, and have to be compared."""

MAY_GO_ON = """
    b.inputs_ready_to < coalesce((SELECT i.holds_from FROM inputs i WHERE i.batch_id = b.id AND i.state = 'waiting'
                                  ORDER BY i.holds_from LIMIT 1), 2147483647)"""
"""SQL: no input of the batch `b` waits any more for which it holds edits back."""
HELD_BATCHES = Statement(
    "SELECT b.id FROM batches b WHERE {waits} AND {may_go_on} ORDER BY b.priority DESC, b.created_at LIMIT %s",
    waits=batch_waits_for_inputs("b"),
    may_go_on=MAY_GO_ON,
    index="inputs_waiting",
)


def batches_to_go_on(connection: Connection, *, limit: int) -> list[UUID]:
    """Batches of which more edits may be submitted than are."""
    return list(connection.exec_driver_sql(HELD_BATCHES, (limit,)).scalars())


class _Held(NamedTuple):
    """From where on edits are held back, up to where no more, and what of the batch was refused."""

    begin: int
    end: int
    refused: bool
    long: bool
    """Among them are images that stand in the edits themselves."""


HELD_EDITS = Statement(
    """
    SELECT b.inputs_ready_to AS begin,
           coalesce((SELECT min(i.holds_from) FROM inputs i WHERE i.batch_id = b.id AND i.state = 'waiting'),
                    greatest(b.edit_count, b.inputs_ready_to + 1)) AS end,
           EXISTS (SELECT FROM inputs i WHERE i.batch_id = b.id AND i.state = 'refused') AS refused,
           EXISTS (SELECT FROM inputs i WHERE i.batch_id = b.id AND i.state = 'refused' AND i.host = '') AS long
    FROM batches b WHERE b.id = %s AND {waits}
    """,
    waits=batch_waits_for_inputs("b"),
    index="batches_pkey inputs_waiting inputs_refused",
)
FAIL_REFUSED = Statement(
    """
    WITH given AS MATERIALIZED (
        SELECT e.id, entry.number, entry.url FROM edits e
        CROSS JOIN LATERAL jsonb_array_elements_text(e.arguments -> 'image_urls')
            WITH ORDINALITY AS entry (url, number)
        WHERE e.batch_id = %(batch)s AND e.state = 'pending' AND e.due_at IS NOT NULL
          AND e.position >= %(begin)s AND e.position < %(end)s
    ), refused AS (
        SELECT DISTINCT ON (given.id) given.id, given.number, i.errors -> -1 ->> 'type' AS type,
               i.errors -> -1 ->> 'message' AS message
        FROM given JOIN inputs i ON i.batch_id = %(batch)s AND i.state = 'refused'
                                AND i.digest = sha256(convert_to(given.url, 'UTF8'))
        WHERE %(long)s OR left(given.url, 5) <> 'data:'
        ORDER BY given.id, given.number
    ), locked AS MATERIALIZED (
        SELECT e.id FROM edits e WHERE e.id IN (SELECT id FROM refused) ORDER BY e.id FOR UPDATE
    )
    UPDATE edits e
    SET state = 'failed', due_at = NULL, finished_at = now(),
        errors = e.errors || jsonb_build_array(jsonb_build_object(
            'at', now(), 'attempt', e.attempt, 'type', refused.type,
            'message', 'image ' || refused.number || ': ' || refused.message))
    FROM refused WHERE e.id = refused.id AND e.id IN (SELECT id FROM locked) AND e.state = 'pending'
    """,
    index="edits_open edits_pkey",
)
LOCK_HELD_BATCH = Statement("SELECT FROM batches WHERE id = %s FOR UPDATE", index="batches_pkey")
MOVE_ON = Statement(
    """
    UPDATE batches b
    SET inputs_ready_to = CASE WHEN waiting.first IS NULL AND %(end)s >= b.edit_count THEN NULL
                          ELSE least(%(end)s, waiting.first) END,
        paused_at = CASE WHEN sample.refused > 0 THEN coalesce(b.paused_at, now()) ELSE b.paused_at END,
        pause_reason = CASE WHEN sample.refused > 0
            THEN sample.refused || ' of ' || sample.inputs || ' sampled inputs were refused, as: ' || sample.message
            ELSE b.pause_reason END
    FROM (SELECT min(holds_from) AS first FROM inputs WHERE batch_id = %(batch)s AND state = 'waiting') waiting,
         (SELECT count(*) AS inputs, count(*) FILTER (WHERE state = 'refused') AS refused,
                 min(errors -> -1 ->> 'message') FILTER (WHERE state = 'refused') AS message
          FROM inputs WHERE %(sampled)s AND batch_id = %(batch)s AND sampled
            AND holds_from >= %(begin)s AND holds_from < %(end)s) sample
    WHERE b.id = %(batch)s AND b.inputs_ready_to = %(begin)s
    RETURNING b.inputs_ready_to
    """,
    index="batches_pkey inputs_waiting",
)
HAS_SAMPLE = Statement(
    "SELECT check_inputs = 'sample' FROM batches WHERE id = %s",
    index="batches_pkey",
)


def let_edits_go(connection: Connection, batch_id: UUID) -> bool:
    """One step: the next edits of a batch are held back no longer, and pending -> failed where an input of them was
    refused. True where the next step may find more.

    Where inputs were refused that were drawn as a sample, the batch is paused with the reason. Edits that are being
    appended hold the row of the batch: what they wait for is seen once it is ours, by a statement of its own.
    """
    row = connection.exec_driver_sql(HELD_EDITS, (batch_id,)).first()
    held = _Held(*row) if row else None
    if held is None or held.end <= held.begin:
        return False
    end = held.end
    if held.refused:
        end = min(end, held.begin + (LONG_EDITS_AT_ONCE if held.long else EDITS_AT_ONCE))
        step = {"batch": batch_id, "begin": held.begin, "end": end, "long": held.long}
        connection.exec_driver_sql(FAIL_REFUSED, step)
    sampled = connection.exec_driver_sql(HAS_SAMPLE, (batch_id,)).scalar_one()
    connection.exec_driver_sql(LOCK_HELD_BATCH, (batch_id,))
    values = {"batch": batch_id, "begin": held.begin, "end": end, "sampled": sampled}
    moved = connection.exec_driver_sql(MOVE_ON, values).first()
    return moved is not None and moved.inputs_ready_to is not None and end < held.end
