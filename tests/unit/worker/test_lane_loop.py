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

from worker import lane_loop
from worker.lane_loop import run_turn

AWAY = OperationalError("SELECT 1", {}, Exception("server closed the connection unexpectedly\nsecond line"))


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses of the loop, shrunk."""
    monkeypatch.setattr(lane_loop, "IDLE", (0.002, 0.02))
    monkeypatch.setattr(lane_loop, "GATHER", 0.005)


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
        time.sleep(self.seconds)
        with self._lock:
            self.in_flight -= 1
        return number

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
    lane = Lane(40, seconds=0.01)

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
            assert slow_is_over.wait(5)
        return lane.call(number)

    def record(replies: Sequence[int]) -> None:
        lane.record(replies)
        recorded_meanwhile.extend(replies)
        if len(recorded_meanwhile) == 29:
            slow_is_over.set()

    assert lane.run(4, perform=call, record=record) == 30
    assert recorded_meanwhile[-1] == 0


def test_replies_come_in_sets() -> None:
    """Replies that come together are recorded together: one commit for all of them."""
    lane = Lane(32)
    together = threading.Barrier(16)

    def call(number: int) -> int:
        together.wait(5)
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
            assert found.wait(5)
        else:
            found.set()
        return number

    assert lane.run(2, perform=call) == 2


class Hanging(Lane):
    """A lane without end, of which every so many calls hang."""

    def __init__(self, *, every: int, hang: float) -> None:
        super().__init__(10**6, seconds=0.005)
        self.every, self.hang = every, hang

    def call(self, number: int) -> int:
        if number % self.every == 0:
            time.sleep(self.hang)
            return number
        return super().call(number)


class Uneven(Lane):
    """Of which there is always a call under way that is older than another."""

    def call(self, number: int) -> int:
        time.sleep(0.05 + 0.03 * (number % 4))
        return number


def rate(every: int, seconds: float) -> float:
    """Calls a second over several turns, one task after the other."""
    lane, until = Hanging(every=every, hang=1.0), time.monotonic() + seconds
    began = time.monotonic()
    while time.monotonic() < until:
        lane.run(16, should_continue=lambda: time.monotonic() < until)
    assert lane.recorded == list(range(len(lane.recorded)))
    return len(lane.recorded) / (time.monotonic() - began)


def test_hanging_calls_do_not_cut_throughput(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of a turn a lane does not wait, with its other places empty, for the one call in 200 that hangs."""
    monkeypatch.setattr(lane_loop, "SLICE_SECONDS", 0.3)
    monkeypatch.setattr(lane_loop, "SLOW", 0.05)

    assert rate(200, 4.0) > 0.35 * rate(10**7, 2.0)  # a fifth, where every end of a turn waits


def test_turn_does_not_end_in_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one call hangs far past the end of the turn the other places are filled again and again."""
    monkeypatch.setattr(lane_loop, "SLICE_SECONDS", 0.1)
    monkeypatch.setattr(lane_loop, "SLOW", 0.05)
    lane, over = Lane(10**6, seconds=0.005), threading.Event()
    late: list[int] = []

    def call(number: int) -> int:
        if number == 0:
            over.wait(10)
        elif time.monotonic() > began + 0.5:
            late.append(number)
            if len(late) == 50:
                over.set()
        return lane.call(number)

    began = time.monotonic()
    lane.run(4, perform=call)

    assert len(late) >= 50


def test_turn_ends_where_nothing_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is due, the task makes room after its turn."""
    monkeypatch.setattr(lane_loop, "SLICE_SECONDS", 0.2)
    lane = Lane(10**6, seconds=0.005)
    began = time.monotonic()

    lane.run(4)

    assert 0.2 <= time.monotonic() - began < 1.0
    assert lane.recorded == list(range(len(lane.recorded)))


