"""One SQLite file under the state folder: what must survive a restart, and commits that many callers share.

All statements run on the event loop's thread; each takes tens of microseconds. Whoever must not answer before
the disk knows awaits `committed()`: everything written in the same turn of the loop shares one commit. It
survives the death of the process, not the loss of power; nobody's money depends on an emulator.
"""

import asyncio
import fcntl
import logging
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

log = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id TEXT NOT NULL UNIQUE,
    endpoint_id TEXT NOT NULL,
    app_id TEXT NOT NULL,
    origin TEXT NOT NULL,
    webhook_url TEXT,
    seed INTEGER,
    low_priority INTEGER NOT NULL,
    start_by REAL,
    no_retry INTEGER NOT NULL,
    store_io INTEGER NOT NULL,
    direct INTEGER NOT NULL,
    lifecycle TEXT,
    headers TEXT NOT NULL,
    markers TEXT NOT NULL,
    injected TEXT NOT NULL,
    submitted_at REAL NOT NULL,
    started_at REAL,
    ended_at REAL,
    attempts INTEGER NOT NULL,
    gateway_request_id TEXT NOT NULL,
    cancelled_at REAL,
    status INTEGER,
    error TEXT,
    error_type TEXT,
    timeout_type TEXT,
    needs_retry INTEGER,
    inference_time REAL,
    images TEXT NOT NULL,
    billed_units INTEGER NOT NULL,
    result_bytes INTEGER NOT NULL,
    webhook_state TEXT NOT NULL,
    webhook_tries INTEGER NOT NULL,
    webhook_status INTEGER,
    webhook_signed_at INTEGER,
    delivered_at REAL,
    -- both directions: a request is finished exactly when it has a time and a status for it
    CHECK ((ended_at IS NULL) = (status IS NULL)),
    CHECK (billed_units = 0 OR ended_at IS NOT NULL)
);
-- what a restart picks up again
CREATE INDEX IF NOT EXISTS unfinished ON requests (seq) WHERE ended_at IS NULL;
CREATE INDEX IF NOT EXISTS undelivered ON requests (seq) WHERE webhook_state = 'pending';
-- by-endpoint, newest first; the second one also finds payloads past their time
CREATE INDEX IF NOT EXISTS finished ON requests (endpoint_id, ended_at, seq) WHERE ended_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS ended ON requests (ended_at, seq) WHERE ended_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS payloads (seq INTEGER PRIMARY KEY, input BLOB, output BLOB);
-- for auditors: what each request was accepted for, and how often its result and its files were served
CREATE TABLE IF NOT EXISTS input_hashes (seq INTEGER PRIMARY KEY, sha256 TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS reads (
    request_id TEXT NOT NULL, item TEXT NOT NULL, intact INTEGER NOT NULL, spoilt INTEGER NOT NULL, first_at REAL,
    PRIMARY KEY (request_id, item)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY,
    request_id TEXT,
    markers TEXT NOT NULL,
    content_type TEXT NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    acl TEXT NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL
);
CREATE INDEX IF NOT EXISTS expiring ON files (expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS uploads (
    upload_id TEXT PRIMARY KEY, path TEXT NOT NULL, content_type TEXT NOT NULL, lifecycle TEXT, created_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS keys (
    kid TEXT PRIMARY KEY, seed BLOB NOT NULL, created_at REAL NOT NULL, published INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS faults (kind TEXT PRIMARY KEY, drawn INTEGER NOT NULL, injected INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""

CHECKPOINT_EVERY = 2.0  # seconds; done beside the loop, because a checkpoint waits for the disk


class StateInUse(Exception):
    """Another emulator already works with this state folder."""


class Store:
    """The open database, and the lock that keeps a second process away from it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "emulator.sqlite"
        self._lock = _lock(folder / "lock")
        self._db = sqlite3.connect(self._path, isolation_level=None, cached_statements=256)
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "wal_autocheckpoint=0"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(f"BEGIN; {SCHEMA} COMMIT;")  # one wait for the disk, not one per table
        self._pending: asyncio.Future[None] | None = None

    def write(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run a statement inside the commit that is now forming."""
        if self._pending is None:
            loop = asyncio.get_running_loop()
            self._db.execute("BEGIN IMMEDIATE")
            self._pending = loop.create_future()
            loop.call_soon(self._commit)
        return self._db.execute(sql, values)

    async def committed(self) -> None:
        """Return when everything written so far is on its way to survive the process."""
        if self._pending is not None:
            await asyncio.shield(self._pending)

    def one(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """The first row, or None."""
        return self._db.execute(sql, values).fetchone()

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows; callers put a LIMIT where the table grows."""
        return self._db.execute(sql, values).fetchall()

    def each(self, sql: str, values: Sequence[Any] = ()) -> Iterable[Any]:
        """Rows one by one."""
        return self._db.execute(sql, values)

    def setting(self, name: str) -> str | None:
        """What a client once set for the account."""
        row = self.one("SELECT value FROM settings WHERE name = ?", (name,))
        return str(row[0]) if row else None

    def keep_setting(self, name: str, value: str) -> None:
        """Set it."""
        self.write("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    def _commit(self) -> None:
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            log.error("commit failed: %s", error)
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            pending.set_exception(error)
            pending.exception()  # somebody may await it; nobody has to
        else:
            pending.set_result(None)

    async def checkpoint_forever(self) -> None:
        """Fold the write-ahead log into the file, in a thread, for as long as the app runs."""
        while True:
            await asyncio.sleep(CHECKPOINT_EVERY)
            await asyncio.to_thread(self._checkpoint)

    def _checkpoint(self) -> None:
        side = sqlite3.connect(self._path, isolation_level=None)
        try:
            side.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:
            log.warning("checkpoint put off: %s", error)
        finally:
            side.close()

    def close(self) -> None:
        """Commit what is left and let the next process in."""
        self._commit()
        self._db.close()
        self._lock.close()


def _lock(path: Path) -> TextIO:
    handle = path.open("w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        raise StateInUse(f"another emulator is using {path.parent}") from error
    return handle
