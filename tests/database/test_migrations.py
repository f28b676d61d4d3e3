"""The ladder: up, down and up again, one head, no drift, and what Alembic cannot see."""

import os
import subprocess
import sys

import psycopg
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from cli.migrate import _config, current, newest, upgrade
from core.errors import DatabaseError
from models.database import check_schema, make_engine
from models.monitoring import VIEWS, create_views, drop_views
from models.states import EditState, Effect, ImageState, Outcome
from models.tables import metadata
from tests.support.databases import database_named
from tests.support.factories import make_batch, make_submitted


@pytest.fixture
def empty_url(postgres_url: str):
    """A database with nothing in it."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE ladder")
        yield database_named(postgres_url, "ladder")
        connection.execute("DROP DATABASE ladder WITH (FORCE)")


def objects(url: str) -> list[tuple[str, ...]]:
    """Everything of ours in the database: tables, views, indexes, columns."""
    with psycopg.connect(url) as connection:
        return connection.execute(
            """
            SELECT c.relname, c.relkind::text, coalesce(pg_get_viewdef(c.oid), ''), a.attname,
                   format_type(a.atttypid, a.atttypmod)
            FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
            WHERE c.relnamespace = 'public'::regnamespace AND c.relname <> 'alembic_version'
              AND c.relname <> 'alembic_version_pkc'
            ORDER BY 1, 4
            """
        ).fetchall()


def storage_parameters(url: str) -> dict[str, dict[str, str]]:
    """What PostgreSQL holds for each table that has any."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT relname, reloptions FROM pg_class WHERE relkind = 'r' AND reloptions IS NOT NULL"
            " AND relnamespace = 'public'::regnamespace"
        ).fetchall()
    return {table: dict(option.split("=") for option in options) for table, options in rows}


def test_up_down_up(empty_url: str) -> None:
    """From nothing to the newest, back to nothing, and up again to exactly the same. Autovacuum is set as
    `models/tables/` says, which Alembic does not compare; going down takes only that back."""
    upgrade(empty_url)
    first = objects(empty_url)
    written = {
        table.name: {name: str(value) for name, value in table.dialect_options["postgresql"]["with"].items()}
        for table in metadata.tables.values()
        if table.dialect_options["postgresql"]["with"]
    }
    assert storage_parameters(empty_url) == written
    assert written["edits"]["autovacuum_vacuum_scale_factor"] == "0.01"
    command.downgrade(_config(empty_url), "0008")
    counters = ("batch_counters", "error_counters", "callback_counters")
    assert storage_parameters(empty_url) == {table: {"fillfactor": "50"} for table in counters}
    command.downgrade(_config(empty_url), "base")
    assert objects(empty_url) == []
    upgrade(empty_url)
    assert objects(empty_url) == first
    assert current(empty_url) == newest()


def test_rows_of_the_release_before(empty_url: str) -> None:
    """A result without a deadline gets one; two images under one key, and a set that is kept, are told apart."""
    command.upgrade(_config(empty_url), "0003")
    with psycopg.connect(empty_url) as connection:
        connection.execute(
            """
            INSERT INTO batches (endpoint, edit_count) VALUES ('e', 1);
            INSERT INTO edits (batch_id, position, arguments, seed, state, due_at, finished_at)
                SELECT id, 0, '{}', 1, 'failed', NULL, now() FROM batches;
            INSERT INTO submissions (id, edit_id, attempt, request_id, accepted_at, outcome, learned_by, completed_at,
                                     images_returned, cost, doubled, due_at)
                SELECT v.id, e.id, v.attempt, v.attempt::text, now(), v.outcome, v.learned, v.done, v.n, v.n * 0.03,
                       v.doubled, CASE WHEN v.outcome IS NULL THEN now() END
                FROM edits e, (VALUES
                    (gen_random_uuid(), 1, 'succeeded', 'poll', now() + interval '1 min', 1, true),
                    (gen_random_uuid(), 2, 'succeeded', 'poll', now(), 1, false),
                    (gen_random_uuid(), 3, NULL, NULL, NULL, NULL, false)
                ) AS v (id, attempt, outcome, learned, done, n, doubled);
            INSERT INTO images (submission_id, index, state, url, due_at, stored_at, storage_key, sha256, stored_bytes,
                                stored_type)
                SELECT id, 0, 'stored', '', NULL, now() - attempt * interval '1 min', 'k', attempt::text, 1, 't'
                FROM submissions WHERE outcome = 'succeeded';
            """
        )
    upgrade(empty_url)
    with psycopg.connect(empty_url) as connection:
        rows = connection.execute(
            "SELECT attempt, set_number, doubled, result_lost_after > accepted_at FROM submissions ORDER BY attempt"
        ).fetchall()
        assert rows == [(1, 1, False, True), (2, None, True, True), (3, None, False, True)]
        kept = connection.execute("SELECT sha256 FROM images WHERE storage_key = 'k'").fetchall()
        assert kept == [("1",)]
    command.downgrade(_config(empty_url), "base")


