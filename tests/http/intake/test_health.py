"""`/healthz` of both applications and the containers' check: is the work done? `/livez`: does the process answer?"""

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine

from models.heartbeats import CLOCK, note_heartbeat
from models.pauses import pause_lane
from tests.support.api_client import intake_app
from tests.support.factories import make_submitted
from tests.support.receiving import running_app
from webhook_receiver.settings import ReceiverSettings


@pytest.fixture(params=["intake", "receiver"])
def client(request: pytest.FixtureRequest, database_url: str) -> Iterator[FlaskClient]:
    """Someone who asks either application."""
    running = (
        intake_app(database_url)
        if request.param == "intake"
        else running_app(ReceiverSettings(database_url=database_url))
    )
    with running as app:
        yield app.test_client()


def beat(engine: Engine, name: str, age: float = 0) -> None:
    """A sign of life, so many seconds ago."""
    with engine.begin() as connection:
        note_heartbeat(connection, name)
        connection.exec_driver_sql(
            "UPDATE heartbeats SET at = now() - %s * interval '1 s' WHERE name = %s", (age, name)
        )


def owe_a_poll(engine: Engine, seconds: float) -> None:
    """A submission that should have been asked about so many seconds ago."""
    with engine.begin() as connection:
        make_submitted(connection)
        connection.exec_driver_sql("UPDATE submissions SET due_at = now() - %s * interval '1 s'", (seconds,))


def health(client: FlaskClient) -> tuple[int, set[str]]:
    """The status, and what stands still."""
    response = client.get("/healthz")
    assert (response.json["status"] == "ok") == (response.status_code == 200)
    return response.status_code, set(response.json["stalled"])


def test_without_a_clock_nothing_moves(client: FlaskClient, engine: Engine) -> None:
    """Before the first tick, and when the last one was long ago; the process itself is well."""
    assert health(client) == (503, {"tick"})
    beat(engine, CLOCK, age=120)
    assert health(client) == (503, {"tick"})
    assert client.get("/livez").json == {"status": "ok"}
    beat(engine, CLOCK)
    assert health(client) == (200, set())


def test_a_lane_that_takes_nothing(client: FlaskClient, engine: Engine) -> None:
    """Work has been due for long, and the lane has been silent: that is a fault, a queue by itself is none."""
    beat(engine, CLOCK)
    owe_a_poll(engine, 600)
    assert health(client) == (503, {"poll"})
    said = re.search(r"due for (\d+) s", client.get("/healthz").json["stalled"]["poll"])
    assert said
    assert 600 <= int(said[1]) < 700
    beat(engine, "poll", age=10)
    assert health(client) == (200, set())
    beat(engine, "poll", age=600)
    assert health(client) == (503, {"poll"})


def test_what_is_due_since_a_moment_is_no_fault(client: FlaskClient, engine: Engine) -> None:
    beat(engine, CLOCK)
    owe_a_poll(engine, 20)
    assert health(client) == (200, set())


def test_a_paused_lane_is_paused_on_purpose(client: FlaskClient, engine: Engine) -> None:
    """It says so itself; restarting a container would mend nothing."""
    beat(engine, CLOCK)
    owe_a_poll(engine, 600)
    with engine.begin() as connection:
        pause_lane(connection, "poll", "storage", reason="disk_full", message="full", retry_after=60)
    assert health(client) == (200, set())


def check_container(database_url: str, name: str) -> tuple[int, str]:
    """What a container's health check does."""
    command = (sys.executable, "-m", "worker.health", name)
    done = subprocess.run(
        command,
        env={"DATABASE_URL": database_url, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout.strip()


def test_containers(database_url: str, engine: Engine) -> None:
    """Each judges its own lane, and the clock's the tick; without a database none is well."""
    beat(engine, CLOCK)
    owe_a_poll(engine, 600)
    code, said = check_container(database_url, "poll")
    assert (code, said[:28]) == (1, "The lane poll takes nothing;")
    assert check_container(database_url, "submit") == (0, "")
    beat(engine, CLOCK, age=-600)  # however long these processes take to start
    assert check_container(database_url, "tick") == (0, "")
    code, said = check_container("postgresql://postgres@127.0.0.1:1/x", "tick")
    assert code == 1
    assert "refused" in said
