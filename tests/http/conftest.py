"""What the tests over HTTP share: a provider that signs, a receiver, a database that can go away."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import make_url

from models.tables import metadata
from tests.conftest import NUMBERS, database_named
from tests.http.provider import Provider, key_server
from tests.http.servers import Wire
from webhook_receiver.app import create_app
from webhook_receiver.callbacks import Receiver
from webhook_receiver.settings import ReceiverSettings

Away = Callable[[], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def module_database_url(postgres_url: str, template: str) -> Iterator[str]:
    """One database for the tests of a module; to make one for each would take most of their time."""
    name = f"test_http_{next(NUMBERS)}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield database_named(postgres_url, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database_url(module_database_url: str) -> str:
    """The module's database, empty."""
    with psycopg.connect(module_database_url, autocommit=True) as connection:
        connection.execute("; ".join(f"DELETE FROM {table.name}" for table in reversed(metadata.sorted_tables)))
    return module_database_url


@pytest.fixture
def provider() -> Provider:
    """Who signs deliveries."""
    return Provider()


@pytest.fixture
def key_wire(provider: Provider) -> Iterator[Wire]:
    """The server of the provider's key set."""
    with key_server(provider) as wire:
        yield wire


@pytest.fixture
def settings(database_url: str, key_wire: Wire) -> ReceiverSettings:
    """The receiver's settings; a body limit that a test can reach."""
    return ReceiverSettings(database_url=database_url, fal_jwks_url=key_wire.url, callback_max_bytes=100_000)


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


@pytest.fixture
def app(settings: ReceiverSettings) -> Iterator[Flask]:
    """The receiver as its factory makes it."""
    with running_app(settings) as app:
        yield app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Someone who sends requests to the receiver."""
    return app.test_client()


@pytest.fixture
def database_away(postgres_url: str, database_url: str) -> Away:
    """`with database_away():` no session of the test's database lives on and none can be opened."""
    name = make_url(database_url).database

    def run(*statements: str) -> None:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    @contextmanager
    def away() -> Iterator[None]:
        run(
            f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
        )
        try:
            yield
        finally:
            run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    return away
