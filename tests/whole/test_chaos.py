"""A short run in which everything breaks; `make chaos` is the long one."""

from pathlib import Path

from benchmarks.chaos import run
from benchmarks.faults import make_plan


def test_short_chaos(tmp_path: Path) -> None:
    """Every fault on, processes killed at random: nothing lost, nothing doubled, no wrong picture, books balanced."""
    for parent in (tmp_path, *tmp_path.parents[:3]):
        if parent != Path("/tmp"):
            parent.chmod(0o755)  # PostgreSQL's own user must find its folder in it

    found = run(tmp_path, make_plan(7), edits=150, kills=6, seconds=90)

    assert found.clean, str(found.as_dict())
    assert sum(found.kills.values()) >= 6
    assert len(found.injected) > 15
