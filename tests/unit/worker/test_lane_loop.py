"""The loop beneath the lanes: bounded, never waiting for the slowest, and losing no reply that is in hand."""

import threading
import time
from collections.abc import Callable, Sequence
from itertools import count, pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError
from structlog.testing import CapturingLogger

from tests.support.clocks import SetClock
from worker import lane_loop
from worker.lane_loop import run_turn

AWAY = OperationalError("SELECT 1", {}, Exception("server closed the connection unexpectedly\nsecond line"))


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses of the loop, shrunk."""
    monkeypatch.setattr(lane_loop, "IDLE", (0.002, 0.02))
    monkeypatch.setattr(lane_loop, "GATHER", 0.005)


@pytest.fixture(name="clock")
def set_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """The clock of the loop, which moves when the test says so."""
    clock = SetClock()
    monkeypatch.setattr(lane_loop, "time", clock)
    return clock


class Lane:
    """Items numbered from 0, and a record of what happened to them."""

    def __init__(self, items: int, *, seconds: float = 0.0) -> None:
        self.waiting = list(range(items))
        self.seconds = seconds
        self.free_places: list[int] = []
        self.sets: list[list[int]] = []
        self.in_flight = self.most = self.held = self.most_held = 0
        self._lock = threading.Lock()

    @property
    def recorded(self) -> list[int]:
        return sorted(number for one in self.sets for number in one)

    def claim(self, free: int) -> Sequence[int]:
        self.free_places.append(free)
        taken, self.waiting = self.waiting[:free], self.waiting[free:]
        self.held += len(taken)
        self.most_held = max(self.most_held, self.held)
        return taken

    def call(self, number: int) -> int:
        with self._lock:
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
        self.take(number)
        with self._lock:
            self.in_flight -= 1
        return number

    def take(self, number: int) -> None:
        """Its time."""
        time.sleep(self.seconds)

    def record(self, replies: Sequence[int]) -> None:
        self.sets.append(list(replies))
        self.held -= len(replies)

    def run(self, width: int, *, should_continue: Callable[[], bool] = lambda: True, **changes: Any) -> int:
        """One turn, with some parts of the lane replaced."""
        parts = {
            "claim": self.claim,
            "perform": self.call,
            "record": self.record,
            "renew": lambda _: None,
            "has_backlog": lambda: False,
            "lease": float("inf"),
            "longest_turn": lane_loop.LONGEST_TURN,
            **changes,
        }
        return run_turn(SimpleNamespace(width=width, **parts), should_continue)


def test_everything_is_called_and_recorded_once() -> None:
    """Every claimed item is called once, every reply recorded once, and the number of calls is told."""
    lane = Lane(50, seconds=0.002)

    assert lane.run(7) == 50
    assert lane.recorded == list(range(50))


def test_nothing_due() -> None:
    """With nothing due it returns at once and records nothing."""
    lane = Lane(0)

    assert lane.run(4) == 0
    assert (lane.free_places, lane.sets) == ([4], [])


@pytest.mark.parametrize("width", [1, 3, 8])
def test_never_more_than_width(width: int) -> None:
    """At no moment are more calls under way, or items held, than there are places; and all places are used."""
    lane, all_places = Lane(40), threading.Barrier(width)
    lane.take = lambda number: all_places.wait(60) if number < width else time.sleep(0.002)

    lane.run(width)

    assert (lane.most, lane.most_held) == (width, width)
    assert max(lane.free_places) <= width
    assert min(lane.free_places) >= 1


def test_slow_call_holds_nobody_up() -> None:
    """While one call takes its time the other places are filled again and again, and their replies recorded."""
    slow_is_over = threading.Event()
    lane = Lane(30, seconds=0.002)
    recorded_meanwhile: list[int] = []

    def call(number: int) -> int:
        if number == 0:
            assert slow_is_over.wait(60)
        return lane.call(number)

    def record(replies: Sequence[int]) -> None:
        lane.record(replies)
        recorded_meanwhile.extend(replies)
        if len(recorded_meanwhile) == 29:
            slow_is_over.set()

    assert lane.run(4, perform=call, record=record) == 30
    assert recorded_meanwhile[-1] == 0


def test_replies_come_in_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies that come together are recorded together: one commit for all of them."""
    monkeypatch.setattr(lane_loop, "GATHER", 0.25)  # a busy machine lets none of them come later
    lane = Lane(32)
    together = threading.Barrier(16)

    def call(number: int) -> int:
        together.wait(60)
        return number

    lane.run(16, perform=call)

    assert lane.recorded == list(range(32))
    assert len(lane.sets) <= 6


def test_what_comes_due_during_a_call_is_taken() -> None:
    """New work is found while calls are under way, not only when all have ended."""
    lane = Lane(1)
    found = threading.Event()

    def call(number: int) -> int:
        if number == 0:
            lane.waiting.append(1)
            assert found.wait(60)
        else:
            found.set()
        return number

    assert lane.run(2, perform=call) == 2


