"""A page of finished requests: window, filters and cursor of the platform API's lists (fal-protocol 7.2)."""

import base64
import binascii
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from .job import Job
from .ledger import Ledger
from .options import DAY

DURATION = "coalesce(ended_at - started_at, 0)"


class BadQuery(ValueError):
    """A query parameter that cannot be read."""


@dataclass(slots=True)
class Listing:
    """What is asked for. `moment` is the SQL for a request's place in time; the plain column can use its index."""

    request: web.Request
    moment: str
    limit: int
    where: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    by_duration: bool = False

    @staticmethod
    def of(request: web.Request, *, in_flight: bool, limit: int, most: int, days: int) -> "Listing":
        """The window, the limit and the filters that all lists share."""
        found = Listing(request, "coalesce(ended_at, submitted_at)" if in_flight else "ended_at", limit)
        found.limit = _limit(request.query.get("limit", str(limit)), most)
        wanted = request.query.get("request_id")
        start = _instant(request, "start", time.time() - (90 if wanted else days) * DAY)
        end = _instant(request, "end", time.time() + DAY)
        found.add(f"{found.moment} BETWEEN ? AND ?", start, end)
        if wanted:
            found.add("request_id = ?", wanted)
        return found

    def add(self, condition: str, *values: Any) -> None:
        """One more condition; its text is always a constant of ours."""
        self.where.append(condition)
        self.values += values

    def page(self, ledger: Ledger, show: Callable[[Job], dict[str, Any]], name: str) -> web.Response:
        """Newest (or longest) first, with a cursor for what follows."""
        column = DURATION if self.by_duration else self.moment
        if cursor := self.request.query.get("cursor"):
            self.add(f"({column}, seq) < (?, ?)", *_read_cursor(cursor))
        order = f"{column} DESC, seq DESC"
        jobs = list(ledger.select(" AND ".join(self.where), tuple(self.values), order, self.limit + 1))
        more, jobs = len(jobs) > self.limit, jobs[: self.limit]
        following = self._cursor(jobs[-1]) if more else None
        return web.json_response({name: [show(job) for job in jobs], "next_cursor": following, "has_more": more})

    def _cursor(self, job: Job) -> str:
        """The last row of this page: its value in the sort order, and its number."""
        value = job.submitted_at if job.ended_at is None else job.ended_at
        if self.by_duration:
            value = 0.0 if job.ended_at is None or job.started_at is None else job.ended_at - job.started_at
        return base64.urlsafe_b64encode(json.dumps([value, job.seq]).encode()).decode()


def _read_cursor(text: str) -> tuple[float, int]:
    try:
        value, seq = json.loads(base64.urlsafe_b64decode(text))
        return float(value), int(seq)
    except (binascii.Error, ValueError, TypeError) as error:
        raise BadQuery("cursor is not one of ours") from error


def _limit(text: str, most: int) -> int:
    if not text.isdigit() or not 1 <= int(text) <= most:
        raise BadQuery(f"limit must lie between 1 and {most}")
    return int(text)


def _instant(request: web.Request, name: str, default: float) -> float:
    text = request.query.get(name)
    if text is None:
        return default
    try:
        found = datetime.fromisoformat(text.replace(" ", "+"))  # an unescaped + of the zone arrives as a space
    except ValueError as error:
        raise BadQuery(f"{name} must be an ISO 8601 time") from error
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
