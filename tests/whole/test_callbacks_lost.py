"""Callbacks that never come, or that cannot be believed: the poll lane carries everything."""

import pytest

from benchmarks.system import System
from tests.whole.conftest import Start, finish, hand_in


@pytest.fixture(scope="module")
def system(start: Start) -> System:
    """One system for the file."""
    return start()


def test_receiver_never_reached(system: System) -> None:
    """Every callback is lost: every image is in storage all the same, before its result expired."""
    system.inject(drop_webhook=1)
    hand_in(system, 30)
    found = finish(system)
    assert found.callbacks == {}


def test_clocks_ten_minutes_apart(system: System) -> None:
    """Every callback looks like a replay: kept as stale, its body not believed, the result asked for at once."""
    system.inject(stale_timestamp=1)
    hand_in(system, 30)
    found = finish(system)
    assert found.callbacks.get("stale")
    assert not found.callbacks.get("applied")
