"""The role that watches: it reads every view, and nothing that a caller would not show to everybody."""

import os
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import Connection, Engine

from cli.database_commands import NO_MONITOR_ROLE
from models.claims import claim_images
from models.database import make_engine
from models.incidents import REASON
from models.monitor_role import NOT_FOR_POLLING, ROLE, WITHHELD
from models.monitoring import VIEWS
from models.pauses import pause_lane
from models.provider import learn_user_id, pause
from models.record_reports import record_reports
from models.tables import metadata
from models.transitions import ImageFault, Refusal, record_image_faults, record_refused, schedule_poll, settle_batches
from models.transitions.submissions import NextPoll
from models.verdict import DeclaredImage, Kind, Retry, Verdict
from tests.support.databases import Databases, database_named
from tests.support.factories import POLICY, accept, answer, claim, keep_callback, make_batch, request_id
from tests.support.own_postgres import own_postgres, wheel_programs
from tests.support.running_stack import darkroom

SECRET = "planted-secret"
"""Part of everything that no caller would show."""


def plant(connection: Connection) -> list[str]:
    """One of everything, with a secret wherever others write; answers the tokens of the webhook URLs."""
    make_batch(connection, 6, notify_url=f"https://example.com/{SECRET}", metadata={"note": SECRET}, client="c")
    connection.exec_driver_sql(
        "UPDATE edits SET arguments = jsonb_build_object('prompt', %s::text, 'image_urls', %s::text)",
        (f"prompt {SECRET}", f"https://example.com/{SECRET}.png"),
    )
    submissions = claim(connection)
    bad, lost, broken, good, quiet, refused = submissions
    record_refused(connection, [Refusal(refused.id, "bad_request", f"no: {SECRET}")])
    accept(connection, [bad, lost, broken, good, quiet])
    message = f"prompt {SECRET} at https://example.com/{SECRET}"
    image = (DeclaredImage(f"https://v3.fal.media/{SECRET}.png", file_name=f"{SECRET}.png"),)
    reports = [
        answer(bad, Verdict(Kind.FAILED, error_type="content_policy_violation", message=message, retry=Retry.NEVER)),
        answer(lost, Verdict(Kind.FAILED, error_type="internal_server_error", message=message, retry=Retry.TRANSIENT)),
        answer(broken, Verdict(Kind.SUCCEEDED, image)),
        answer(good, Verdict(Kind.SUCCEEDED, image)),
    ]
    record_reports(connection, reports, POLICY)
    due = claim_images(connection, limit=1, lease=60)
    record_image_faults(connection, [ImageFault(due[0].id, "not_an_image", message, None)])
    schedule_poll(connection, [NextPoll(quiet.id, 60.0, note=message)])
    keep_callback(connection, str(good.id), request_id(good), body=SECRET, headers={"key": SECRET})
    pause(connection, "unauthorized", f"key {SECRET}", retry_after=60)
    learn_user_id(connection, SECRET)
    pause_lane(connection, "submit", "model/1", reason=REASON, message=message, retry_after=60)
    make_batch(connection, 1, notify_url=f"https://example.com/{SECRET}")
    connection.exec_driver_sql("UPDATE edits SET state = 'stored', due_at = NULL, finished_at = now() WHERE id > 6")
    settle_batches(connection, results_prefix=f"https://{SECRET}")
    connection.exec_driver_sql(
        "UPDATE notifications SET last_error = %s, delivered_at = now(), due_at = NULL", (SECRET,)
    )
    for table in ("edits", "submissions", "images"):
        connection.exec_driver_sql(f"UPDATE {table} SET due_at = now() - interval '1 h' WHERE due_at IS NOT NULL")
    return [str(submission.id) for submission in submissions]


@pytest.fixture(scope="module")
def monitor(databases: Databases) -> Iterator[tuple[psycopg.Connection, list[str]]]:
    """A connection as the role, to a database with secrets, and the tokens in it; nothing of it can be changed."""
    with databases.lend() as url:
        engine = make_engine(url, application="darkroom test")
        with engine.begin() as connection:
            tokens = plant(connection)
        engine.dispose()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"SET ROLE {ROLE}")
            yield connection, tokens


