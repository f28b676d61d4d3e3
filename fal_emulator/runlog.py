"""The log lines of a run, as a model would print them; they follow from the times, so nothing is stored."""

import json
import time
from datetime import UTC, datetime
from typing import Any

from . import BANNER
from .job import Job

STEPS = ("reading the input images", "preparing the prompt", "first pass", "second pass", "finishing")


def lines(job: Job, latency: float) -> list[dict[str, Any]]:
    """The list so far, never a delta (provider-protocol 2.2)."""
    if job.started_at is None:
        return []
    begun = job.started_at
    until = time.time() if job.ended_at is None else job.ended_at
    whole = (until - begun) if job.ended_at is not None else max(latency, 0.001)
    found = [_line(begun, "INFO", BANNER)]
    for number, step in enumerate(STEPS):
        at = begun + whole * number / len(STEPS)
        if at <= until:
            found.append(_line(at, "INFO", f"{100 * number // len(STEPS):3d}% {step}"))
    if job.ended_at is not None:
        found.append(_last(job, job.ended_at))
    return found


def _last(job: Job, at: float) -> dict[str, Any]:
    if job.status == 200:
        return _line(at, "INFO", f"100% done, {len(json.loads(job.images))} image(s), seed {job.seed}")
    return _line(at, "ERROR", f"ended with {job.status} {job.error_type or ''}: {job.error or ''}")


def _line(at: float, level: str, message: str) -> dict[str, Any]:
    stamp = datetime.fromtimestamp(at, UTC).isoformat()
    return {"message": message, "level": level, "source": "USER", "timestamp": stamp}
