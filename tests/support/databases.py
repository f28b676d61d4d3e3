"""A database for each test, with the schema at head and nothing in it: the one of the test before, emptied.

To clone the template for each would cost more CPU than most tests do. Emptied, a database is as the clone was, down to
the numbers of its sequences; one whose schema a test has changed, or that has grown, is dropped instead.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from tests.support.kept_connections import KEPT

NUMBERS = count()
GROWN = 2_000_000
"""Bytes of dead rows, about, with which queries would be slow."""
OURS = "SELECT c.oid FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace"
SCHEMA = f"""
SELECT (SELECT (count(*), max(c.xmin::text::bigint)) FROM pg_class c WHERE c.oid IN ({OURS})),
       (SELECT (count(*), max(a.xmin::text::bigint)) FROM pg_attribute a WHERE a.attrelid IN ({OURS})),
       (SELECT (count(*), max(s.xmin::text::bigint)) FROM pg_statistic s WHERE s.starelid IN ({OURS})),
       (SELECT (count(*), max(t.xmin::text::bigint)) FROM pg_trigger t WHERE t.oid >= 16384),
       (SELECT (count(*), max(c.xmin::text::bigint)) FROM pg_constraint c WHERE c.oid >= 16384),
       (SELECT (count(*), max(p.xmin::text::bigint)) FROM pg_proc p WHERE p.oid >= 16384),
       (SELECT (count(*), max(r.xmin::text::bigint)) FROM pg_rewrite r WHERE r.oid >= 16384),
       (SELECT (count(*), max(d.xmin::text::bigint)) FROM pg_default_acl d),
       (SELECT (count(*), max(n.xmin::text::bigint)) FROM pg_namespace n WHERE n.nspname NOT LIKE 'pg\\_%'),
       (SELECT (count(*), max(s.xmin::text::bigint)) FROM pg_db_role_setting s),
       (SELECT (count(*), max(d.xmin::text::bigint)) FROM pg_database d WHERE d.datname = current_database())
"""
"""What changes whenever a table, view, function, trigger, right, setting or statistic does, and with no row of ours.

What PostgreSQL itself brings has lower numbers than 16384.
"""
SIZE = "SELECT sum(pg_relation_size(c.oid)) FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace"
END_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
AND pid <> pg_backend_pid() AND pid <> ALL(%s)
"""
TABLES = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"
RESTART_SEQUENCES = "SELECT setval(seqrelid, seqstart, false) FROM pg_sequence"


class Databases:
    """The databases of one server."""

    def __init__(self, url: str, template: str) -> None:
        self._url, self._template = url, template
        self._spare: dict[str, Any] = {}
        self._cleaners: dict[str, psycopg.Connection[Any]] = {}
        with self._connect(template) as connection:
            self._empty = make_empty(connection)

    @contextmanager
    def lend(self) -> Iterator[str]:
        """The URL of a database that is as the migrations made it; nobody else has it meanwhile."""
        name, schema = self._spare.popitem() if self._spare else self._create()
        yield database_named(self._url, name)
        if self._cleans(name, schema):
            self._spare[name] = schema
        else:
            self._close(name)
            self._run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def close(self) -> None:
        """End what is connected to them."""
        for name in list(self._cleaners):
            self._close(name)

    def _close(self, name: str) -> None:
        KEPT.close(name)
        if cleaner := self._cleaners.pop(name, None):
            cleaner.close()

    def _create(self) -> tuple[str, Any]:
        name = f"test_{next(NUMBERS)}"
        self._run(f"CREATE DATABASE {name} TEMPLATE {self._template}")
        with self._connect(name) as connection:
            return name, connection.execute(SCHEMA).fetchone()

    def _cleans(self, name: str, schema: Any) -> bool:
        """Empty it and leave nobody in it; False where it is no more what it was."""
        try:
            if name not in self._cleaners:
                self._cleaners[name] = self._connect(name)
            cleaner = self._cleaners[name]
            cleaner.execute(END_SESSIONS, (KEPT.pids(name),))
            if cleaner.execute(SCHEMA).fetchone() != schema or cleaner.execute(SIZE).fetchone() > (GROWN,):
                return False
            cleaner.execute(self._empty)
        except psycopg.Error:
            return False
        return True

    def _connect(self, name: str) -> psycopg.Connection[Any]:
        return psycopg.connect(database_named(self._url, name), autocommit=True, options="-c lock_timeout=5s")

    def _run(self, statement: str) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(statement)


def make_empty(connection: psycopg.Connection[Any]) -> sql.Composed:
    """What empties a clone of this database in one transaction: the rows of the migrations come back, all others go."""
    statements: list[sql.Composable] = [
        sql.SQL("SET LOCAL session_replication_role = replica"),  # no trigger counts what goes, or minds the order
    ]
    for (name,) in connection.execute(TABLES).fetchall():
        table = sql.Identifier(name)
        statements.append(sql.SQL("DELETE FROM {}").format(table))
        found = connection.execute(sql.SQL("SELECT jsonb_agg(t)::text FROM {} t").format(table)).fetchone()
        if found and found[0]:
            into = "INSERT INTO {0} SELECT * FROM jsonb_populate_recordset(NULL::{0}, {1}::jsonb)"
            statements.append(sql.SQL(into).format(table, sql.Literal(found[0])))
    statements += [sql.SQL(RESTART_SEQUENCES), sql.SQL("SELECT pg_stat_reset()")]
    return sql.SQL("BEGIN; {}; COMMIT").format(sql.SQL("; ").join(statements))


def database_named(url: str, name: str) -> str:
    """The same server's database of that name."""
    return make_url(url).set(database=name).render_as_string(hide_password=False)
