"""Looks at batches again and again until all are finished.

The database may go away for a while, as when its server restarts; only a long silence ends the watching.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from math import inf

from sqlalchemy import Engine

from cli.batches.progress import Row, all_stored, progress_of_all
from cli.output import print_json
from core.errors import UserError
from models.database import retry_while_unavailable

LOOK_EVERY = 0.5
"""Seconds between two updates, or more where looking itself takes long."""
SHARE = 10
"""Looking may take a tenth of the time, so that many watchers of a big batch do not slow it down."""

Rows = list[Row]
"""The progress of each watched batch, in the order in which they were named; each with its `errors` by type."""


def poll_progress(engine: Engine, batch_ids: Sequence[str], still_for: float = inf) -> Iterator[Rows]:
    """The batches' progress again and again; the last one is that of finished batches.

    Raises:
        UserError: nothing has changed for `still_for` seconds.
    """
    before, changed = None, time.monotonic()
    while True:
        started = time.monotonic()
        rows = retry_while_unavailable(lambda: progress_of_all(engine, batch_ids))
        yield rows
        if all(row["finished_at"] for row in rows):
            return
        if (now := [_without_time(row) for row in rows]) != before:
            before, changed = now, started
        elif started - changed > still_for:
            raise UserError(f"Nothing has moved for {still_for:.0f} s; see the folder logs in DARKROOM_HOME.")
        time.sleep(max(LOOK_EVERY, SHARE * (time.monotonic() - started)))


def wait_for_batches(updates: Iterator[Rows]) -> Rows:
    """Say nothing until the batches are finished; gives their last progress."""
    return deque(updates, maxlen=1).pop()


def print_batches(updates: Iterator[Rows]) -> Rows:
    """Print each batch as JSON, whenever it changes, until all are finished; gives their last progress."""
    before: dict[str, Row] = {}
    for rows in updates:
        for row in rows:
            if before.get(str(row["batch_id"])) != _without_time(row):
                print_json(row)
        before = {str(row["batch_id"]): _without_time(row) for row in rows}
    return rows


def exit_code(rows: Rows) -> int:
    """0 only if every edit of every batch is stored."""
    return 0 if all(map(all_stored, rows)) else 1


def _without_time(row: Row) -> Row:
    """What changes only when something happens."""
    return {name: value for name, value in row.items() if name != "time_left"}
