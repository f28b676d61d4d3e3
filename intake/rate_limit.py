"""How often one client may ask. Counted in memory: one process serves the API."""

import time
from math import ceil

from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter


class RateLimit:
    """A number of requests per time, for each client by itself."""

    def __init__(self, rate: str) -> None:
        self._rate = parse(rate)
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def wait(self, who: str) -> int:
        """Seconds until `who` may ask again; 0: this request is one of those allowed."""
        if self._limiter.hit(self._rate, who):
            return 0
        return max(1, ceil(self._limiter.get_window_stats(self._rate, who).reset_time - time.time()))
