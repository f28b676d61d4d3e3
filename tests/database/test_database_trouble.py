"""Troubles of a real PostgreSQL, each provoked, and what the one deciding place makes of its SQLSTATE.

What follows from "away" for replies, the API and the commands is tested in tests/http/receiver/test_database_away.py.
"""

import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine

from cli.migrate import upgrade
from core.errors import DatabaseError
from models.database import check_schema, make_engine
from models.database_errors import DATABASE_ERRORS, explain, is_away, sqlstate
from tests.support.api_client import counts, edits, intake_app, lines, problem
from tests.support.databases import NUMBERS, database_named
from tests.support.locks import wait_for_a_lock
from tests.support.own_postgres import OwnServer, own_postgres, wheel_programs
from tests.support.running_stack import darkroom, eventually


def trouble(action: Callable[[], object], state: str | None) -> str:
    """The action fails with this SQLSTATE, which means "away"; gives the sentence for a person."""
    with pytest.raises(DATABASE_ERRORS) as failed:
        action()
    assert (sqlstate(failed.value), is_away(failed.value)) == (state, True), failed.value
    sentence = explain(failed.value)
    assert sentence is not None
    assert "\n" not in sentence
    return sentence


@contextmanager
def engine_with(url: str, **limits: str) -> Iterator[Engine]:
    engine = make_engine(url, application="test", **limits)
    try:
        yield engine
    finally:
        engine.dispose()


def run(engine: Engine, *statements: str) -> Callable[[], None]:
    """All of them in one transaction."""

    def go() -> None:
        with engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    return go


def test_timeouts_and_cancels(database_url: str) -> None:
    with engine_with(database_url, statement_timeout="100") as engine:
        assert "statement timeout" in trouble(run(engine, "SELECT pg_sleep(5)"), "57014")
    with engine_with(database_url) as engine, administering(database_url, "pg_cancel_backend", "pg_sleep(61)"):
        assert "user request" in trouble(run(engine, "SELECT pg_sleep(61)"), "57014")
    with engine_with(database_url) as engine:
        trouble(lambda: dawdle(engine), "25P03")
        run(engine, "SELECT 1")()  # on a new connection
    with engine_with(database_url, transaction_timeout="100") as engine:
        trouble(run(engine, "SELECT pg_sleep(0.05)", "SELECT pg_sleep(5)"), "25P04")
    with psycopg.connect(database_url) as other, engine_with(database_url, lock_timeout="100") as engine:
        other.execute("LOCK TABLE batches")
        trouble(run(engine, "SELECT count(*) FROM batches"), "55P03")


