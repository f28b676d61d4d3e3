"""Helpers of the tests of the receiver: deliver something, look at what it left behind."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, event
from werkzeug.test import TestResponse

from models.deliveries import KeptDelivery, read_delivery
from tests.support.factories import claim, make_batch, make_submitted
from tests.support.provider_callbacks import Provider
from webhook_receiver.app import create_app
from webhook_receiver.callbacks import Receiver
from webhook_receiver.settings import ReceiverSettings

TABLES = ("batches", "edits", "submissions", "images", "provider_status")


@contextmanager
def running_app(settings: ReceiverSettings) -> Iterator[Flask]:
    """The application, with nothing of it left behind."""
    app = create_app(settings)
    receiver: Receiver = app.extensions["darkroom"]
    try:
        yield app
    finally:
        receiver.rejections.write()
        receiver.engine.dispose()


def submitted(engine: Engine, edits: int = 1) -> list[Any]:
    """Submissions whose request ids are known."""
    with engine.begin() as connection:
        return make_submitted(connection, edits)


def unanswered(engine: Engine, edits: int = 1) -> list[Any]:
    """Submissions that were POSTed and whose replies never came."""
    with engine.begin() as connection:
        make_batch(connection, edits)
        return claim(connection)


def deliver(
    client: FlaskClient, provider: Provider, token: object, body: bytes, request_id: str, **signing: Any
) -> TestResponse:
    """One signed delivery."""
    headers = provider.headers(body, request_id, **signing)
    return client.post(f"/webhooks/fal/{token}", data=body, headers=headers)


def effect(response: TestResponse) -> str:
    """What the receiver says that the delivery did."""
    assert response.status_code == 200, response.text
    return str(response.get_json()["effect"])


def rows(engine: Engine, query: str) -> list[tuple]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def kept(engine: Engine) -> list[tuple]:
    """Effect and submission of every delivery that was kept, in order."""
    return rows(engine, "SELECT effect, submission_id FROM callbacks ORDER BY id")


def deliveries(engine: Engine) -> list[KeptDelivery]:
    """What is kept of every delivery, in order."""
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT * FROM callbacks ORDER BY id").mappings()
        return [read for row in found if (read := read_delivery(dict(row)))]


def world(engine: Engine) -> dict[str, list[tuple]]:
    """Everything that a delivery could move, to the last column."""
    return {table: rows(engine, f"SELECT * FROM {table} ORDER BY 1") for table in TABLES}


def rejected(engine: Engine) -> dict[str, int]:
    """The counts of what was turned away."""
    return dict(rows(engine, "SELECT reason, sum(count)::int FROM rejected_callbacks GROUP BY 1"))


@contextmanager
def no_conversation(engine: Engine):
    """Fails if anything is asked of, or told to, the database."""
    said: list[object] = []

    def note(*_: object) -> None:
        said.append("checkout")

    event.listen(engine, "checkout", note)
    try:
        yield
    finally:
        event.remove(engine, "checkout", note)
    assert said == []
