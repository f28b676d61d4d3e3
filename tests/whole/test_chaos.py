"""A short run in which everything breaks; `make chaos` is the long one."""

import tempfile
from pathlib import Path

from benchmarks.chaos import run
from benchmarks.faults import make_plan


def test_short_chaos() -> None:
    """Every fault on, processes killed at random: nothing lost, nothing doubled, no wrong picture, books balanced."""
    with tempfile.TemporaryDirectory(prefix="darkroom-chaos-") as folder:
        found = run(Path(folder), make_plan(7), edits=150, kills=6, seconds=90)

    assert found.clean, str(found.as_dict())
    assert sum(found.kills.values()) >= 6
    assert len(found.injected) > 15
