"""The numbers behind the plots of a batch: how many of its edits were stored when, and where their time went.

Drawn of a sample of its edits, evenly picked, so that the page costs the same for a hundred edits and for a million.
"""

from collections.abc import Sequence
from datetime import datetime
from math import ceil
from typing import Any, NamedTuple

from sqlalchemy import RowMapping

SAMPLE = 400
"""Edits that are looked at, at most."""
WIDTH, HEIGHT = 600, 140
"""Units of a plot."""


class Curve(NamedTuple):
    """Edits stored over time."""

    line: str
    """Points of an SVG polyline."""
    begins: datetime
    ends: datetime
    stored: int
    """So many by the end, as far as the sample tells."""


class Stage(NamedTuple):
    """How long edits took for one part of their way, in seconds, and where that lies in a plot as wide as `WIDTH`."""

    name: str
    p50: float
    p95: float
    p99: float
    at: tuple[float, float, float]


STAGES = (
    ("waiting for its turn", "created_at", "posted_at"),
    ("at the provider", "posted_at", "completed_at"),
    ("fetching the images", "completed_at", "stored_at"),
    ("the whole way", "created_at", "stored_at"),
)


class Minutes(NamedTuple):
    """The last hour, minute by minute."""

    bars: list[tuple[float, float, float, float]]
    """Of each minute in which edits ended: where its bar stands, how high its stored and its failed part are, and
    where the failed part begins."""
    most: int
    """Edits that ended in the fullest minute."""
    stored: int
    failed: int


MINUTES = 60


def draw_minutes(rows: Sequence[RowMapping]) -> Minutes | None:
    """How many edits were stored, and how many failed, in each minute of the last hour; None where none did."""
    most = max((row["stored"] + row["failed"] for row in rows), default=0)
    if not most:
        return None
    bars = []
    for row in rows:
        stored, failed = (float(row[name]) / float(most) * HEIGHT for name in ("stored", "failed"))
        left = (MINUTES - 1 - row["ago"]) * WIDTH / MINUTES
        bars.append((left, stored, failed, HEIGHT - stored - failed))
    totals = (int(sum(row[name] for row in rows)) for name in ("stored", "failed"))
    return Minutes(bars, int(most), *totals)


def pick_positions(edits: int) -> list[int]:
    """Positions of a sample, evenly over a batch of so many edits."""
    step = max(1.0, edits / SAMPLE)
    return sorted({int(number * step) for number in range(ceil(edits / step))} - {edits})


def draw_curve(sample: Sequence[Any], edits: int, now: datetime) -> Curve | None:
    """How the stored edits of a batch grew; None where none is stored."""
    ends = sorted(row.stored_at for row in sample if row.state == "stored" and row.stored_at)
    if not ends:
        return None
    begin = min(row.created_at for row in sample)
    last = ends[-1] if all(row.finished_at for row in sample) else now
    span = max((last - begin).total_seconds(), 0.001)
    points = [(0.0, float(HEIGHT))]
    for number, end in enumerate(ends, 1):
        x = min(1.0, (end - begin).total_seconds() / span) * WIDTH
        points += [(x, points[-1][1]), (x, HEIGHT * (1 - number / len(sample)))]
    points.append((float(WIDTH), points[-1][1]))
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return Curve(line, begin, last, round(len(ends) / len(sample) * edits))


def measure_stages(sample: Sequence[Any]) -> list[Stage]:
    """Where the time of stored edits went."""
    measured: list[tuple[str, float, float, float]] = []
    for name, begins, ends in STAGES:
        seconds = sorted(
            (getattr(row, ends) - getattr(row, begins)).total_seconds()
            for row in sample
            if getattr(row, begins) and getattr(row, ends)
        )
        if seconds:
            p50, p95, p99 = (_percentile(seconds, share) for share in (0.5, 0.95, 0.99))
            measured.append((name, p50, p95, p99))
    longest = max((stage[3] for stage in measured), default=0.0) or 1.0
    return [
        Stage(name, p50, p95, p99, (p50 / longest * WIDTH, p95 / longest * WIDTH, p99 / longest * WIDTH))
        for name, p50, p95, p99 in measured
    ]


def _percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank, of sorted values."""
    return max(0.0, values[max(0, ceil(share * len(values)) - 1)])
