"""Every statement of the product can be listed; each parses, and those on a hot path find their rows by an index."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from benchmarks.large_tables import BATCHES, EDITS_EACH, fill_tables
from models.monitoring import VIEWS
from tests.support.statements import list_statements, plan_of, prepare

UTILITIES = ("COPY ", "CREATE DATABASE ", "SET ", "SHOW ")
"""What PostgreSQL runs and cannot prepare."""
LARGE = {"edits", "submissions", "images", "callbacks"}


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True, prepare_threshold=None) as connection:
        yield connection


def test_every_statement_parses_against_the_migrated_database(connection: psycopg.Connection[Any]) -> None:
    """A column that a migration takes away is else missed only by whoever needs the one command that reads it."""
    wrong = {}
    statements = list_statements()
    for name, statement in statements.items():
        try:
            if not statement.startswith(UTILITIES):
                prepare(connection, statement)
        except psycopg.Error as error:
            wrong[name] = str(error)
    for view in VIEWS:
        prepare(connection, f"SELECT * FROM {view}")
    assert wrong == {}
    assert len(statements) > 120


def test_every_statement_is_written_once() -> None:
    """Two copies of a statement are changed one at a time."""
    names: dict[str, list[str]] = {}
    for name, statement in list_statements().items():
        names.setdefault(" ".join(statement.split()), []).append(name)
    assert [twins for twins in names.values() if len(twins) > 1] == []


def test_edits_are_copied_into_columns_that_are_there(connection: psycopg.Connection[Any]) -> None:
    """COPY cannot be prepared, so it is begun."""
    with connection.cursor() as cursor, cursor.copy(list_statements()["models.queries.edits.COPY_EDITS"]):
        pass


def detours(connection: psycopg.Connection[Any]) -> dict[str, str]:
    """What the plans of statements that name an index do otherwise."""
    found = {}
    for name, statement in list_statements().items():
        if not statement.indexes:
            continue
        nodes = plan_of(connection, statement)
        used = {node.get("Index Name") for node in nodes}
        missing = [wanted for wanted in statement.indexes if used.isdisjoint(wanted.split("|"))]
        scanned = {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"} & LARGE
        if missing or scanned:
            found[name] = f"without {missing}, reads all of {sorted(scanned)}"
    return found


def test_with_100_000_edits_plans_use_the_indexes_that_statements_name(connection: psycopg.Connection[Any]) -> None:
    """A plan that reads a whole table is noticed only once tables are large, and then every lane waits for it."""
    fill_tables(connection)
    assert connection.execute("SELECT count(*) FROM edits").fetchone() == (BATCHES * EDITS_EACH,)
    assert detours(connection) == {}
    connection.execute("DROP INDEX submissions_due")
    assert {"models.claims.CLAIM_POLLS", "models.claims.CLAIM_UNKNOWN"} <= set(detours(connection))


def test_on_an_empty_database_no_plan_reads_a_large_table(engine: Engine) -> None:
    """The plans that a new database begins with are kept while its first batch comes in, however large it is."""
    with closing(engine.raw_connection()) as pooled:
        connection = pooled.driver_connection
        connection.autocommit, connection.prepare_threshold = True, None
        assert read_whole(connection) == {}
        connection.execute("SET enable_seqscan = on")
        assert "models.record_reports.RELATED_SUBMISSIONS" in read_whole(connection)


def read_whole(connection: psycopg.Connection[Any]) -> dict[str, set[str]]:
    """Which large tables are read from end to end by statements that name an index."""
    indexed = {name: statement for name, statement in list_statements().items() if statement.indexes}
    scanned = {
        name: {node["Relation Name"] for node in plan_of(connection, statement) if node["Node Type"] == "Seq Scan"}
        for name, statement in indexed.items()
    }
    return {name: tables & LARGE for name, tables in scanned.items() if tables & LARGE}


def test_what_names_no_index_reads_no_large_table() -> None:
    """A new statement that reads edits, submissions, images or callbacks says by which index it does."""
    unnamed = {
        name
        for name, statement in list_statements().items()
        if not statement.indexes
        and any(f" {verb} {table}" in f" {statement} " for verb in ("FROM", "JOIN", "UPDATE") for table in LARGE)
    }
    assert unnamed == set()
