"""A short run in which everything breaks; `make chaos` is the long one."""

from pathlib import Path

from benchmarks.chaos import run
from benchmarks.faults import PHASES, VICTIMS, make_plan

EDITS, KILLS = 180, 12


def test_short_chaos(tmp_path: Path) -> None:
    """Manifests as people write them, every fault on, every process killed: nothing lost, doubled, wrong, untold."""
    for parent in (tmp_path, *tmp_path.parents[:3]):
        if parent != Path("/tmp"):
            parent.chmod(0o755)  # PostgreSQL's own user must find its folder in it

    found = run(tmp_path, make_plan(7), EDITS, KILLS)

    assert found.clean, str(found.as_dict())
    assert set(found.kills) >= {part for part, weight in VICTIMS.items() if weight}
    assert set(found.phases) == {phase.name for phase in PHASES}
    assert found.messages
    assert found.foreign_requests
    assert len(found.injected) > 30