class Hanging(Lane):
    """A lane without end, the first of whose calls hangs; a second passes at each look at whether to go on."""

    def __init__(self, clock: SetClock, *, seconds: float = 1.0) -> None:
        super().__init__(10**6)
        self.clock, self.began, self.step = clock, clock.now, seconds
        self.release = threading.Event()
        self.claimed_at: list[float] = []
        self.performed = 0
        self.stop_after = float("inf")

    @property
    def passed(self) -> float:
        return self.clock.now - self.began

    def should_continue(self) -> bool:
        self.clock.now += self.step
        if self.passed > self.stop_after + 20 * self.step:
            self.release.set()  # the loop has had every opportunity
        return self.passed <= self.stop_after

    def claim(self, free: int) -> Sequence[int]:
        self.claimed_at.append(self.passed)
        return super().claim(free)

    def take(self, number: int) -> None:
        if number == 0:
            assert self.release.wait(60)
        self.performed += 1


def test_turn_does_not_end_in_waiting(clock: SetClock) -> None:
    """While one call hangs far past the end of the turn the other places are filled again and again: at the end of a
    turn a lane does not wait, with these empty, for the one call in hundreds that hangs."""
    lane = Hanging(clock)
    lane.stop_after = 200.0

    lane.run(4, should_continue=lane.should_continue)

    late = [moment for moment in lane.claimed_at if moment > 20 * lane_loop.SLICE_SECONDS]
    assert len(late) >= 50
    assert lane.recorded == list(range(len(lane.recorded)))


def test_turn_ends_where_nothing_is_slow(clock: SetClock) -> None:
    """However much is due, the task makes room after its turn."""
    lane = Lane(10**6)

    def record(replies: Sequence[int]) -> None:
        lane.record(replies)
        clock.now += 1.0

    assert lane.run(1, record=record) == lane_loop.SLICE_SECONDS
    assert lane.recorded == [0, 1, 2, 3, 4]


def test_turn_ends_in_the_end(clock: SetClock) -> None:
    """Where there is always a slow call under way, after LONGEST_TURN."""
    lane = Hanging(clock, seconds=4.0)
    lane.stop_after = 1.2 * lane_loop.LONGEST_TURN

    lane.run(4, should_continue=lane.should_continue)

    assert 0.9 * lane_loop.LONGEST_TURN < max(lane.claimed_at) <= lane_loop.LONGEST_TURN
    assert lane.held == 0


def test_stop_waits_for_no_turn(clock: SetClock) -> None:
    """Whatever is slow, once told to stop nothing more is claimed; only what is under way is waited for."""
    lane = Hanging(clock)
    lane.stop_after = 50.0

    lane.run(4, should_continue=lane.should_continue)

    assert 45 < max(lane.claimed_at) <= 50
    assert lane.held == 0


def test_told_to_stop() -> None:
    """Once told to stop it claims nothing more, but the calls under way end and are recorded."""
    lane = Lane(100, seconds=0.05)
    stopping = threading.Event()

    def claim(free: int) -> Sequence[int]:
        assert not stopping.is_set()
        taken = lane.claim(free)
        stopping.set()
        return taken

    assert lane.run(5, claim=claim, should_continue=lambda: not stopping.is_set()) == 5
    assert lane.recorded == [0, 1, 2, 3, 4]


def test_waits_while_there_is_reason() -> None:
    """With a full window nothing can be claimed: it waits, looks again, and takes what falls free."""
    lane = Lane(0)
    calls = count()

    def claim(free: int) -> Sequence[int]:
        if next(calls) == 5:
            lane.waiting = [7]
        return lane.claim(free)

    assert lane.run(2, claim=claim, has_backlog=lambda: not lane.sets) == 1
    assert lane.recorded == [7]


def test_waiting_ends_when_told_to_stop(clock: SetClock) -> None:
    """A backlog is no reason to go on after the lane's turn; looks for work while idle grow rarer."""
    lane = Lane(0)
    until = clock.now + 0.1

    assert lane.run(2, should_continue=lambda: clock.now < until, has_backlog=lambda: True) == 0
    assert clock.slept == pytest.approx([0.002, 0.004, 0.008, 0.016, 0.02, 0.02, 0.02, 0.02])
    assert len(lane.free_places) == len(clock.slept)


def away_for(lane: Lane, failures: int) -> Callable[[Sequence[int]], None]:
    """Record, once the database has failed so many times."""
    left = count(failures, -1)

    def record(replies: Sequence[int]) -> None:
        if next(left) > 0:
            raise AWAY
        lane.record(replies)

    return record


@pytest.mark.usefixtures("clock")
def test_database_away_while_recording() -> None:
    """Replies stay in hand until the database takes them."""
    lane = Lane(10, seconds=0.002)

    assert lane.run(10, record=away_for(lane, 3)) == 10
    assert lane.recorded == list(range(10))


