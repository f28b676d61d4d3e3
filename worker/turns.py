"""Turns of lanes that share a worker: none of them takes another's thread."""

from collections.abc import Callable
from threading import Lock, Semaphore


class Turns:
    """The turns of one lane in one worker: `at_once` may run, and one more may wait.

    A worker runs its messages in the order in which they come. A lane that is busy for minutes gets a message every
    second; had each of them a thread, none would be left for the other lanes.
    """

    def __init__(self, at_once: int) -> None:
        self._running, self._waiting = Semaphore(at_once), Lock()

    def run(self, turn: Callable[[], None]) -> None:
        """Run a turn, at once or after one that runs; not at all where another waits already: it finds the same."""
        if not self._waiting.acquire(blocking=False):
            return
        try:
            self._running.acquire()
        finally:
            self._waiting.release()
        try:
            turn()
        finally:
            self._running.release()


def threads_for(turns_at_once: list[int]) -> int:
    """How many threads a worker needs so that each of its lanes may run, and wait, whatever the others do."""
    return sum(turns + 1 for turns in turns_at_once)
