"""The whole system at one look, as a live screen shows it: from the views, whose rows these are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row

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
RECENT_MINUTES = Statement("SELECT * FROM throughput WHERE minute > now() - %s * interval '1 minute' ORDER BY minute")
LATENCY_LATELY = Statement("SELECT * FROM latency WHERE hour > now() - %s * interval '1 hour' ORDER BY hour DESC, step")
RUNNING_BATCHES = Statement("""
    SELECT * FROM batch_progress WHERE finished_at IS NULL ORDER BY priority DESC, created_at, batch_id LIMIT %s
""")


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
