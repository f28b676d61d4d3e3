"""A short run in which everything breaks; `make chaos` is the long one."""

import tempfile
from pathlib import Path

from benchmarks.chaos import run
from benchmarks.faults import PHASES, VICTIMS, make_plan

EDITS, KILLS = 180, 14


def test_short_chaos() -> None:
    """Manifests as people write them, every fault on, every process killed: nothing lost, doubled, wrong, untold."""
    with tempfile.TemporaryDirectory(prefix="darkroom-chaos-") as folder:
        found = run(Path(folder), make_plan(7), EDITS, KILLS)

    assert found.clean, str(found.as_dict())
    assert set(found.kills) >= {part for part, weight in VICTIMS.items() if weight}
    assert set(found.phases) == {phase.name for phase in PHASES}
    assert found.messages
    assert found.foreign_requests
    assert len(found.injected) > 30
