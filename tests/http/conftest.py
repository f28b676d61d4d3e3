"""What the tests over HTTP share: a provider that signs, a receiver, a database that can go away."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, make_url

from models.database import make_engine
from models.tables import metadata
from tests.support.cached_apps import cache_what_apps_share
from tests.support.databases import Databases
from tests.support.factories import unbalanced
from tests.support.lane_runner import Emulator, emulating
from tests.support.provider_callbacks import ACCOUNT, Provider, key_server
from tests.support.receiving import running_app
from tests.support.servers import Wire
from webhook_receiver.settings import ReceiverSettings

Away = Callable[[], AbstractContextManager[None]]


@pytest.fixture(autouse=True, scope="session")
def cached_apps() -> Iterator[None]:
    """Whatever every application has is made once."""
    with pytest.MonkeyPatch.context() as patch:
        cache_what_apps_share(patch)
        yield


@pytest.fixture(scope="module")
def module_database_url(databases: Databases) -> Iterator[str]:
    """One database for the tests of a module."""
    with databases.lend() as url:
        yield url


class Emptier:
    """Empties a database before each test, over one connection as long as that lives."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection[Any] | None = None
        self._statement = "; ".join(f"DELETE FROM {table.name}" for table in metadata.sorted_tables)

    def run(self) -> None:
        try:
            self._connect().execute(self._statement)
        except psycopg.OperationalError:  # a test has ended all sessions
            self.close()
            self._connect().execute(self._statement)

    def _connect(self) -> psycopg.Connection[Any]:
        if self._connection is None:
            self._connection = psycopg.connect(self._url, autocommit=True)
            self._connection.execute("SET session_replication_role = replica")  # no trigger counts what goes
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@pytest.fixture(scope="module")
def emptier(module_database_url: str) -> Iterator[Emptier]:
    """Of the module's database."""
    emptier = Emptier(module_database_url)
    yield emptier
    emptier.close()


@pytest.fixture
def database_url(module_database_url: str, emptier: Emptier) -> str:
    """The module's database, empty."""
    emptier.run()
    return module_database_url


@pytest.fixture(scope="module")
def module_engine(module_database_url: str) -> Iterator[Engine]:
    """One for the tests of a module: connections, and what they know of the tables, are dear."""
    engine = make_engine(module_database_url, application="darkroom test")
    yield engine
    engine.dispose()


@pytest.fixture
def engine(module_engine: Engine, database_url: str) -> Engine:
    """An engine on the empty database."""
    return module_engine


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
    """The receiver's settings: our account is known; a body limit that a test can reach."""
    return ReceiverSettings(
        database_url=database_url, fal_jwks_url=key_wire.url, callback_max_bytes=100_000, fal_user_id=ACCOUNT
    )


@pytest.fixture
def app(settings: ReceiverSettings) -> Iterator[Flask]:
    """The receiver as its factory makes it."""
    with running_app(settings) as app:
        yield app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Someone who sends requests to the receiver."""
    return app.test_client()


@pytest.fixture(scope="session")
def emulator_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """One emulator for the whole run."""
    with emulating(tmp_path_factory.mktemp("emulator")) as emulator:
        yield emulator


@pytest.fixture
def emulator(emulator_process: Emulator) -> Emulator:
    """The emulator, well-behaved, with a ledger that starts here."""
    emulator_process.mark()
    return emulator_process


@pytest.fixture
def balanced(engine: Engine) -> Iterator[None]:
    """Whatever the test did, the accounts balance afterwards."""
    yield
    with engine.connect() as connection:
        assert unbalanced(connection) == []


@pytest.fixture
def database_away(postgres_url: str, database_url: str, module_engine: Engine) -> Away:
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
            module_engine.dispose()  # its connections are gone, too

    return away
