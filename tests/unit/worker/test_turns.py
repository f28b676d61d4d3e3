"""Lanes that share a worker do not wait for one another."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event

import pytest

from worker.lanes import LANES, UPKEEP
from worker.turns import Turns, threads_for


def test_a_busy_lane_takes_no_other_lanes_thread() -> None:
    """Lanes that are busy for minutes get a message every second; batches end all the same."""
    lanes = {name: Turns(LANES[name].turns_at_once) for name in UPKEEP}
    busy, answered, settled = [name for name in UPKEEP if name != "settle"], Event(), Event()
    began = {name: Event() for name in busy}

    def call(name: str) -> None:
        began[name].set()
        assert answered.wait(60)

    with ThreadPoolExecutor(threads_for([LANES[name].turns_at_once for name in UPKEEP])) as pool:
        try:
            for name in 10 * busy:
                pool.submit(lanes[name].run, partial(call, name))
            assert [name for name in busy if not began[name].wait(60)] == []
            pool.submit(lanes["settle"].run, settled.set)
            assert settled.wait(60)
        finally:
            answered.set()


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_turn_that_comes_amid_others_runs_after_one(at_once: int) -> None:
    """What fell due after a turn had looked is found at once, not a tick later; of several such messages one is run."""
    turns, started, end = Turns(at_once), [Event() for _ in range(at_once)], Event()
    ran: list[str] = []

    def long_turn(began: Event) -> Callable[[], None]:
        def take_turn() -> None:
            began.set()
            assert end.wait(60)
            ran.append("long")

        return take_turn

    with ThreadPoolExecutor(at_once + 3) as pool:
        for began in started:
            pool.submit(turns.run, long_turn(began))
            assert began.wait(60)
        later = [pool.submit(turns.run, lambda: ran.append("after")) for _ in range(3)]
        while sum(one.done() for one in later) < 2:
            pass
        assert ran == []
        end.set()
    assert sorted(ran) == ["after", *["long"] * at_once]


def test_a_turn_that_fails_leaves_its_place() -> None:
    """The lane goes on with the next message."""
    turns, ran = Turns(1), Event()
    with pytest.raises(ZeroDivisionError):
        turns.run(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    turns.run(ran.set)
    assert ran.is_set()