def test_database_away_for_good(clock: SetClock) -> None:
    """After RECORD_AGAIN_FOR seconds it gives up, aloud."""
    lane = Lane(1)

    with pytest.raises(OperationalError):
        lane.run(1, record=away_for(lane, 1000))
    assert 0.9 * lane_loop.RECORD_AGAIN_FOR < sum(clock.slept) <= lane_loop.RECORD_AGAIN_FOR


def test_database_away_while_claiming() -> None:
    """Calls under way when a claim fails are not forgotten: they end, are recorded, and the claim is tried again."""
    lane, tried = Lane(6), threading.Event()
    lane.take = lambda number: tried.wait(60)
    calls = count()

    def claim(free: int) -> Sequence[int]:
        if 0 < (number := next(calls)) < 4:
            raise AWAY
        if number == 4:
            tried.set()
        return lane.claim(min(free, 3))

    assert lane.run(6, claim=claim) == 6
    assert lane.recorded == list(range(6))


def test_database_away_before_anything_is_claimed() -> None:
    """With nothing in hand a failing claim is simply an error."""
    with pytest.raises(OperationalError):
        Lane(0).run(3, claim=lambda _: (_ for _ in ()).throw(AWAY))


def test_database_away_when_all_is_over() -> None:
    """A look for further work that fails loses nothing either."""
    lane = Lane(3)

    def has_backlog() -> bool:
        raise AWAY

    with pytest.raises(OperationalError):
        lane.run(3, has_backlog=has_backlog)
    assert lane.recorded == [0, 1, 2]


@pytest.mark.parametrize("where", ["call", "claim", "record"])
def test_bug_of_one_does_not_lose_the_replies_of_others(where: str) -> None:
    """An error that nobody foresaw is raised, but only after every other reply was recorded."""
    lane = Lane(8, seconds=0.02)
    calls = count()

    def call(number: int) -> int:
        if where == "call" and number == 3:
            raise KeyError("nobody foresaw this")
        return lane.call(number)

    def claim(free: int) -> Sequence[int]:
        if where == "claim" and next(calls) == 1:
            raise KeyError("nobody foresaw this")
        return lane.claim(min(free, 4))

    def record(replies: Sequence[int]) -> None:
        if where == "record" and 3 in replies:
            raise KeyError("nobody foresaw this")
        lane.record(replies)

    with pytest.raises(KeyError):
        lane.run(4, perform=call, claim=claim, record=record)

    called = 8 - len(lane.waiting)
    spoilt = {"call": {3}, "claim": set(), "record": {3}}[where]
    assert set(lane.recorded) == set(range(called)) - spoilt


def test_reply_that_the_database_refuses_does_not_hold_up_the_others() -> None:
    """One reply that no transaction can take is given up at once, aloud; those that came with it are recorded."""
    lane = Lane(4)

    def record(replies: Sequence[int]) -> None:
        if 2 in replies:
            raise IntegrityError("INSERT", {}, Exception("violates check constraint"))
        lane.record(replies)

    with pytest.raises(IntegrityError):
        lane.run(4, record=record)

    assert lane.recorded == [0, 1, 3]


def test_leases_of_slow_calls_are_renewed(clock: SetClock) -> None:
    """What is still under way keeps its claim before it lapses, what has ended does not; one failure costs nothing."""
    lane, lease = Lane(4), 15.0
    renewals: list[list[int]] = []
    moments = [clock.now]
    enough = threading.Event()

    def call(number: int) -> int:
        assert number or enough.wait(60)
        return number

    def should_continue() -> bool:
        clock.now += lease / 10
        return True

    def renew(under_way: Sequence[int]) -> None:
        renewals.append(list(under_way))
        moments.append(clock.now)
        if len(renewals) == 1:
            raise AWAY
        if len(renewals) == 3:
            enough.set()

    assert lane.run(4, should_continue=should_continue, perform=call, renew=renew, lease=lease) == 4
    assert lane.recorded == [0, 1, 2, 3]
    assert renewals == [[0]] * 3
    assert all(later - earlier < lease for earlier, later in pairwise(moments))


def test_leases_are_not_renewed_in_vain() -> None:
    """A call that ends well within its lease renews nothing."""
    renewals: list[object] = []

    Lane(3, seconds=0.02).run(3, renew=renewals.append, lease=600.0)

    assert renewals == []


def test_no_log_tells_a_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statements and their parameters hold prompts; the log has the reason without them."""
    log = CapturingLogger()
    monkeypatch.setattr(lane_loop, "log", log)
    lane = Lane(1)
    error = OperationalError("INSERT …", {"prompt": "my secret prompt"}, Exception("connection lost\nDETAIL: secret"))
    failures = iter([error])

    def record(replies: Sequence[int]) -> None:
        for failure in failures:
            raise failure
        lane.record(replies)

    lane.run(1, record=record)

    (said,) = map(repr, log.calls)
    assert "connection lost" in said
    assert "secret" not in said
