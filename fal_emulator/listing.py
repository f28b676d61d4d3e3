"""A page of requests: window, filters, order and cursor of the platform API's lists (provider-protocol 7.2)."""

import base64
import binascii
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from .authentication import BadQuery
from .job import Job
from .ledger import Ledger
from .options import DAY


@dataclass(frozen=True, slots=True)
class Order:
    """By what a list is sorted, once as SQL and once for the cursor. A plain column can use its index."""

    sql: str
    of: Callable[[Job], float]


BY_END = Order("ended_at", lambda job: job.ended_at or 0.0)
BY_LAST_NEWS = Order("coalesce(ended_at, submitted_at)", lambda job: job.ended_at or job.submitted_at)
BY_DURATION = Order("coalesce(ended_at - started_at, 0)", lambda job: duration(job) or 0.0)


def duration(job: Job) -> float | None:
    """Seconds from start to end; None for a request that never started or has not ended."""
    return None if job.ended_at is None or job.started_at is None else job.ended_at - job.started_at


@dataclass(slots=True)
class Listing:
    """What is asked for."""

    request: web.Request
    order: Order
    limit: int
    where: list[str] = field(default_factory=lambda: ["TRUE"])
    values: list[Any] = field(default_factory=list)

    @staticmethod
    def of(request: web.Request, order: Order, *, limit: int, most: int) -> "Listing":
        """A list of at most so many; the client may ask for less or, up to `most`, for more."""
        text = request.query.get("limit", str(limit))
        if not text.isdigit() or not 1 <= int(text) <= most:
            raise BadQuery(f"limit must lie between 1 and {most}")
        return Listing(request, order, int(text))

    def within(self, days: int) -> None:
        """The window `start` to `end`, by default so many days, and 90 for a single `request_id`."""
        wanted = self.request.query.get("request_id")
        start = instant(self.request, "start", time.time() - (90 if wanted else days) * DAY)
        self.add(f"{self.order.sql} BETWEEN ? AND ?", start, instant(self.request, "end", time.time() + DAY))
        if wanted:
            self.add("request_id = ?", wanted)

    def add(self, condition: str, *values: Any) -> None:
        """One more condition; its text is always a constant of ours."""
        self.where.append(condition)
        self.values += values

    def page(self, ledger: Ledger, show: Callable[[Job], dict[str, Any]], name: str) -> web.Response:
        """Newest (or longest) first, with a cursor for what follows."""
        return self.reply(*self.jobs(ledger), show, name)

    def jobs(self, ledger: Ledger) -> tuple[list[Job], bool]:
        """The requests of the page, and whether others follow."""
        column = self.order.sql
        if cursor := self.request.query.get("cursor"):
            self.add(f"({column}, seq) < (?, ?)", *_read_cursor(cursor))
        jobs = list(
            ledger.select(" AND ".join(self.where), tuple(self.values), f"{column} DESC, seq DESC", self.limit + 1)
        )
        return jobs[: self.limit], len(jobs) > self.limit

    def reply(self, jobs: list[Job], more: bool, show: Callable[[Job], dict[str, Any]], name: str) -> web.Response:
        """The page as the platform writes it."""
        following = _cursor(self.order.of(jobs[-1]), jobs[-1].seq) if more else None
        return web.json_response({name: [show(job) for job in jobs], "next_cursor": following, "has_more": more})


def instant(request: web.Request, name: str, default: float) -> float:
    """A time in the query, in seconds since 1970; without a zone it is UTC."""
    text = request.query.get(name)
    if text is None:
        return default
    try:
        found = datetime.fromisoformat(text.replace(" ", "+"))  # an unescaped + of the zone arrives as a space
    except ValueError as error:
        raise BadQuery(f"{name} must be an ISO 8601 time") from error
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def several(request: web.Request, name: str) -> list[str]:
    """A parameter that may be repeated and may hold commas."""
    return [each for text in request.query.getall(name, []) for each in text.split(",") if each]


def iso(at: float | None) -> str | None:
    """A time as the platform writes it."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat()


def _cursor(value: float, seq: int) -> str:
    """The last row of a page: its value in the sort order, and its number."""
    return base64.urlsafe_b64encode(json.dumps([value, seq]).encode()).decode()


def _read_cursor(text: str) -> tuple[float, int]:
    try:
        value, seq = json.loads(base64.urlsafe_b64decode(text))
        return float(value), int(seq)
    except (binascii.Error, ValueError, TypeError) as error:
        raise BadQuery("cursor is not one of ours") from error
