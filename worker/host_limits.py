"""How many downloads of each host are under way, and which hosts answer nobody.

A host that is slow, or dead, holds its own places and no others; no thread ever waits for a place.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterable


class HostSlots:
    """The places of one run of the lane: at most `most` for any one host. Safe for threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._under_way: Counter[str] = Counter()
        self._lock = threading.Lock()

    def begin(self, host: str) -> None:
        """A download of the host is under way from now on; '' is no host."""
        if host:
            with self._lock:
                self._under_way[host] += 1

    def end(self, host: str) -> None:
        """One is over."""
        with self._lock:
            self._under_way[host] -= 1
            if self._under_way[host] <= 0:
                del self._under_way[host]

    def full(self) -> list[str]:
        """Hosts of which no more may begin."""
        with self._lock:
            return [host for host, count in self._under_way.items() if count >= self._most]

    def count_free(self, closed: Iterable[str]) -> int:
        """How many may begin, if all of them should be of one host that is not closed."""
        with self._lock:
            return self._most - max((n for host, n in self._under_way.items() if host not in closed), default=0)


class SilentHosts:
    """Hosts that have answered nobody for so long that who waits for them has waited enough. Safe for threads.

    Else every input of a dead host would be tried by itself, and a batch of many would wait for days.
    """

    def __init__(self, enough: float = 60.0) -> None:
        """`enough`: seconds; and so often one try is let through, to see whether a host answers again."""
        self._enough = enough
        self._since: dict[str, float] = {}
        self._tried: dict[str, float] = {}
        self._lock = threading.Lock()

    def note(self, host: str, *, answered: bool) -> None:
        """What came of a try."""
        with self._lock:
            if answered:
                self._since.pop(host, None)
                self._tried.pop(host, None)
            else:
                now = time.monotonic()
                self._since.setdefault(host, now)
                self._tried[host] = now

    def is_silent(self, host: str) -> bool:
        """Whether it need not be tried now."""
        with self._lock:
            now = time.monotonic()
            if host not in self._since or now - self._since[host] < self._enough:
                return False
            if now - self._tried[host] < self._enough:
                return True
            self._tried[host] = now
            return False
