"""The whole system at one moment: what the views tell, read in one transaction, and again and again."""

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine

from cli.batches.progress import Row
from models.database_errors import DATABASE_ERRORS, is_away, reason
from models.queries.health import OVERDUE_BY_STATE
from models.queries.overview import (
    ACCOUNT_NOW,
    IN_FLIGHT_NOW,
    LANES_NOW,
    LATENCY_NOW,
    MINUTES_NOW,
    NOW,
    OPEN_BATCHES,
)
from models.statements import Statement

SHARE = 10
"""Looking may take a tenth of the time."""
SHOWN_BATCHES = 10


class Overview(NamedTuple):
    """Rows of the views, as they were at one moment of the database's clock."""

    at: datetime
    lanes: list[Row]
    in_flight: list[Row]
    """By state."""
    account: Row | None
    throughput: list[Row]
    """The last minutes, the newest first; a minute in which nothing happened has none."""
    latency: list[Row]
    """By step, of this hour, or of the last where nothing was done in this one yet."""
    overdue: list[Row]
    """By kind and state."""
    batches: list[Row]
    """The first that are not finished, in the order in which they are submitted."""

    def as_json(self) -> dict[str, Any]:
        """The same by name."""
        return self._asdict()


class Trouble(NamedTuple):
    """The database is away."""

    since: float
    """Seconds."""
    reason: str


def read_overview(engine: Engine) -> Overview:
    """Everything at this moment: what is read last agrees with what was read first."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        account = _rows(connection, ACCOUNT_NOW)
        return Overview(
            connection.exec_driver_sql(NOW).scalar_one(),
            _rows(connection, LANES_NOW),
            _rows(connection, IN_FLIGHT_NOW),
            account[0] if account else None,
            _rows(connection, MINUTES_NOW),
            _rows(connection, LATENCY_NOW),
            _rows(connection, OVERDUE_BY_STATE),
            _rows(connection, OPEN_BATCHES, SHOWN_BATCHES),
        )


def poll_overview(engine: Engine, every: float) -> Iterator[tuple[Overview | None, Trouble | None]]:
    """Everything, again and again without end; while the database is away what it told last, and why."""
    last: Overview | None = None
    away_since: float | None = None
    while True:
        began = time.monotonic()
        try:
            last = read_overview(engine)
        except DATABASE_ERRORS as error:
            if not is_away(error):
                raise
            away_since = away_since or began
            yield last, Trouble(time.monotonic() - away_since, reason(error))
        else:
            away_since = None
            yield last, None
        time.sleep(max(every, SHARE * (time.monotonic() - began)) if away_since is None else every)


def _rows(connection: Connection, statement: Statement, *values: object) -> list[Row]:
    return [dict(row) for row in connection.exec_driver_sql(statement, values or None).mappings()]
