"""Keep a bounded number of calls under way, claim as places fall free, record answers in sets as they come.

The one loop beneath every `CallingLane`. No wave waits for its slowest call, and no turn
either: past its turn a lane goes on claiming while a call is under way that would have everybody wait. The database may
go away while answers are not recorded yet (a restart takes seconds): recording is tried again for a while, because
a lost reply to a paid POST would be an unknown outcome. For the same reason whatever breaks the loop is raised
only after the calls under way have ended and their replies are recorded.
"""

import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import structlog

from models.database_errors import is_away, original

log = structlog.get_logger()

GATHER = 0.01
"""Seconds in which further answers join the set of the first one: one commit for all of them."""
IDLE = (0.02, 0.25)
"""Seconds between claims while places are free but nothing is due: from the first to the second, doubling."""
SLICE_SECONDS = 5.0
"""Seconds a lane's task claims before it makes room for others in its process; the tick starts the next at once."""
SLOW = 1.0
"""Seconds after which a call is slow: to wait for it would leave the other places empty."""
LONGEST_TURN = 300.0
"""Seconds a task claims at most, where there are always slow calls under way."""
RENEWALS = 3
"""Times a lease is renewed before it would lapse."""
RECORD_AGAIN_FOR = 60.0
"""Seconds for which answers are kept in hand while the database does not take them."""

Item = TypeVar("Item")
Reply = TypeVar("Reply")


class Calls(Protocol[Item, Reply]):
    """What the loop needs of a lane; `worker/lane.py` says what each part is for."""

    width: int
    lease: float
    longest_turn: float

    def claim(self, free: int, /) -> Sequence[Item]:
        """Take due rows, at most so many."""

    def perform(self, item: Item, /) -> Reply:
        """Make the call for one row."""

    def record(self, replies: Sequence[Reply], /) -> None:
        """Write down what calls brought."""

    def renew(self, items: Sequence[Item], /) -> None:
        """Hold rows whose calls go on."""

    def has_backlog(self) -> bool:
        """Whether more is due than was taken."""


def run_turn(lane: Calls[Item, Reply], should_continue: Callable[[], bool]) -> int:
    """Run until nothing is due, or the turn is over, or `should_continue` says stop; then let the calls under way end.

    Returns the number of calls made.

    Raises:
        Exception: the first thing that went wrong, once everything that was under way is recorded.
    """
    width = lane.width
    with ThreadPoolExecutor(width) as pool:
        loop = _Loop(pool, width, lane, should_continue)
        try:
            return loop.run()
        except BaseException:
            loop.drain()
            raise


@dataclass
class _Loop(Generic[Item, Reply]):
    pool: ThreadPoolExecutor
    width: int
    lane: Calls[Item, Reply]
    should_continue: Callable[[], bool]
    in_flight: dict[Future[Reply], Item] = field(default_factory=dict)
    begun: dict[Future[Reply], float] = field(default_factory=dict)
    """When each of them was called; they stand in that order."""
    # asked for when it is made, so that whoever sets another clock is heard
    renewed: float = field(default_factory=lambda: time.monotonic())
    started: float = field(default_factory=lambda: time.monotonic())

    def run(self) -> int:
        made, pause = 0, IDLE[0]
        while True:
            started = self._start()
            made += started
            if not self.in_flight:
                if not (self._may_claim() and self.lane.has_backlog()):
                    return made
                time.sleep(pause)
            else:
                self._collect(timeout=IDLE[1] if len(self.in_flight) == self.width else pause)
            pause = IDLE[0] if started else min(2 * pause, IDLE[1])

    def _start(self) -> int:
        free = self.width - len(self.in_flight)
        if not free or not self._may_claim():
            return 0
        try:
            items = self.lane.claim(free)
        except Exception as error:
            if not self.in_flight or not is_away(error):
                raise
            log.warning("not_claimed_now", calls_under_way=len(self.in_flight), reason=reason(error))
            return 0
        for item in items:
            future = self.pool.submit(self.lane.perform, item)
            self.in_flight[future], self.begun[future] = item, time.monotonic()
        return len(items)

    def _may_claim(self) -> bool:
        """Whether the turn goes on: to its end, and past it while a slow call would keep the other places empty.

        So what is waited for at the end of a turn is at most `SLOW` old; where it gets older, claiming goes on.
        """
        if not self.should_continue():
            return False
        now = time.monotonic()
        if now - self.started < SLICE_SECONDS:
            return True
        oldest = self.begun[next(iter(self.in_flight))] if self.in_flight else now
        return now - oldest > SLOW and now - self.started < self.lane.longest_turn

    def _collect(self, *, timeout: float) -> None:
        done, _ = wait(self.in_flight, timeout=timeout, return_when=FIRST_COMPLETED)
        if done and len(done) < len(self.in_flight):
            time.sleep(GATHER)
            done = {future for future in self.in_flight if future.done()}
        for future in done:
            del self.in_flight[future], self.begun[future]
        _record_done(self.lane.record, done)
        if self.in_flight and time.monotonic() - self.renewed > self.lane.lease / RENEWALS:
            self._renew()

    def _renew(self) -> None:
        self.renewed = time.monotonic()
        try:
            self.lane.renew(list(self.in_flight.values()))
        except Exception as error:
            if not is_away(error):
                raise
            # a lease that lapses costs a second fetch or question, never a second charge
            log.warning("not_renewed_now", calls_under_way=len(self.in_flight), reason=reason(error))

    def drain(self) -> None:
        """What is still in hand when the loop breaks; the error that broke it matters more than one in here."""
        wait(self.in_flight)
        try:
            _record_done(self.lane.record, self.in_flight.keys())
        except Exception as error:
            log.error("replies_lost", replies=len(self.in_flight), reason=reason(error))


def _record_done(record: Callable[[Sequence[Reply]], None], done: Collection[Future[Reply]]) -> None:
    """Record every reply there is; one that cannot be had, or recorded, does not hold up the others."""
    errors = [error for future in done if (error := future.exception())]
    replies = [future.result() for future in done if not future.exception()]
    if replies:
        try:
            _record_with_retry(record, replies)
        except Exception as error:
            if is_away(error):
                raise
            errors += _record_singly(record, replies) if len(replies) > 1 else [error]
    if errors:
        raise errors[0]


def _record_singly(record: Callable[[Sequence[Reply]], None], replies: Sequence[Reply]) -> list[BaseException]:
    """After a set was refused: one reply that cannot be recorded must not lose the others; its row falls due again."""
    errors: list[BaseException] = []
    for reply in replies:
        try:
            _record_with_retry(record, [reply])
        except Exception as error:
            log.error("reply_not_recorded", reason=reason(error))
            errors.append(error)
    return errors


def _record_with_retry(record: Callable[[Sequence[Reply]], None], replies: Sequence[Reply]) -> None:
    give_up = time.monotonic() + RECORD_AGAIN_FOR
    delay = 0.1
    while True:
        try:
            return record(replies)
        except Exception as error:
            if not is_away(error) or time.monotonic() + delay > give_up:
                raise
            log.warning("not_recorded_yet", replies=len(replies), reason=reason(error))
            time.sleep(delay)
            delay = min(2 * delay, 2.0)


def reason(error: BaseException) -> str:
    """The first line of an error, without the statement and its parameters: these hold prompts."""
    return f"{type(original(error)).__name__}: {str(original(error)).strip().partition(chr(10))[0]}"[:300]
