"""What the queue says about a request, one status at a time or as a stream of events (provider-protocol 2.2, 2.3)."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from core.errors import TryLater

SECONDS_MAX = 1e6
"""No run takes so long; the provider ends one after an hour (provider-protocol 5.5)."""
EVENT_MAX_BYTES = 1 * 1024 * 1024
"""Of one event: a status with every log line so far."""


@dataclass(frozen=True, slots=True)
class Status:
    """What the queue says about a request; failed and cancelled requests are COMPLETED too (provider-protocol 2.2)."""

    status: str
    queue_position: int | None
    inference_time: float | None
    failed: bool = False
    logs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def completed(self) -> bool:
        """Whether it has ended, well or not."""
        return self.status == "COMPLETED"


def read_status(reply: bytes) -> Status:
    """One status object.

    Raises:
        TryLater: it is none.
    """
    try:
        data = json.loads(reply)
        metrics = data.get("metrics") or {}
        return Status(
            status=str(data["status"]),
            queue_position=data.get("queue_position"),
            inference_time=_seconds(metrics.get("inference_time")),
            failed=bool(data.get("error") or data.get("error_type")),
            logs=list(data.get("logs") or ()),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TryLater("an unreadable status") from error


def _seconds(given: Any) -> float | None:
    """A duration, or None for what is none."""
    if isinstance(given, bool) or not isinstance(given, int | float):
        return None
    return float(given) if 0 <= given < SECONDS_MAX else None


def read_events(lines: Iterable[bytes]) -> Iterator[Status]:
    """The statuses in a stream of server-sent events; comments, which keep the connection alive, say nothing.

    Raises:
        TryLater: an event is no status, or longer than `EVENT_MAX_BYTES`.
    """
    data: list[bytes] = []
    size = 0
    for line in lines:
        if line.startswith(b"data:"):
            data.append(line.removeprefix(b"data:").removeprefix(b" "))
            size += len(line)
            if size > EVENT_MAX_BYTES:
                raise TryLater("an event of the stream is too long")
        elif not line and data:
            yield read_status(b"\n".join(data))
            data, size = [], 0
