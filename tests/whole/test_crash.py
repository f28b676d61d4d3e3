"""Workers that die at the worst moments: nothing is lost, nothing is paid for twice."""

from pathlib import Path

from tests.whole.conftest import Start, finish, hand_in
from worker.crash import POINTS


def test_sigkill_at_every_named_point(start: Start, tmp_path: Path) -> None:
    """A worker kills itself after a claim, after a POST, before and after recording, while it stores a picture, and
    before it finishes a batch; the supervisor starts it again, and the books balance."""
    flags = {point: tmp_path / point for point in POINTS}
    system = start(DARKROOM_CRASH_AT=",".join(f"{point}:{flag}" for point, flag in flags.items()), SUBMIT_THREADS="8")

    hand_in(system, 40)
    found = finish(system)

    assert [point for point, flag in flags.items() if not flag.exists()] == []
    assert found.charges == 40
