"""Workers that die at the worst moments: nothing is lost, nothing is paid for twice."""

from pathlib import Path

from tests.support.notify_receiver import ids, receiver, stand, verified
from tests.support.running_stack import eventually
from tests.whole.conftest import Start, finish, hand_in, heard_too_late
from worker.crash_points import POINTS

LANES = tuple(point for point in POINTS if point != "after_create")
"""Points that a batch passes once it is there; test_celery_batch.py has the other."""


def test_sigkill_at_every_named_point(start: Start, tmp_path: Path) -> None:
    """A worker kills itself after a claim, after a POST, before and after recording, while it stores an image, in the
    middle of finishing the batch, and after it told the caller; another takes its place, and the books balance.
    Whatever the provider accepted is learned from its callback at once, not when its submission would be given up."""
    flags = {point: tmp_path / point for point in LANES}
    crash_at = ",".join(f"{point}:{flag}" for point, flag in flags.items())
    system = start(DARKROOM_CRASH_AT=crash_at, SUBMIT_THREADS="8", NOTIFY_PRIVATE_HOSTS="127.0.0.1")

    with receiver(200) as caller:
        hand_in(system, 40, notify_url=caller.url)
        found = finish(system)
        assert eventually(lambda: stand(system.engine) == [(2, True, None, 200, None)], within=60)

    assert len(set(ids(caller.received))) == 1
    message = verified(caller.received[1], (system.home / "notify.secret").read_text().strip())
    assert (message["type"], message["data"]["stored"]) == ("batch.finished", 40)
    assert [point for point, flag in flags.items() if not flag.exists()] == []
    assert found.charges == 40
    assert heard_too_late(system) == 0
