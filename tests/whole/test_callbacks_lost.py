"""Callbacks that never come, or that cannot be believed: the poll lane carries everything."""

from tests.whole.conftest import Start, finish, hand_in


def test_receiver_never_reached(start: Start) -> None:
    """Every callback is lost: every image is in storage all the same, before its result expired."""
    system = start(PUBLIC_URL="http://127.0.0.1:9")
    hand_in(system, 30)
    found = finish(system)
    assert found.callbacks == {}


def test_clocks_ten_minutes_apart(start: Start) -> None:
    """Every callback looks like a replay: kept as stale, its body not believed, the result asked for at once."""
    system = start({"stale_timestamp": 1.0})
    hand_in(system, 30)
    found = finish(system)
    assert found.callbacks.get("stale")
    assert not found.callbacks.get("applied")
