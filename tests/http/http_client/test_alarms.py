"""The clock of the calls: everything at its time, nothing that was called off, and one thread for all of it."""

import threading
import time
from queue import Queue

from http_client.alarms import AlarmClock

SOON, LATER, WITHIN = 0.05, 0.2, 30.0


def test_in_the_order_of_their_times() -> None:
    """Not in the order in which they were set: the thread that waits for a late one is woken for an early one."""
    clock, rung = AlarmClock(), Queue[str]()
    clock.set_alarm(LATER, lambda: rung.put("later"))
    clock.set_alarm(SOON, lambda: rung.put("soon"))
    assert [rung.get(timeout=WITHIN) for _ in range(2)] == ["soon", "later"]


def test_called_off() -> None:
    """Also the one that is waited for, and whatever stands behind it comes at its time."""
    clock, rung = AlarmClock(), Queue[str]()
    first = clock.set_alarm(SOON, lambda: rung.put("first"))
    clock.set_alarm(LATER, lambda: rung.put("second"))
    first.cancel()
    assert rung.get(timeout=WITHIN) == "second"
    assert rung.empty()


def test_again_after_a_rest() -> None:
    """Once all is done the thread waits for the next."""
    clock, rung = AlarmClock(), Queue[float]()
    for _ in range(2):
        began = time.monotonic()
        clock.set_alarm(SOON, lambda: rung.put(time.monotonic()))
        assert rung.get(timeout=WITHIN) - began >= SOON


def test_a_thousand_calls_take_one_thread_and_no_memory() -> None:
    """Calls that end in time leave nothing behind."""
    clock = AlarmClock()
    before = threading.active_count()
    for _ in range(1000):
        clock.set_alarm(WITHIN, lambda: None).cancel()
    assert threading.active_count() <= before + 1
    assert len(clock._alarms) <= 1
