"""One request as it happens: place in the line, log lines, the end. Only looks; who stops looking stops nothing."""

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from core.errors import TryLater
from provider.queue_api import STREAM_SECONDS, QueueAPI
from provider.status_stream import Status

POLL_EVERY, POLL_SLOWEST = 1.0, 5.0
"""Seconds between two questions where the stream does not work; the pause grows while nothing changes."""
LINE_MAX = 2000
"""Characters of a log line that are shown."""


class LogLine(NamedTuple):
    """One line that the model printed, fit for a terminal."""

    message: str
    level: str
    timestamp: str


class Update(NamedTuple):
    """What is new about a request; `logs` are the lines that came since the last update."""

    request_id: str
    status: str
    """IN_QUEUE, IN_PROGRESS, or COMPLETED, which says nothing of success: `QueueAPI.result` does."""
    queue_position: int | None
    logs: tuple[LogLine, ...]
    failed: bool
    inference_time: float | None


def follow(queue: QueueAPI, endpoint: str, request_id: str, *, seconds: float = STREAM_SECONDS) -> Iterator[Update]:
    """What happens to a request, the last update COMPLETED; by the status stream, or by polling where that breaks.

    Raises:
        Gone: the queue does not know the request (any more).
        AccountPaused: the key was refused.
        TryLater: it did not end within `seconds`, or nothing usable was answered for so long.
    """
    lines, before = NewLines(), None
    for status in _statuses(queue, endpoint, request_id, seconds):
        new = lines.take_new(status.logs)
        shown = (status.status, status.queue_position)
        if new or shown != before:
            yield Update(request_id, *shown, new, status.failed, status.inference_time)
        before = shown


def _statuses(queue: QueueAPI, endpoint: str, request_id: str, seconds: float) -> Iterator[Status]:
    deadline = time.monotonic() + seconds
    try:
        yield from queue.stream(endpoint, request_id, logs=True, seconds=seconds)
        return
    except TryLater:
        pause = POLL_EVERY
    while True:
        try:
            status = queue.status(endpoint, request_id, logs=True)
            yield status
            if status.completed:
                return
        except TryLater:
            if time.monotonic() > deadline:
                raise
        if time.monotonic() > deadline:
            raise TryLater(f"it did not end within {seconds:g} s")
        time.sleep(pause)
        pause = min(pause * 1.2, POLL_SLOWEST)


class NewLines:
    """Tells which log lines were not there before.

    Each status carries the list so far (provider-protocol 2.2), which nobody promises: lists that start otherwise are
    compared line by line.
    """

    def __init__(self) -> None:
        self._seen: list[LogLine] = []

    def take_new(self, logs: Sequence[object]) -> tuple[LogLine, ...]:
        """The lines that were not returned before. A list that begins as the last one did has grown."""
        lines = [_line(entry) for entry in logs if isinstance(entry, dict)]
        if self._seen[:1] == lines[:1]:
            new = lines[len(self._seen) :]
            self._seen = max(self._seen, lines, key=len)
        else:
            known = set(self._seen)
            new = [line for line in lines if line not in known]
            self._seen = [*self._seen, *new][-10_000:] if lines else self._seen
        return tuple(new)


def _line(entry: dict[str, Any]) -> LogLine:
    def text(name: str) -> str:
        """A stranger's text; what a terminal would obey is shown as a blank."""
        given = str(entry.get(name) or "")[:LINE_MAX]
        return "".join(letter if letter.isprintable() else " " for letter in given).rstrip()

    return LogLine(text("message"), text("level"), text("timestamp"))