def dawdle(engine: Engine) -> None:
    """Say nothing in the middle of a transaction until its session has been ended for that."""

    def is_there() -> bool:
        with engine.connect() as other:
            return bool(other.exec_driver_sql("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)).scalar())

    with engine.begin() as connection:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = '100ms'")
        assert eventually(lambda: not is_there())
        connection.exec_driver_sql("SELECT 1")


@contextmanager
def administering(url: str, function: str, text: str) -> Iterator[None]:
    """Call a function of an administrator with the session that runs a statement like this, once there is one."""
    query = f"SELECT {function}(pid) FROM pg_stat_activity WHERE query LIKE %s AND pid <> pg_backend_pid()"

    def administer() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            eventually(lambda: connection.execute(query, (f"SELECT {text}%",)).fetchall())

    thread = threading.Thread(target=administer)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_ended_by_an_administrator(database_url: str) -> None:
    with engine_with(database_url) as engine:
        with administering(database_url, "pg_terminate_backend", "pg_sleep(62)"):
            trouble(run(engine, "SELECT pg_sleep(62)"), "57P01")
        run(engine, "SELECT 1")()


def test_a_deadlock_and_a_serialization_failure(database_url: str) -> None:
    """Of two transactions one is chosen; it may be tried again."""
    rows = ("UPDATE lane SET n = n + 1 WHERE id = 1", "UPDATE lane SET n = n + 1 WHERE id = 2")
    with engine_with(database_url) as engine:
        run(engine, "CREATE TABLE lane (id int, n int)", "INSERT INTO lane VALUES (1, 0), (2, 0)")()
        with engine.connect() as other, other.begin():
            other.exec_driver_sql("SET LOCAL deadlock_timeout = '60s'")  # so that ours is the one chosen
            other.exec_driver_sql(rows[0])

            def cross() -> None:
                with engine.begin() as connection:
                    connection.exec_driver_sql("SET LOCAL deadlock_timeout = '100ms'")
                    connection.exec_driver_sql(rows[1])
                    thread = threading.Thread(target=other.exec_driver_sql, args=(rows[1],))
                    thread.start()
                    wait_for_a_lock(engine, thread)
                    try:
                        connection.exec_driver_sql(rows[0])
                    finally:
                        connection.rollback()
                        thread.join(60)

            trouble(cross, "40P01")
    with engine_with(database_url, default_transaction_isolation="serializable") as engine, engine.begin() as ours:
        ours.exec_driver_sql("SELECT n FROM lane")
        run(engine, rows[0])()
        trouble(lambda: ours.exec_driver_sql(rows[0]), "40001")


@pytest.fixture(scope="module")
def small() -> Iterator[OwnServer]:
    """Three connections for everybody, and two that only an administrator gets."""
    settings = {"max_connections": "5", "superuser_reserved_connections": "2", "max_worker_processes": "0"}
    with own_postgres(wheel_programs(), **settings) as server:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("CREATE ROLE someone LOGIN")
        yield server


def test_no_connection_is_free(small: OwnServer) -> None:
    """It is refused before there is a session; libpq then knows no SQLSTATE, and the class decides."""
    url = small.url().replace("postgres@", "someone@")
    others = [psycopg.connect(url) for _ in range(3)]
    with engine_with(url) as engine:
        assert "remaining connection slots" in trouble(lambda: engine.connect(), None)
        others.pop().close()
        assert eventually(lambda: succeeds(run(engine, "SELECT 1")), within=60)
    for other in others:
        other.close()


def succeeds(action: Callable[[], object]) -> bool:
    with suppress(*DATABASE_ERRORS):
        action()
        return True
    return False


def test_a_server_that_crashes_shuts_down_and_starts(small: OwnServer) -> None:
    with engine_with(small.url()) as engine, engine.connect() as kept:
        victim = psycopg.connect(small.url())
        # PostgreSQL then ends every session and recovers; its 57P02 is a warning, the error is the end of the line
        os.kill(victim.info.backend_pid, signal.SIGKILL)
        trouble(lambda: [kept.exec_driver_sql("SELECT pg_sleep(0.05)") for _ in range(1200)], None)
        victim.close()
        assert eventually(lambda: succeeds(run(engine, "SELECT 1")))
    with psycopg.connect(small.url()), engine_with(small.url()) as engine:
        small.process.send_signal(signal.SIGTERM)  # it waits for the session
        assert eventually(lambda: not succeeds(run(engine, "SELECT 1")))
        assert "shutting down" in trouble(lambda: engine.connect(), None)
        with pytest.raises(DatabaseError, match="shutting down"):
            check_schema(engine, "0001")


def test_a_server_that_starts_up_takes_nobody_yet() -> None:
    """A standby that may not be read says the same for as long as it is one."""
    with own_postgres(wheel_programs(), hot_standby="off", wal_level="replica") as server:
        server.restart(standby=True)
        with engine_with(server.url()) as engine:

            def says() -> str:
                return trouble(lambda: engine.connect(), None)

            assert eventually(lambda: "refused" not in says(), within=60)
            assert "starting up" in says() or "not accepting connections" in says()
        with engine_with(server.url()) as engine:
            said = trouble(lambda: engine.connect(), None)
    assert "starting up" in said or "not accepting connections" in said


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of this size; skips the test where none may be mounted."""
    command = ("mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder))
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no small disk can be mounted here, which needs root: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(("umount", "-l", str(folder)), check=True)


def test_a_full_disk(postgres_url: str, tmp_path: Path) -> None:
    """The tables lie on a disk of their own, which somebody fills: commands and the API say so, and nothing is half
    written; once there is room again everything goes on."""
    manifest = tmp_path / "many.jsonl"
    manifest.write_bytes(lines(*edits(3000, prompt="p" * 1000)))
    with (
        tempfile.TemporaryDirectory(prefix="darkroom-disk-") as place,
        small_disk(Path(place), "64m") as disk,
        database_on(postgres_url, disk) as url,
    ):
        submit, settings = ("submit", str(manifest)), {"DATABASE_URL": url, "REDIS_URL": "redis://127.0.0.1:1/0"}
        fill(disk / "full")
        said = darkroom(*submit, **settings)
        assert (said.returncode, said.stderr.count("\n")) == (2, 1), said.stderr
        assert "has no room left on its disk" in said.stderr
        with intake_app(url) as app:
            client = app.test_client()
            response = client.post("/v1/batches", json={"edits": edits(2000, prompt="p" * 1000)})
            assert "nothing was written" in problem(response, 503)["detail"]
            with engine_with(url) as engine:
                big = "CREATE TABLE big AS SELECT repeat('x', 1000) FROM generate_series(1, 9999)"
                trouble(run(engine, big), "53100")
                assert counts(engine) == (0, 0)
            (disk / "full").unlink()
            assert client.post("/v1/batches", json={"edits": edits(20)}).status_code == 201
        assert darkroom(*submit, **settings).returncode == 0


def fill(file: Path) -> None:
    """Take all room that is left."""
    with suppress(OSError), file.open("wb", buffering=0) as hog:
        while hog.write(bytes(4096)):
            pass


@contextmanager
def database_on(postgres_url: str, disk: Path) -> Iterator[str]:
    """A migrated database whose files lie there."""
    name = f"disk_{next(NUMBERS)}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        owner = Path(connection.execute("SHOW data_directory").fetchone()[0]).stat()
        os.chown(disk, owner.st_uid, owner.st_gid)
        connection.execute(f"CREATE TABLESPACE {name} LOCATION '{disk}'")
        connection.execute(f"CREATE DATABASE {name} TABLESPACE {name}")
        url = database_named(postgres_url, name)
        try:
            upgrade(url)
            yield url
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
            connection.execute(f"DROP TABLESPACE {name}")
