"""Shows batches until they are finished: a bar each on a terminal, a line each now and then elsewhere.

Beside the counts, how fast it goes and how long it may take; errors come as lines of their own, each type at once when
it first occurs and then how many more there are.
"""

import time
from collections.abc import Iterator

from cli.batches.batch_text import BROKEN
from cli.batches.poll_progress import Rows
from cli.batches.progress import Row, counts, done, duration
from cli.output import escape, plural, screen
from models.states import Criterion

LINE_EVERY = 5.0
"""Seconds between two lines where there is no terminal, and between two about one type of errors."""
NAME_SHOWN = 24
"""Characters of a batch's name beside others; the rest is cut."""


def watch_batches(updates: Iterator[Rows]) -> Rows:
    """Show the batches until all are finished; gives their last progress."""
    return _bars(updates) if screen.is_terminal else _lines(updates)


def describe(row: Row) -> str:
    """A batch's counts, its rate and the time left, or why it stands still; with markup."""
    return f"{counts(row)}{_outlook(row)}"


class ErrorLines:
    """What went wrong, each error said once."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], tuple[int, float]] = {}

    def take_new(self, rows: Rows) -> Iterator[str]:
        """A line for each type of errors of which there are more than were said; with markup."""
        now = time.monotonic()
        for row in rows:
            for error in row["errors"]:
                key, edits = (str(row["batch_id"]), error["type"]), int(error["edits"])
                said, at = self._said.get(key, (0, -LINE_EVERY))
                if edits > said and (now - at >= LINE_EVERY or row["finished_at"]):
                    self._said[key] = edits, now
                    more = plural(edits - said, "more edit" if said else "edit")
                    label = _label(row, rows)
                    yield f"{label}[red]{more}: {escape(error['type'])}[/]  {escape(error['example'] or '')}"


def _label(row: Row, rows: Rows) -> str:
    """Which batch it is, where there are several."""
    name = row["name"] or str(row["batch_id"])[:8]
    return f"{escape(name[:NAME_SHOWN])}  " if len(rows) > 1 else ""


def _lines(updates: Iterator[Rows]) -> Rows:
    errors, next_line, ended = ErrorLines(), 0.0, set[str]()
    for rows in updates:
        for line in errors.take_new(rows):
            screen.print(line, soft_wrap=True)
        due = time.monotonic() >= next_line
        for row in rows:
            text = describe(row)
            over = bool(row["finished_at"])
            if row["batch_id"] not in ended and (due or over):
                screen.print(f"{_label(row, rows)}{done(row)}/{row['edits']}  {text}", soft_wrap=True)
            if over:
                ended.add(row["batch_id"])
        if due:
            next_line = time.monotonic() + LINE_EVERY
    return rows


def _bars(updates: Iterator[Rows]) -> Rows:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # here: most commands draw no bar

    columns = (TextColumn("{task.fields[label]}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    errors = ErrorLines()
    with Progress(*columns, console=screen) as progress:
        tasks = {}
        for rows in updates:
            for line in errors.take_new(rows):
                progress.console.print(line, soft_wrap=True)
            for row in rows:
                if (key := row["batch_id"]) not in tasks:
                    tasks[key] = progress.add_task("", total=None, label=_label(row, rows).rstrip())
                shown = {"total": row["edits"], "completed": done(row), "description": describe(row)}
                progress.update(tasks[key], **shown)
    return rows


def _outlook(row: Row) -> str:
    if row["broken_criterion"]:
        stopped = f", [yellow]stopped: {BROKEN[Criterion(row['broken_criterion'])]}[/]"
        return f"{stopped}, finished" if row["finished_at"] else stopped
    if row["finished_at"]:
        return ", finished"
    if row["paused_at"]:
        return ", paused"
    if row["provider_paused"]:
        return f", [yellow]the provider's account is paused: {escape(row['provider_paused'])}[/]"
    if not row["time_left"]:
        return ""
    seconds = row["time_left"].total_seconds()
    return f"  {(row['edits'] - done(row)) / seconds:.1f}/s, {duration(seconds)} left"