def is_secret(value: str, tokens: list[str]) -> bool:
    """Request ids of these tests are made of tokens, and are none."""
    for token in tokens:
        value = value.replace(f"request-{token}", "")
    return SECRET in value or any(token in value for token in tokens)


def test_every_view_can_be_read_and_tells_no_secret(monitor: tuple[psycopg.Connection, list[str]]) -> None:
    """Whatever others wrote, and whatever lets somebody in, is in no column that the role may read."""
    connection, tokens = monitor
    read = 0
    for view in VIEWS.keys() - NOT_FOR_POLLING:
        columns = connection.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
            " AND has_column_privilege(attrelid, attname, 'SELECT')",
            (view,),
        ).fetchall()
        names = {name for (name,) in columns}
        assert names, view
        rows = connection.execute(f"SELECT {', '.join(names)} FROM {view}").fetchall()
        read += len(rows)
        assert [value for row in rows for value in map(str, row) if is_secret(value, tokens)] == [], view
    assert read > 60


def test_the_secrets_are_in_the_views(engine: Engine) -> None:
    """Of what the role may not read: else the test before proves nothing."""
    with engine.begin() as connection:
        tokens = plant(connection)
        for view, columns in WITHHELD.items():
            for column in columns:
                found = connection.exec_driver_sql(f"SELECT {column}::text FROM {view}").scalars().all()
                assert any(value and is_secret(value, tokens) for value in found), (view, column)


@pytest.mark.parametrize("table", sorted(metadata.tables))
def test_no_table_can_be_read(monitor: tuple[psycopg.Connection, list[str]], table: str) -> None:
    """Not even its names of columns lead to a row."""
    connection, _ = monitor
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(f"SELECT count(*) FROM {table}")


def test_what_is_withheld_is_refused(monitor: tuple[psycopg.Connection, list[str]]) -> None:
    """Column by column, and with an asterisk; nothing can be written."""
    connection, _ = monitor
    for view, columns in WITHHELD.items():
        for column in (*columns, "*"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT {column} FROM {view}")
    for statement in ("SELECT * FROM audit", "DELETE FROM batch_progress", "CREATE TABLE mine (id int)"):
        with pytest.raises(psycopg.Error):
            connection.execute(statement)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The URL of a server that knows no role of ours, and somebody who may create none."""
    with own_postgres(wheel_programs()) as server:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("CREATE ROLE owner LOGIN")
        yield server.url()


@pytest.fixture
def two_databases(cluster: str) -> Iterator[list[str]]:
    """Empty ones of that server, owned by that somebody; the role goes with them."""
    names = ("watched_1", "watched_2")
    with psycopg.connect(cluster, autocommit=True) as connection:
        for name in names:
            connection.execute(f"CREATE DATABASE {name} OWNER owner")
        yield [database_named(cluster, name) for name in names]
        for name in names:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        connection.execute(f"DROP ROLE {ROLE}")


def migrate_at_once(*urls: str) -> list[str]:
    """What `darkroom migrate` says of each, all at one time."""
    command = [sys.executable, "-m", "cli.main", "migrate"]
    running = [
        subprocess.Popen(command, env={**os.environ, "DATABASE_URL": url}, stdout=subprocess.PIPE, text=True)
        for url in urls
    ]
    said = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0] * len(urls)
    return said


def migrate(url: str) -> str:
    """What `darkroom migrate` says."""
    done = darkroom("migrate", DATABASE_URL=url)
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_watched(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(f"SET ROLE {ROLE}")
        connection.execute("SELECT * FROM batch_progress")


def test_two_databases_of_a_cluster_are_migrated_at_one_time(two_databases: list[str]) -> None:
    """The role is the cluster's: whoever comes second finds it, and both grant it their own views."""
    assert not any(ROLE in said for said in migrate_at_once(*two_databases))
    for url in two_databases:
        assert_watched(url)


def test_an_owner_who_may_create_no_role_is_told(two_databases: list[str]) -> None:
    """Everything else is there; once somebody has made the role, migrating again lets it read."""
    url = two_databases[0].replace("//postgres@", "//owner@")
    assert url != two_databases[0]
    said = migrate(url)
    assert said.splitlines()[1:] == [NO_MONITOR_ROLE]
    with psycopg.connect(two_databases[0], autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {ROLE} NOLOGIN")
    assert ROLE not in migrate(url)
    assert_watched(two_databases[0])