def test_one_head() -> None:
    """The ladder has one top."""
    assert len(ScriptDirectory.from_config(_config("")).get_heads()) == 1


def test_no_drift(database_url: str) -> None:
    """The migrated schema is what models/tables/ declares."""
    command.check(_config(database_url))


def test_views_are_as_declared(engine: Engine, database_url: str) -> None:
    """Every declared view is there, as declared, and no other."""
    migrated = [row for row in objects(database_url) if row[1] == "v"]
    assert {row[0] for row in migrated} == set(VIEWS)
    with engine.begin() as connection:
        drop_views(connection)
        create_views(connection)
    assert [row for row in objects(database_url) if row[1] == "v"] == migrated


def test_every_word_fits(engine: Engine) -> None:
    """Every state, outcome and effect of states.py can be written, and no other word."""
    with engine.begin() as connection:
        (submission,) = make_submitted(connection)
        for state in EditState:
            final = (
                "NULL, finished_at = now()"
                if state in ("stored", "failed", "cancelled")
                else "now(), finished_at = NULL"
            )
            connection.exec_driver_sql(f"UPDATE edits SET state = '{state}', due_at = {final}")
        connection.exec_driver_sql("UPDATE submissions SET images_returned = 1")
        for outcome in Outcome:
            learned = "NULL" if outcome is Outcome.UNKNOWN else "'poll'"
            connection.exec_driver_sql(
                f"UPDATE submissions SET outcome = '{outcome}', learned_by = {learned}, due_at = NULL"
            )
        for effect in Effect:
            connection.exec_driver_sql(
                """
                INSERT INTO callbacks (effect, token, signed_at, headers, body, sha256)
                VALUES (%s, '', now(), '{}', '', '')
                """,
                (effect.value,),
            )
        for number, state in enumerate(ImageState):
            connection.exec_driver_sql(
                """
                INSERT INTO images (submission_id, index, state, url,
                                    due_at, stored_at, storage_key, sha256, stored_bytes, stored_type)
                SELECT %s, %s, %s, '', CASE WHEN s.waiting THEN now() END, CASE WHEN s.stored THEN now() END,
                       CASE WHEN s.stored THEN 'k' END, CASE WHEN s.stored THEN 'h' END, CASE WHEN s.stored THEN 1 END,
                       CASE WHEN s.stored THEN 't' END
                FROM (SELECT %s = 'waiting' AS waiting, %s = 'stored' AS stored) s
                """,
                (submission.id, number, state.value, state.value, state.value),
            )


@pytest.mark.parametrize(
    "nonsense",
    [
        "UPDATE edits SET state = 'sleeping'",
        "UPDATE edits SET due_at = NULL",
        "UPDATE edits SET state = 'stored'",
        "UPDATE submissions SET outcome = 'failed'",
        "UPDATE submissions SET doubled = true",
        "UPDATE submissions SET accepted_at = NULL",
        "UPDATE batches SET edit_count = 0",
    ],
)
def test_nonsense_is_refused(engine: Engine, nonsense: str) -> None:
    """The constraints hold "exactly when", in both directions."""
    with engine.begin() as connection:
        make_submitted(connection)
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.exec_driver_sql(nonsense)


def test_database_without_schema_is_one_sentence(empty_url: str) -> None:
    """A database without our schema, or none at all, is said so, with the command to run."""
    empty = make_engine(empty_url, application="test")
    with pytest.raises(DatabaseError, match=r"run `darkroom migrate`"):
        check_schema(empty, newest())
    empty.dispose()
    with pytest.raises(DatabaseError, match="cannot be reached"):
        check_schema(make_engine("postgresql://nobody@127.0.0.1:1/x", application="test"), newest())


def test_migrating_twice_at_once(empty_url: str) -> None:
    """Two processes that migrate at the same moment take turns; the second finds nothing to do."""
    command = [sys.executable, "-m", "cli.main", "migrate"]
    environment = {**os.environ, "DATABASE_URL": empty_url}
    both = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert current(empty_url) == newest()


def test_batches_survive_a_view_change(engine: Engine) -> None:
    """Recreating the views touches no row."""
    with engine.begin() as connection:
        make_batch(connection, 3)
        drop_views(connection)
        create_views(connection)
        assert connection.exec_driver_sql("SELECT edits FROM batch_progress").scalar() == 3
