"""Keep a bounded number of calls under way, claim as places fall free, record answers in sets as they come.

The one loop beneath the submit, poll and download lanes. No wave waits for its slowest call. The database may
go away while answers are in our hands (a restart takes seconds): recording is tried again for a while, because
a lost reply to a paid POST would be an unknown outcome.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

import structlog
from sqlalchemy.exc import DBAPIError

log = structlog.get_logger()

GATHER = 0.01
"""Seconds in which further answers join the set of the first one: one commit for all of them."""
IDLE = (0.02, 0.25)
"""Seconds between claims while places are free but nothing is due: from the first to the second, doubling."""
RECORD_AGAIN_FOR = 60.0
"""Seconds for which answers are kept in hand while the database does not take them."""

Item = TypeVar("Item")
Reply = TypeVar("Reply")


def flow(
    *,
    width: int,
    claim: Callable[[int], Sequence[Item]],
    call: Callable[[Item], Reply],
    record: Callable[[Sequence[Reply]], None],
    go_on: Callable[[], bool],
    linger: Callable[[], bool],
) -> int:
    """Run until nothing is due (or `go_on` says stop), then let the calls under way end; returns calls made.

    Args:
        claim: takes the number of free places, returns at most so many items.
        call: runs in a thread; must turn every failure into a reply of its own.
        record: writes a set of replies; tried again while the database is away.
        go_on: False once the lane should stop claiming.
        linger: whether to wait for more although nothing was claimed (the window is full, say).
    """
    made, pause = 0, IDLE[0]
    flying: set[Future[Reply]] = set()
    with ThreadPoolExecutor(width) as pool:
        while True:
            items = claim(width - len(flying)) if len(flying) < width and go_on() else ()
            flying.update(pool.submit(call, item) for item in items)
            made += len(items)
            if not flying:
                if not (go_on() and linger()):
                    return made
                time.sleep(pause)
                pause = min(2 * pause, IDLE[1])
                continue
            pause = IDLE[0] if items else min(2 * pause, IDLE[1])
            done = _landed(flying, timeout=IDLE[1] if len(flying) == width else pause)
            flying -= done
            if done:
                _record_patiently(record, [future.result() for future in done])


def _landed(flying: set[Future[Reply]], *, timeout: float) -> set[Future[Reply]]:
    done, _ = wait(flying, timeout=timeout, return_when=FIRST_COMPLETED)
    if done and len(done) < len(flying):
        time.sleep(GATHER)
        done = {future for future in flying if future.done()}
    return done


def _record_patiently(record: Callable[[Sequence[Reply]], None], replies: Sequence[Reply]) -> None:
    give_up = time.monotonic() + RECORD_AGAIN_FOR
    delay = 0.1
    while True:
        try:
            return record(replies)
        except DBAPIError as error:
            if time.monotonic() + delay > give_up:
                raise
            log.warning("not_recorded_yet", replies=len(replies), reason=str(error.orig).strip().splitlines()[:1])
            time.sleep(delay)
            delay = min(2 * delay, 2.0)
