"""Database addresses as people hand them in, and roles that may not do everything."""

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from cli import migrate
from core.database_url import hide_password, parse_database_url, read_database_url
from core.errors import DatabaseError, SettingsError
from models.database import check_schema, make_engine
from tests.support.command_line import CommandLine
from tests.support.databases import NUMBERS, database_named

SECRET = "hunter3"


@pytest.fixture
def empty(postgres_url: str) -> Iterator[str]:
    """A database without our schema."""
    name = f"test_url_{next(NUMBERS)}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield database_named(postgres_url, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def typing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    return CommandLine(monkeypatch, capsys, tmp_path, REDIS_URL="redis://127.0.0.1:1/0")


@pytest.mark.parametrize(
    ("url", "parameters"),
    [
        ("postgres://u:p%40%2F%23@h/db", {"user": "u", "password": "p@/#", "host": "h", "dbname": "db"}),
        ("postgresql+psycopg://h:5433/db", {"host": "h", "port": "5433", "dbname": "db"}),
        ("postgresql://h:/db", {"host": "h", "dbname": "db"}),
        ("postgresql://a:1,b:2/db", {"host": "a,b", "port": "1,2", "dbname": "db"}),
        ("postgresql://[::1]:5432/db", {"host": "::1", "port": "5432", "dbname": "db"}),
        ("postgresql://u@%2Frun%2Fpg/db", {"user": "u", "host": "/run/pg", "dbname": "db"}),
        ("postgresql://h/db?ssl=true", {"host": "h", "dbname": "db", "sslmode": "require"}),
        ("postgresql://h/db?sslmode=verify-full&sslrootcert=%2Fca.pem&channel_binding=require",
         {"host": "h", "dbname": "db", "sslmode": "verify-full", "sslrootcert": "/ca.pem",
          "channel_binding": "require"}),
    ],
)  # fmt: skip
def test_what_a_client_of_postgresql_takes(url: str, parameters: dict[str, str]) -> None:
    address = parse_database_url(url)
    assert address.parameters == parameters
    assert parse_database_url(address.url.render_as_string(hide_password=False)) == address


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("mysql://h/db", "postgresql://"),
        ("h/db", "postgresql://"),
        ("postgresql://h/db?schema=public", "schema.*search_path"),
        ("postgresql://h/db?search_path=dark", "search_path.*options"),
        ("postgresql://h/db?connection_limit=5", "connection_limit"),
        ("postgresql://h/db?sslmode=no-verify", "sslmode is one of"),
        ("postgresql://h/db?sslmode=require&sslrootcert=system", "sslmode=verify-full"),
        ("postgresql://h/db?pgbouncer=yes", "pgbouncer"),
        ("postgresql://h/db?connect_timeout=soon", "connect_timeout"),
        ("postgresql://h/db?options=-csearch_path", "options"),
        ("'postgresql://h/db'", "quotes"),
        ("postgresql+asyncpg://h/db", "postgresql://"),
        ("jdbc:postgresql://h/db", "postgresql://"),
        (f"postgresql://me@server:{SECRET}@server.postgres.example:5432/db", "@.*%40"),
        ("postgresql://h:http/db", "port"),
        ("postgresql://h:70000/db", "port"),
        ("postgresql://u@/db?host=a,b&port=1,2,3", "port"),
        (f"postgresql://u:{SECRET}/x@h/db", "port.*%2F"),
        (f"postgresql://u:{SECRET}@x@h/db", "@.*%40"),
        (f"postgresql://u:{SECRET}%zz@h/db", "%25"),
        (f"postgresql://u:{SECRET} x@h/db", "blank.*%20"),
        ("postgresql://[::1/db", r"\]"),
        ("postgresql://h/db%00", "zero byte"),
    ],
)
def test_what_cannot_be_used_is_named(url: str, named: str) -> None:
    with pytest.raises(SettingsError, match=named) as refused:
        parse_database_url(url)
    assert SECRET not in str(refused.value)
    assert SECRET not in hide_password(url)


@pytest.mark.parametrize(
    "url",
    [f"postgresql://u:{SECRET}@h/db", f"postgresql://u:{SECRET}#@h/db", f"postgresql://h/db?password={SECRET}&a=b"],
)
def test_a_password_is_never_shown(url: str) -> None:
    assert SECRET not in hide_password(url)
    assert "h/db" in hide_password(url)


