"""What tests are lent: a database that shows nothing of the test before, whatever that one did to it."""

from contextlib import closing

import psycopg
import pytest

from models.database import make_engine
from tests.support.databases import Databases
from tests.support.factories import make_batch

ROWS = "SELECT kind, removed, due_at FROM retention ORDER BY 1"


KEPT_BY_A_SESSION = """
SELECT pg_backend_pid(), current_setting('jit'), current_user, ARRAY(SELECT pg_listening_channels()),
       (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
       (SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND pg_table_is_visible(oid))
"""


def run(url: str, statement: str) -> list[tuple]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def fill(url: str, edits: int) -> None:
    engine = make_engine(url, application="darkroom test")
    with engine.begin() as connection:
        make_batch(connection, edits)
    engine.dispose()


def name_of(url: str) -> tuple:
    return run(url, "SELECT current_database()")[0]


def test_rows_go_and_those_of_the_migrations_come_back(databases: Databases) -> None:
    """Numbers begin anew, and nobody is left in it who could write."""
    with databases.lend() as url:
        before, name = run(url, ROWS), name_of(url)
        first = run(url, "SELECT nextval('edits_id_seq')")
        fill(url, 2)
        run(url, "DELETE FROM retention; DELETE FROM alembic_version")
        left = psycopg.connect(url)
        left.execute("LOCK TABLE edits")
    with closing(left), databases.lend() as url:
        assert name_of(url) == name
        assert (run(url, ROWS), run(url, "SELECT nextval('edits_id_seq')")) == (before, first)
        assert run(url, "SELECT (SELECT count(*) FROM edits), (SELECT count(*) FROM alembic_version)") == [(0, 1)]
        with pytest.raises(psycopg.OperationalError):
            left.execute("SELECT 1")


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE edits SET (fillfactor = 50)",
        "ALTER TABLE edits ALTER COLUMN seed SET DEFAULT 1",
        "ALTER TABLE edits DISABLE TRIGGER ALL",
        "ALTER TABLE edits DROP CONSTRAINT edits_pkey CASCADE",
        "GRANT SELECT (id) ON edits TO PUBLIC",
        "DROP VIEW overdue",
        "CREATE FUNCTION more() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA more",
        "ANALYZE retention",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET jit = off', current_database()); END $$",
    ],
)
def test_one_that_is_no_more_what_it_was_is_lent_to_nobody(databases: Databases, change: str) -> None:
    with databases.lend() as url:
        name = name_of(url)
        run(url, change)
    with databases.lend() as url:
        assert name_of(url) != name


def test_one_that_has_grown_is_lent_to_nobody(databases: Databases) -> None:
    """Dead rows would be in the way of every test that comes later."""
    with databases.lend() as url:
        name = name_of(url)
        fill(url, 5_000)
    with databases.lend() as url:
        assert name_of(url) != name


def use(url: str, *statements: str) -> tuple:
    """What a new engine's connection sees: its process, and what a session may keep; then it does these."""
    engine = make_engine(url, application="darkroom test")
    with engine.begin() as connection:
        found = connection.exec_driver_sql(KEPT_BY_A_SESSION).one()
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()
    return tuple(found)


def test_a_connection_is_kept_and_nothing_of_its_user(databases: Databases) -> None:
    """Settings, the role, temporary tables, locks and channels end with the engine, as they do with a connection."""
    with databases.lend() as url:
        pid, *fresh = use(url)
        changes = "SET jit = off", "CREATE TEMP TABLE mine (id int)", "SELECT pg_advisory_lock(1)", "LISTEN mine"
        assert use(url, *changes, "SET ROLE pg_monitor") == (pid, *fresh)
        assert use(url) == (pid, *fresh)
    with databases.lend() as url:
        assert use(url) == (pid, *fresh)


def test_a_connection_that_was_ended_or_left_in_the_middle_is_not_kept(databases: Databases) -> None:
    with databases.lend() as url:
        pid, *_ = use(url)
        run(url, f"SELECT pg_terminate_backend({pid}, 60000)")
        other, *_ = use(url)
        assert other != pid
        engine = make_engine(url, application="darkroom test")
        left = engine.raw_connection()
        assert left.driver_connection.info.backend_pid == other
        left.driver_connection.execute("LOCK TABLE edits")
        left.driver_connection.close()
        left.invalidate()
        engine.dispose()
        assert use(url)[0] != other
