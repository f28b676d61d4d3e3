"""Count what was turned away, by hour and reason, without letting a stranger write to the database at will.

Counts are gathered in memory and written at most once a second, whatever arrives; nothing else of a rejected
delivery is kept.
"""

import threading
from collections import Counter

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from models.queries.callbacks import COUNT_REJECTED

log = structlog.get_logger()

WRITE_EVERY = 1.0
"""Seconds."""


class Rejections:
    """Counts per reason, on their way into `rejected_callbacks`. Safe for threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._timer: threading.Timer | None = None

    def count(self, reason: str) -> None:
        """One more delivery turned away for `reason`."""
        with self._lock:
            self._counts[reason] += 1
            self._schedule()

    def write(self) -> None:
        """Write what was counted so far; what cannot be written now is kept for the next time."""
        with self._lock:
            counts, self._counts, self._timer = self._counts, Counter(), None
        if not counts:
            return
        try:
            with self._engine.begin() as connection:
                for reason, count in counts.items():
                    connection.exec_driver_sql(
                        COUNT_REJECTED,
                        (reason, count),
                    )
        except SQLAlchemyError as error:
            log.warning("rejections_not_written", reason=type(error).__name__, counts=dict(counts))
            with self._lock:
                self._counts.update(counts)
                self._schedule()

    def _schedule(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(WRITE_EVERY, self.write)
            self._timer.daemon = True
            self._timer.start()
