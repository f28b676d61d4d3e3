"""Connections to lent databases outlive the engines that made them.

What a new process of the server has to learn of tables and plans costs as much CPU as most tests do. So an engine that
is disposed of gives its connections back here, and the next one of the same address and name takes them, with the
settings they were made with. Whoever ended them, or left them in a transaction, ended them for good.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from models.database import Connector

Connection = psycopg.Connection[Any]
LENT = "test_"
"""What the names of lent databases begin with."""
AS_MADE = "RESET SESSION AUTHORIZATION; RESET ALL; DISCARD TEMP; UNLISTEN *; SELECT pg_advisory_unlock_all()"
"""What takes a session back to its beginning, all but its prepared statements, of which the driver knows."""


class KeptConnections:
    """Those that nobody uses at the moment."""

    def __init__(self) -> None:
        self._kept: dict[str, list[Connection]] = defaultdict(list)

    def pids(self, database: str) -> list[int]:
        """The server's processes that serve them."""
        return [found.info.backend_pid for found in self._of(database) if not found.closed]

    def close(self, database: str) -> None:
        """End those of one database."""
        for found in self._of(database):
            psycopg.Connection.close(found)
        for kept in self._kept.values():
            kept[:] = [found for found in kept if not found.closed]

    def _of(self, database: str) -> list[Connection]:
        return [found for kept in self._kept.values() for found in kept if _database(found) == database]

    def take(self, key: str) -> Connection | None:
        """One that works, as it was when it was made."""
        while self._kept[key]:
            found = self._kept[key].pop()
            with suppress(psycopg.Error):
                found.autocommit = True
                found.execute(AS_MADE)
                writes = found.execute("SHOW default_transaction_read_only").fetchone() == ("off",)
                found.autocommit = False
                if writes:
                    return found
            psycopg.Connection.close(found)
        return None

    def give_back(self, key: str, connection: Connection) -> None:
        """Instead of closing it."""
        if connection.closed or connection.info.transaction_status != TransactionStatus.IDLE:
            psycopg.Connection.close(connection)
        else:
            self._kept[key].append(connection)


KEPT = KeptConnections()


@contextmanager
def keeping_connections() -> Iterator[None]:
    """Within the block, what engines of this process connect to lent databases is kept."""
    connect = Connector.connect

    def connect_or_take(connector: Connector) -> Connection:
        key = repr((connector._parameters, connector._options))
        if not connector.pooled and (found := KEPT.take(key)):
            connector.pooled = False
            return found
        made = connect(connector)
        if not connector.pooled and _database(made).startswith(LENT):
            made.close = partial(KEPT.give_back, key, made)  # type: ignore[method-assign]
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connector, "connect", connect_or_take)
        yield


def _database(connection: Connection) -> str:
    return "" if connection.closed else connection.info.dbname
