"""When does another thread wait in the database? Then a test goes on, and not after some time."""

import threading
import time

from sqlalchemy import Engine

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
LONGEST = 60.0
"""Seconds, on a busy machine."""


def wait_for_a_lock(engine: Engine, thread: threading.Thread) -> None:
    """Until somebody waits for a lock, or the thread is through."""
    deadline = time.monotonic() + LONGEST
    while thread.is_alive():
        with engine.connect() as connection:
            if connection.exec_driver_sql(WAITING).scalar():
                return
        assert time.monotonic() < deadline, "nobody waits for a lock"
        time.sleep(0.01)
