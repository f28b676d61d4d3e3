"""Workers that die at the worst moments: nothing is lost, nothing is paid for twice."""

from pathlib import Path

from tests.whole.conftest import Start, finish, hand_in, heard_too_late
from worker.crash import POINTS


def test_sigkill_at_every_named_point(start: Start, tmp_path: Path) -> None:
    """A worker kills itself after a claim, after a POST, before and after recording, while it stores a picture, and
    in the middle of finishing the batch; another takes its place, and the books balance. Whatever the provider
    accepted is learned from its callback at once, not when its submission would be given up."""
    flags = {point: tmp_path / point for point in POINTS}
    system = start(DARKROOM_CRASH_AT=",".join(f"{point}:{flag}" for point, flag in flags.items()), SUBMIT_THREADS="8")

    hand_in(system, 40)
    found = finish(system)

    assert [point for point, flag in flags.items() if not flag.exists()] == []
    assert found.charges == 40
    assert heard_too_late(system) == 0
