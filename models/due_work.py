"""Is there work for a lane, and what has waited for it the longest? Reads only; `claims.py` takes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from models.predicates import batch_submits, batch_to_be_audited, batch_waits_for_inputs, edit_has_inputs
from models.statements import Statement, fill
from models.transitions import finishable_batches
from models.transitions.held_edits import MAY_GO_ON

EDITS_DUE = Statement(
    """
    SELECT EXISTS (SELECT FROM batches b
                   WHERE {batch_submits}
                     AND NOT EXISTS (SELECT FROM lane_pauses p
                                     WHERE p.lane = 'submit' AND p.subject = b.endpoint AND p.retry_at > now())
                     AND EXISTS (SELECT FROM edits e
                                 WHERE e.batch_id = b.id AND e.state = 'pending' AND e.due_at <= now()
                                       AND {has_inputs}))
           AND NOT EXISTS (SELECT FROM provider_status WHERE retry_at > now())
    """,
    index="edits_open",
    batch_submits=batch_submits("b"),
    has_inputs=edit_has_inputs("e", "b"),
)
SUBMISSIONS_DUE = Statement("SELECT EXISTS (SELECT FROM submissions WHERE due_at <= now())", index="submissions_due")
IMAGES_DUE = Statement(
    """
    SELECT EXISTS (SELECT FROM images WHERE due_at <= now())
           AND NOT EXISTS (SELECT FROM lane_pauses
                           WHERE lane = 'download' AND subject = 'storage' AND retry_at > now())
    """,
    index="images_due",
)
INPUTS_DUE = Statement(
    """
    SELECT EXISTS (SELECT FROM batches b
                   WHERE {waits}
                     AND (EXISTS (SELECT FROM inputs i
                                  WHERE i.batch_id = b.id AND i.state = 'waiting' AND i.due_at <= now()
                                    AND (i.host IS NOT NULL
                                         OR NOT EXISTS (SELECT FROM lane_pauses
                                                        WHERE lane = 'prepare' AND retry_at > now())))
                          OR {may_go_on}))
    """,
    waits=batch_waits_for_inputs("b"),
    may_go_on=MAY_GO_ON,
    index="inputs_waiting",
)
BATCHES_UNFINISHED = Statement("SELECT EXISTS (SELECT FROM batches WHERE finished_at IS NULL)")
NOTIFICATIONS_DUE = Statement(
    "SELECT EXISTS (SELECT FROM notifications WHERE due_at <= now())", index="notifications_due"
)
RETENTION_DUE = Statement(
    """
    SELECT EXISTS (SELECT FROM retention WHERE due_at <= now())
           OR (SELECT finished_at FROM batches WHERE {unaudited} ORDER BY finished_at LIMIT 1) IS NOT NULL
    """,
    unaudited=batch_to_be_audited("batches"),
    index="batches_unaudited",
)
IS_DUE = {
    "prepare": INPUTS_DUE,
    "submit": EDITS_DUE,
    "poll": SUBMISSIONS_DUE,
    "download": IMAGES_DUE,
    "settle": BATCHES_UNFINISHED,
    "notify": NOTIFICATIONS_DUE,
    "prune": RETENTION_DUE,
}
"""Lane -> whether it has due work: beat starts the lane while it holds. A partial index should answer it."""
_ALL_OF_THEM = "SELECT {values}"


def which_hold(connection: Connection, conditions: Mapping[str, Statement]) -> dict[str, bool]:
    """By name: whether each of these conditions holds now; one cheap read, where partial indexes answer."""
    values = ", ".join(f"({condition})" for condition in conditions.values())
    row = connection.exec_driver_sql(fill(_ALL_OF_THEM, values=values)).one()
    return dict(zip(conditions, row, strict=True))


class FirstDue(NamedTuple):
    """What a lane would take next, and for how many seconds it has been due."""

    id: str
    due: str
    seconds: float


_FIRST_DUE = "SELECT id::text, due_at::text, extract(epoch FROM now() - due_at)::float8 FROM {table} WHERE id = %s"
FIRST_DUE = {
    table: Statement(_FIRST_DUE, table=table, index=f"{table}_pkey")
    for table in ("edits", "submissions", "images", "notifications", "inputs")
}


def first_due(connection: Connection, table: str, ids: Sequence[object]) -> FirstDue | None:
    """The first of these rows of a table of ours; None where there are none."""
    if not ids:
        return None
    row = connection.exec_driver_sql(FIRST_DUE[table], (ids[0],)).first()
    return FirstDue(*row) if row else None


LONGEST_DUE_NOTIFICATION = Statement(
    "SELECT id FROM notifications WHERE due_at <= now() ORDER BY due_at LIMIT 1", index="notifications_due"
)


def first_due_notification(connection: Connection) -> FirstDue | None:
    """The notification that has been due the longest."""
    ids = connection.exec_driver_sql(LONGEST_DUE_NOTIFICATION).scalars().all()
    return first_due(connection, "notifications", ids)


LAST_END_OF_BATCH = Statement(
    """
    SELECT batch_id::text, max(finished_at)::text, extract(epoch FROM now() - max(finished_at))::float8
    FROM edits WHERE batch_id = %s GROUP BY batch_id
    """,
    index="edits_batch_id_position_key",
)


def first_finishable_batch(connection: Connection) -> FirstDue | None:
    """The first batch that can be finished; due since its last edit was."""
    batches = finishable_batches(connection)
    if not batches:
        return None
    row = connection.exec_driver_sql(LAST_END_OF_BATCH, (batches[0].batch_id,)).first()
    return FirstDue(*row) if row else None


FIRST_KEPT = Statement("""
    SELECT kind, due_at::text, extract(epoch FROM now() - due_at)::float8 FROM retention
    WHERE due_at <= now() ORDER BY due_at, kind LIMIT 1
""")


def first_due_retention(connection: Connection) -> FirstDue | None:
    """The kind of thing that has been due to be pruned the longest."""
    row = connection.exec_driver_sql(FIRST_KEPT).first()
    return FirstDue(*row) if row else None
