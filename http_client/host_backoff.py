"""Which hosts asked to be left alone."""

import threading
import time


class HostBackoff:
    """Which hosts asked this process to wait. Safe for threads."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def leave_alone(self, host: str, seconds: float) -> None:
        """The host asks that nothing be fetched from it for so long."""
        until = time.monotonic() + seconds
        with self._lock:
            self._until[host] = max(until, self._until.get(host, until))

    def waiting(self) -> list[str]:
        """Hosts that are to be left alone now."""
        now = time.monotonic()
        with self._lock:
            self._until = {host: until for host, until in self._until.items() if until > now}
            return list(self._until)