@pytest.mark.parametrize(
    "options", ["-csearch_path%3Ddark", "-c%20search_path%3Ddark", "--search_path%3Ddark", "-c+search_path%3Ddark"]
)
def test_the_schema_is_filled_where_it_is_read(empty: str, typing: CommandLine, options: str) -> None:
    """And the time limits hold beside the URL's own options."""
    with psycopg.connect(empty, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA dark")
    url = f"{empty}&options={options}"
    typing.set(DATABASE_URL=url)
    assert typing("migrate").code == 0
    assert typing("batches").out == "There is no batch yet.\n"
    with psycopg.connect(empty) as connection:
        found = connection.execute("SELECT DISTINCT schemaname FROM pg_tables WHERE tablename IN ('edits', 'batches')")
        assert found.fetchall() == [("dark",)]
    engine = make_engine(url, application="test")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "30s"
    engine.dispose()
    typing.set(DATABASE_URL=empty)
    assert "no darkroom schema" in typing("batches").err


def test_an_option_of_the_url_wins(database_url: str) -> None:
    engine = make_engine(f"{database_url}&options=-cstatement_timeout%3D7s", application="test")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "7s"
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "10s"
        assert connection.connection.driver_connection.prepare_threshold is not None
    engine.dispose()


def test_a_schema_that_is_not_there(empty: str, typing: CommandLine) -> None:
    typing.set(DATABASE_URL=f"{empty}&options=-csearch_path%3Dnowhere")
    said = typing("migrate")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "search_path" in said.err


@pytest.fixture
def role(postgres_url: str) -> Iterator[str]:
    """A role that may connect, and nothing else."""
    name = f"someone_{next(NUMBERS)}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN")
        yield name
        connection.execute(f"DROP ROLE {name}")


def as_role(url: str, role: str) -> str:
    return make_url(url).set(username=role).render_as_string(hide_password=False)


def test_a_role_that_may_not_create(empty: str, role: str, typing: CommandLine) -> None:
    typing.set(DATABASE_URL=as_role(empty, role))
    said = typing("migrate")
    assert said.code == 2
    assert said.err.count("\n") == 1
    assert "permission denied for schema public (CREATE)" in said.err


def test_a_role_that_may_not_read(database_url: str, role: str, typing: CommandLine) -> None:
    typing.set(DATABASE_URL=as_role(database_url, role))
    said = typing("batches")
    assert said.code == 2
    assert "permission denied for table alembic_version (SELECT)" in said.err
    assert "no darkroom schema" not in said.err


def test_a_role_that_may_not_use_the_schema(database_url: str, role: str, typing: CommandLine) -> None:
    """To it no table is there; that is no reason to migrate."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("REVOKE USAGE ON SCHEMA public FROM PUBLIC")
    typing.set(DATABASE_URL=as_role(database_url, role))
    said = typing("batches")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "lacks a right: USAGE on schema public" in said.err
    assert "USAGE on schema public" in typing("doctor").out
    assert "rights" in typing("migrate").err


def test_a_role_that_may_only_read(database_url: str, role: str, typing: CommandLine, tmp_path: Path) -> None:
    """It may look; what it may not do is named by whoever tries, and by the doctor."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    typing.set(DATABASE_URL=as_role(database_url, role), STORAGE_URL=tmp_path.as_uri())
    assert typing("batches").code == 0
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"prompt": "p", "image_urls": ["https://example.com/a.png"]}\n')
    said = typing("submit", manifest)
    assert said.code == 2
    assert "permission denied for table batches (INSERT" in said.err
    found = {line["check"]: line for line in typing("doctor", "--json").lines}
    assert "INSERT, UPDATE, DELETE on edits" in found["rights"]["message"]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"DROP OWNED BY {role}")


def test_a_view_alone_is_missing(database_url: str, typing: CommandLine) -> None:
    """Only a missing table says that there is no schema."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP VIEW batch_progress CASCADE")
    typing.set(DATABASE_URL=database_url)
    said = typing("batches")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "batch_progress" in said.err


def test_the_newest_revision_is_wanted(database_url: str) -> None:
    engine = make_engine(database_url, application="test")
    check_schema(engine, migrate.newest())
    with pytest.raises(DatabaseError, match="run `darkroom migrate`"):
        check_schema(engine, "9999")
    engine.dispose()


@pytest.mark.parametrize("command", ["status", "doctor", "migrate", "batches", "env"])
def test_every_command_says_it_in_one_sentence(typing: CommandLine, command: str) -> None:
    typing.set(DATABASE_URL=f"postgresql://u:{SECRET}@h/db?schema=public")
    said = typing(command, *(["last"] if command == "status" else []))
    assert said.code == (1 if command == "doctor" else 2)
    assert "schema" in said.out + said.err
    assert SECRET not in said.out + said.err
    assert os.environ["DATABASE_URL"]


def test_read_is_what_the_validator_calls() -> None:
    with pytest.raises(ValueError, match="postgresql://"):
        read_database_url("")
