"""What the page, the command line and the metrics show: the whole system, one batch, one edit's timeline.

Everything is read from the views, so that whoever looks sees the same numbers. The rows are as the views have them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row

from models.queries.batches import ERRORS_BY_TYPE, PROGRESS_OF_BATCH, UNANSWERED_BY_REASON
from models.queries.health import OVERDUE_BY_STATE
from models.statements import Statement

Rows = Sequence[Row[*tuple[Any, ...]]]

MOST = 50
"""Rows of one kind that are shown, at most: what is more is for a query of its own."""

LANES = Statement("SELECT * FROM lane_status")
PAUSES = Statement("SELECT * FROM pauses ORDER BY paused_at LIMIT %s")
ACCOUNT = Statement("SELECT * FROM account_status")
IN_FLIGHT = Statement("""
    SELECT endpoint, state, sum(edits) AS edits, min(oldest_at) AS oldest_at, max(oldest) AS oldest
    FROM in_flight GROUP BY endpoint, state ORDER BY endpoint, state
""")
BATCHES_IN_FLIGHT = Statement("SELECT * FROM in_flight WHERE batch_id = %s ORDER BY state")
RECENT_MINUTES = Statement("SELECT * FROM throughput WHERE minute > now() - %s * interval '1 minute' ORDER BY minute")
LATENCY_LATELY = Statement("SELECT * FROM latency WHERE hour > now() - %s * interval '1 hour' ORDER BY hour DESC, step")
RUNNING_BATCHES = Statement("""
    SELECT * FROM batch_progress WHERE finished_at IS NULL ORDER BY priority DESC, created_at, batch_id LIMIT %s
""")
LATENCY_BUCKETS = Statement("SELECT * FROM latency_histogram ORDER BY step, le")
EVENT_TOTALS = Statement("SELECT * FROM event_totals")
CALLBACKS_BY_EFFECT = Statement("""
    SELECT kept, effect, sum(deliveries) AS deliveries FROM callback_ledger GROUP BY kept, effect
    ORDER BY kept DESC, deliveries DESC, effect
""")
COSTS_OF_BATCH = Statement("SELECT max_cost, reserved, paid, wasted, uncertain FROM batch_costs WHERE batch_id = %s")
TIMELINE = Statement("SELECT * FROM edit_timeline WHERE edit_id = %s ORDER BY number LIMIT %s")
EDITS_OF_NAME = Statement(
    """
    SELECT id FROM edits WHERE batch_id = %(batch)s AND custom_id = %(name)s
    UNION ALL
    SELECT id FROM edits WHERE batch_id = %(batch)s AND custom_id IS NULL
      AND position = CASE WHEN %(name)s ~ '^[0-9]{1,9}$' THEN %(name)s::integer END
    """,
    index="edits_custom_id edits_batch_id_position_key",
)


@dataclass(frozen=True, slots=True)
class Overview:
    """The whole system, as it stands."""

    lanes: Rows
    pauses: Rows
    account: Row[*tuple[Any, ...]] | None
    """None: the provider's account was never heard of."""
    in_flight: Rows
    """By endpoint and state."""
    overdue: Rows
    """By what it is and its state, with their number and the seconds of the latest."""
    minutes: Rows
    """The last quarter of an hour."""
    latency: Rows
    """This hour and the one before."""
    running: Rows
    """Batches that are not finished, the more urgent first."""


@dataclass(frozen=True, slots=True)
class BatchDetail:
    """One batch, and all that is known about how it goes."""

    progress: Row[*tuple[Any, ...]]
    errors: Rows
    """By type, the most frequent first."""
    unanswered: Rows
    in_flight: Rows
    costs: Row[*tuple[Any, ...]]


def read_overview(connection: Connection) -> Overview:
    """The whole system; some milliseconds, whatever the number of edits and of finished batches."""

    def ask(statement: Statement, *values: object) -> Rows:
        return connection.exec_driver_sql(statement, values or None).all()

    return Overview(
        lanes=ask(LANES),
        pauses=ask(PAUSES, MOST),
        account=connection.exec_driver_sql(ACCOUNT).first(),
        in_flight=ask(IN_FLIGHT),
        overdue=ask(OVERDUE_BY_STATE),
        minutes=ask(RECENT_MINUTES, 15),
        latency=ask(LATENCY_LATELY, 2),
        running=ask(RUNNING_BATCHES, MOST),
    )


def read_batch(connection: Connection, batch_id: UUID) -> BatchDetail | None:
    """One batch; None where there is none of that id."""
    progress = connection.exec_driver_sql(PROGRESS_OF_BATCH, (batch_id,)).first()
    if progress is None:
        return None
    return BatchDetail(
        progress=progress,
        errors=connection.exec_driver_sql(ERRORS_BY_TYPE, (batch_id, MOST)).all(),
        unanswered=connection.exec_driver_sql(UNANSWERED_BY_REASON, (batch_id, MOST)).all(),
        in_flight=connection.exec_driver_sql(BATCHES_IN_FLIGHT, (batch_id,)).all(),
        costs=connection.exec_driver_sql(COSTS_OF_BATCH, (batch_id,)).one(),
    )


def find_edit(connection: Connection, batch_id: UUID, name: str) -> int | None:
    """The id of an edit by its `custom_id`, or by its position where it has none; None where there is none."""
    found = connection.exec_driver_sql(EDITS_OF_NAME, {"batch": batch_id, "name": name}).scalars().all()
    return found[0] if found else None


def read_timeline(connection: Connection, edit_id: int, *, most: int = 1000) -> Rows:
    """Everything that happened to one edit, in order; nothing where there is no such edit."""
    return connection.exec_driver_sql(TIMELINE, (edit_id, most)).all()