def test_turn_ends_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is always a slow call under way, after LONGEST_TURN."""
    monkeypatch.setattr(lane_loop, "SLICE_SECONDS", 0.1)
    monkeypatch.setattr(lane_loop, "SLOW", 0.01)
    monkeypatch.setattr(lane_loop, "LONGEST_TURN", 0.5)
    began = time.monotonic()

    Uneven(10**6).run(4)

    assert 0.4 <= time.monotonic() - began < 1.5


def test_stop_waits_for_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is slow, once told to stop nothing more is claimed; only what is under way is waited for."""
    monkeypatch.setattr(lane_loop, "SLICE_SECONDS", 0.1)
    monkeypatch.setattr(lane_loop, "SLOW", 0.01)
    lane, stopping = Uneven(10**6), threading.Event()
    claims_after: list[float] = []

    def claim(free: int) -> Sequence[int]:
        if stopping.is_set():
            claims_after.append(time.monotonic())
        return lane.claim(free)

    timer = threading.Timer(0.5, stopping.set)
    timer.start()
    began = time.monotonic()
    lane.run(4, claim=claim, should_continue=lambda: not stopping.is_set())
    timer.join()

    assert 0.5 <= time.monotonic() - began < 1.2
    assert claims_after == []
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


def test_waiting_ends_when_told_to_stop() -> None:
    """A backlog is no reason to go on after the lane's turn."""
    lane = Lane(0)
    until = time.monotonic() + 0.1

    assert lane.run(2, should_continue=lambda: time.monotonic() < until, has_backlog=lambda: True) == 0
    assert time.monotonic() < until + 1


def test_waiting_does_not_hurry() -> None:
    """Looks for work while idle grow rarer."""
    lane = Lane(0)
    until = time.monotonic() + 0.2

    lane.run(2, should_continue=lambda: time.monotonic() < until, has_backlog=lambda: True)

    assert 5 <= len(lane.free_places) <= 25


def away_for(lane: Lane, failures: int) -> Callable[[Sequence[int]], None]:
    """Record, once the database has failed so many times."""
    left = count(failures, -1)

    def record(replies: Sequence[int]) -> None:
        if next(left) > 0:
            raise AWAY
        lane.record(replies)

    return record


def test_database_away_while_recording() -> None:
    """Replies stay in hand until the database takes them."""
    lane = Lane(10, seconds=0.002)

    assert lane.run(10, record=away_for(lane, 3)) == 10
    assert lane.recorded == list(range(10))


def test_database_away_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """After RECORD_AGAIN_FOR seconds it gives up, aloud."""
    monkeypatch.setattr(lane_loop, "RECORD_AGAIN_FOR", 0.3)
    lane = Lane(1)
    began = time.monotonic()

    with pytest.raises(OperationalError):
        lane.run(1, record=away_for(lane, 1000))
    assert 0.1 < time.monotonic() - began < 2


def test_database_away_while_claiming() -> None:
    """Calls under way when a claim fails are not forgotten: they end, are recorded, and the claim is tried again."""
    lane = Lane(6, seconds=0.05)
    calls = count()

    def claim(free: int) -> Sequence[int]:
        if 0 < next(calls) < 4:
            raise AWAY
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


def test_leases_of_slow_calls_are_renewed() -> None:
    """What is still under way keeps its claim before it lapses, what has ended does not; one failure costs nothing."""
    lane = Lane(4)
    renewals: list[list[int]] = []
    moments = [time.monotonic()]
    enough = threading.Event()

    def call(number: int) -> int:
        assert number or enough.wait(5)
        return number

    def renew(under_way: Sequence[int]) -> None:
        renewals.append(list(under_way))
        moments.append(time.monotonic())
        if len(renewals) == 1:
            raise AWAY
        if len(renewals) == 3:
            enough.set()

    assert lane.run(4, perform=call, renew=renew, lease=0.6) == 4
    assert lane.recorded == [0, 1, 2, 3]
    assert renewals == [[0]] * 3
    assert all(later - earlier < 0.6 for earlier, later in pairwise(moments))


def test_leases_are_not_renewed_in_vain() -> None:
    """A call that ends well within its lease renews nothing."""
    renewals: list[object] = []

    Lane(3, seconds=0.02).run(3, renew=renewals.append, lease=5.0)

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
