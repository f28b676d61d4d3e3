"""The whole system in lines of at most 80 columns, with markup."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from cli.batches.batch_text import batch_summary
from cli.batches.progress import done, duration
from cli.output import escape, plural
from cli.overview import Overview, Trouble
from worker.lanes import LANES

TICK_LATE = 15.0
"""Seconds after which a tick should have come: it comes every second."""
MINUTES = {
    "created": "created",
    "submitted": "submitted",
    "called_back": "callbacks",
    "polled": "polled",
    "stored": "stored",
    "failed": "failed",
    "cancelled": "cancelled",
}
"""Columns of `throughput`, and how they are called: all of them fit."""
SHOWN_MINUTES, SHOWN_BATCHES = 6, 10
STEPS = ("submitted", "replied", "accepted", "called_back", "polled", "stored", "whole")
"""In the order in which an edit passes through them; other steps follow."""


def overview_lines(overview: Overview | None, trouble: Trouble | None = None) -> Iterator[str]:
    """All there is to show; what is of no interest now is left out."""
    if trouble:
        yield f"[bold red]The database does not answer[/] for {duration(trouble.since)}: {escape(trouble.reason)}"
        yield "What it told last:" if overview else "It is asked again."
    if overview is None:
        return
    yield _headline(overview)
    if overview.account and overview.account["paused_at"]:
        account = overview.account
        since, again = _ago(account["paused_at"], overview.at), _ahead(account["retry_at"], overview.at)
        yield f"[bold yellow]account paused[/] since {since}: {escape(account['reason'])}; next try {again}"
    for section in (_lanes, _overdue, _minutes, _latency, _batches):
        lines = list(section(overview))
        if lines:
            yield ""
            yield from lines


def _headline(overview: Overview) -> str:
    edits = sum(int(row["edits"]) for row in overview.in_flight)
    oldest = [row["oldest_at"] for row in overview.in_flight if row["oldest_at"]]
    age = f", the oldest {duration((overview.at - min(oldest)).total_seconds())}" if oldest else ""
    return f"[bold]darkroom[/]  {overview.at.astimezone():%H:%M:%S}  {edits} in flight{age}  {_tick(overview)}"


def _tick(overview: Overview) -> str:
    ticks = [row["last_tick_at"] for row in overview.lanes if row["last_tick_at"]]
    if not ticks:
        return "[yellow]no tick was seen yet[/]"
    seconds = (overview.at - max(ticks)).total_seconds()
    if seconds > TICK_LATE:
        return f"[bold red]no tick for {duration(seconds)}: is the beat running?[/]"
    return f"tick {_ago(max(ticks), overview.at)}"


def _lanes(overview: Overview) -> Iterator[str]:
    yield f"[dim]{'lane':<10}{'due':>8}{'waits':>13}{'last turn':>17}{'last work':>17}[/]"
    order = {lane: place for place, lane in enumerate(LANES)}
    for row in sorted(overview.lanes, key=lambda row: order.get(row["lane"], len(order))):
        waits = duration(row["waits"].total_seconds()) if row["waits"] is not None else ""
        turn, work = _ago(row["last_turn_at"], overview.at), _ago(row["last_work_at"], overview.at)
        yield f"{row['lane']:<10}{row['due']:>8}{waits:>13}{turn:>17}{work:>17}".rstrip()
        if row["reason"]:
            since, again = _ago(row["paused_at"], overview.at), _ahead(row["retry_at"], overview.at)
            yield f"  [bold yellow]paused[/] since {since}: {escape(row['reason'])}; next try {again}"


def _overdue(overview: Overview) -> Iterator[str]:
    for row in overview.overdue:
        late = row["late"].total_seconds() if isinstance(row["late"], timedelta) else row["late"]
        what = plural(int(row["rows"]), str(row["what"]))
        yield f"[bold red]overdue[/]  {what} {escape(row['state'])}, late by up to {duration(late)}"


def _minutes(overview: Overview) -> Iterator[str]:
    minutes = overview.minutes[-SHOWN_MINUTES:]
    if not minutes:
        return
    names = [name for name in MINUTES if any(row[name] for row in minutes)]
    heads = "".join(f"{MINUTES[name]:>10}" for name in names)
    yield f"[dim]{'minute':<9}{heads}[/]"
    for row in reversed(minutes):
        numbers = "".join(f"{int(row[name]):>10}" for name in names)
        yield f"{row['minute'].astimezone():%H:%M}    {numbers}"


def _latency(overview: Overview) -> Iterator[str]:
    if not overview.latency:
        return
    order = {step: place for place, step in enumerate(STEPS)}
    newest = {row["step"]: row for row in reversed(overview.latency)}  # of this hour, if there was anything in it yet
    yield f"[dim]{'seconds':<14}{'events':>9}{'p50':>11}{'p95':>11}{'p99':>11}  since[/]"
    for row in sorted(newest.values(), key=lambda row: order.get(row["step"], len(order))):
        shares = "".join(f"{float(row[name]):>11.2f}" for name in ("p50", "p95", "p99"))
        step = str(row["step"]).replace("_", " ")
        yield f"{step:<14}{int(row['events']):>9}{shares}  {row['hour'].astimezone():%H:%M}"


def _batches(overview: Overview) -> Iterator[str]:
    if not overview.running:
        yield "No batch is open."
        return
    yield f"[dim]{'batch':<10}{'done':>19}{'failed':>9}  {'time left':<14}name[/]"
    for row in overview.running[:SHOWN_BATCHES]:
        failed = f"[red]{int(row['failed']):>9}[/]" if row["failed"] else f"{0:>9}"
        left = duration(row["time_left"].total_seconds()) if row["time_left"] else batch_summary(row)
        share = f"{done(row)}/{row['edits']}"
        yield f"{str(row['batch_id'])[:8]:<10}{share:>19}{failed}  {left:<14}{escape(row['name'] or '')}"
    if len(overview.running) > SHOWN_BATCHES:
        yield f"[dim]the first {SHOWN_BATCHES}; all: darkroom batches[/]"


def _ago(moment: datetime | None, now: datetime) -> str:
    return f"{duration((now - moment).total_seconds())} ago" if moment else ""


def _ahead(moment: datetime | None, now: datetime) -> str:
    if moment is None or moment <= now:
        return "now"
    return f"in {duration((moment - now).total_seconds())}"
