"""Watches one batch until it is finished: a bar on a terminal, a line now and then elsewhere, or JSON.

The database may go away for a while, as when its server restarts; only a long silence ends the watching.
"""

import time
from collections import deque
from collections.abc import Iterator
from math import inf

from sqlalchemy import Engine

from cli.batches.batch_text import BROKEN
from cli.batches.progress import Row, all_stored, counts, done, duration, progress_of
from cli.output import escape, print_json, screen
from core.errors import UserError
from models.database import retry_while_unavailable
from models.states import Criterion

LOOK_EVERY = 0.5
"""Seconds between two looks, or more where looking itself takes long."""
SHARE = 10
"""Looking may take a tenth of the time, so that many watchers of a big batch do not slow it down."""
LINE_EVERY = 5.0
"""Seconds between two lines where there is no terminal."""
RATE_OVER = 30.0
"""Seconds over which the rate is taken."""


class Rate:
    """Final edits per second, lately."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, final: int) -> float | None:
        """Take in a new count; None while nothing can be said."""
        now = time.monotonic()
        self._seen.append((now, final))
        while now - self._seen[0][0] > RATE_OVER:
            self._seen.popleft()
        since, before = self._seen[0]
        return (final - before) / (now - since) if final > before else None


def poll_progress(engine: Engine, batch_id: str, still_for: float = inf) -> Iterator[Row]:
    """The batch's progress again and again; the last one is that of the finished batch.

    Raises:
        UserError: nothing has changed for `still_for` seconds.
    """
    before, changed = None, time.monotonic()
    while True:
        started = time.monotonic()
        row = retry_while_unavailable(lambda: progress_of(engine, batch_id))
        yield row
        if row["finished_at"]:
            return
        if row != before:
            before, changed = row, started
        elif started - changed > still_for:
            raise UserError(f"Nothing has moved for {still_for:.0f} s; see the folder logs in DARKROOM_HOME.")
        time.sleep(max(LOOK_EVERY, SHARE * (time.monotonic() - started)))


def watch_batch(batch: Iterator[Row]) -> Row:
    """Show the batch until it is finished; gives its last progress."""
    return _bar(batch) if screen.is_terminal else _lines(batch)


def wait_for_batch(batch: Iterator[Row]) -> Row:
    """Say nothing until the batch is finished; gives its last progress."""
    return deque(batch, maxlen=1).pop()


def exit_code(row: Row) -> int:
    """0 only if every edit is stored."""
    return 0 if all_stored(row) else 1


def print_batch(batch: Iterator[Row]) -> Row:
    """Print the batch as JSON, whenever it changes, until it is finished; gives its last progress."""
    before = None
    for row in batch:
        if row != before:
            print_json(row)
        before = row
    return row


def _lines(batch: Iterator[Row]) -> Row:
    rate, next_line = Rate(), 0.0
    for row in batch:
        speed = rate.note(done(row))
        if row["finished_at"] or time.monotonic() >= next_line:
            screen.print(f"{done(row)}/{row['edits']}  {counts(row)}{_outlook(row, speed)}", soft_wrap=True)
            next_line = time.monotonic() + LINE_EVERY
    return row


def _bar(batch: Iterator[Row]) -> Row:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # here: most commands draw no bar

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    rate = Rate()
    with Progress(*columns, console=screen) as progress:
        task = progress.add_task("", total=None)
        for row in batch:
            outlook = _outlook(row, rate.note(done(row)))
            progress.update(task, total=row["edits"], completed=done(row), description=f"{counts(row)}{outlook}")
    return row


def _outlook(row: Row, speed: float | None) -> str:
    if row["broken_criterion"]:
        stopped = f", [yellow]stopped: {BROKEN[Criterion(row['broken_criterion'])]}[/]"
        return f"{stopped}, finished" if row["finished_at"] else stopped
    if row["finished_at"]:
        return ", finished"
    if row["paused_at"]:
        return ", paused"
    if row["provider_paused"]:
        return f", [yellow]the provider's account is paused: {escape(row['provider_paused'])}[/]"
    if speed is None:
        return ""
    return f"  {speed:.1f}/s, {duration((row['edits'] - done(row)) / speed)} left"
