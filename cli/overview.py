"""The whole system at one moment, read in one transaction, and again and again."""

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Engine

from cli.batches.progress import Row
from models.database_errors import DATABASE_ERRORS, is_away, reason
from models.queries import overview as queries
from models.queries.health import CLOCK

SHARE = 10
"""Looking may take a tenth of the time."""


class Overview(NamedTuple):
    """Rows of the views, as they were at one moment; what each is: `models/queries/overview.py`. `at`: by its clock."""

    at: datetime
    lanes: list[Row]
    pauses: list[Row]
    account: Row | None
    in_flight: list[Row]
    overdue: list[Row]
    minutes: list[Row]
    latency: list[Row]
    running: list[Row]

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
        at = connection.exec_driver_sql(CLOCK).scalar_one()
        found = queries.read_overview(connection)
    return Overview(
        at,
        lanes=_plain(found.lanes),
        pauses=_plain(found.pauses),
        account=found.account._asdict() if found.account else None,
        in_flight=_plain(found.in_flight),
        overdue=_plain(found.overdue),
        minutes=_plain(found.minutes),
        latency=_plain(found.latency),
        running=_plain(found.running),
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


def _plain(rows: queries.Rows) -> list[Row]:
    return [row._asdict() for row in rows]
