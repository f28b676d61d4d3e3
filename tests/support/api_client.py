"""Helpers of the tests of the intake API: an application, a request, a batch in it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psutil
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine
from werkzeug.test import TestResponse

from cli.stack import processes
from cli.stack.readiness import http_answers
from intake.app import create_app
from intake.settings import IntakeSettings

EDIT = {"prompt": "Put a hat on the cat", "image_urls": ["https://example.com/cat.png"]}
NDJSON = "application/x-ndjson"
ALICE, BOB = "alice-key-7d1f", "bob-key-93ac"
KEYS = f"alice:{ALICE}, bob:{BOB}"


@contextmanager
def granian(command: Sequence[str], port: int, **environment: str) -> Iterator[psutil.Process]:
    """A program as the local stack starts it, once it answers."""
    server = subprocess.Popen([sys.executable, "-m", *command], env={**os.environ, **environment})
    try:
        deadline = time.monotonic() + 60
        while not http_answers(f"http://127.0.0.1:{port}/livez"):
            assert time.monotonic() < deadline, "granian did not come up"
            time.sleep(0.05)
        yield psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait(60)


@contextmanager
def intake_served(database_url: str, port: int, **environment: str) -> Iterator[psutil.Process]:
    """The intake API as it is really served."""
    command = processes.intake("127.0.0.1", port).command
    with granian(command, port, **{"DATABASE_URL": database_url, "DARKROOM_API_KEYS": KEYS, **environment}) as process:
        yield process


@contextmanager
def intake_app(database_url: str, **settings: Any) -> Iterator[Flask]:
    """The application, with nothing of it left behind."""
    app = create_app(IntakeSettings(**{"database_url": database_url, "storage_url": "file:///srv/images", **settings}))
    try:
        yield app
    finally:
        app.extensions["darkroom"].engine.dispose()


def lines(*objects: object) -> bytes:
    """Objects as JSON lines."""
    return "".join(json.dumps(each) + "\n" for each in objects).encode()


def edits(number: int, **fields: object) -> list[dict[str, object]]:
    """So many edits with names."""
    return [{**EDIT, "custom_id": f"e{n}", **fields} for n in range(number)]


def hand_in(client: FlaskClient, *given: object, **header: object) -> dict[str, Any]:
    """A batch of these edits (one, unless given) through the API."""
    response = client.post("/v1/batches", json={**header, "edits": list(given) or [EDIT]})
    assert response.status_code == 201, response.text
    return response.get_json()


def problem(response: TestResponse, status: int) -> dict[str, Any]:
    """The problem that the response is; anything else fails."""
    assert (response.status_code, response.mimetype) == (status, "application/problem+json"), response.text
    found = response.get_json()
    assert found["status"] == status
    assert found["title"]
    return found


def counts(engine: Engine) -> tuple[int, int]:
    """Batches and edits in the database."""
    with engine.connect() as connection:
        row = connection.exec_driver_sql("SELECT (SELECT count(*) FROM batches), (SELECT count(*) FROM edits)").one()
    return row[0], row[1]
