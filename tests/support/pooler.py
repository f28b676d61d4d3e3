"""A real PgBouncer in transaction pooling before the tests' PostgreSQL, where one is installed."""

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.support.servers import closed_port

PLACES = "/usr/sbin:/usr/local/sbin:/opt/homebrew/bin"


@contextmanager
def pooling(database_url: str, folder: Path, *options: str) -> Iterator[str]:
    """The URL of the database through PgBouncer; skips the test where there is none (Debian: apt install pgbouncer)."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:{PLACES}")
    if program is None:
        pytest.skip("no pgbouncer on this machine (Debian and Ubuntu: apt install pgbouncer)")
    server, port = conninfo_to_dict(database_url), closed_port()
    configuration = folder / "pgbouncer.ini"
    lines = [
        "[databases]",
        f"* = host={server['host']} port={server.get('port') or 5432} user={server['user']}",
        "[pgbouncer]",
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\nunix_socket_dir =",
        "pool_mode = transaction\ndefault_pool_size = 4",
        *options,
    ]
    configuration.write_text("\n".join(lines) + "\n")
    owner = Path(server["host"]).stat().st_uid  # root may not run it, and others may not reach the server's socket
    configuration.chmod(0o644)
    for place in (folder, *folder.parents):
        if place.stat().st_uid == os.geteuid() and not place.stat().st_mode & 0o001:
            place.chmod(0o711)
    user = ("-u", pwd.getpwuid(owner).pw_name) if os.geteuid() == 0 else ()
    process = subprocess.Popen([program, "-q", *user, str(configuration)])
    try:
        url = f"postgresql://{quote(str(server['user']))}@127.0.0.1:{port}/{server['dbname']}"
        _wait(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            assert process.poll() is None, "pgbouncer ended"
            assert time.monotonic() < deadline, "pgbouncer does not answer"
            time.sleep(0.05)
        else:
            return
