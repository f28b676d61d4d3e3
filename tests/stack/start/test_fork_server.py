"""The supervisor's forks behave as programs that were started anew."""

import shlex
import subprocess
import sys
import threading
import time
from textwrap import dedent, indent

import pytest

from cli.stack import parent_death_signal
from cli.stack.fork_server import FOR_ALL, FOR_WORKERS, forked_program
from cli.stack.processes import intake, local_workers
from cli.stack.supervision import command_line
from worker.dependencies import shared

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each program is executed")


def forked(program: str) -> subprocess.CompletedProcess[str]:
    """Run this body of a function in a fork that becomes a program; its exit code is passed on."""
    script = f"""
import atexit, os, signal, sys, threading, time
from cli.stack import fork_server
signal.signal(signal.SIGTERM, lambda *_: None)  # as supervisord does
os.environ["OLD"] = "1"
sys.stdout.flush()
pid = os.fork()
if pid == 0:
    def program():
{indent(dedent(program), " " * 8)}
    fork_server.become(program, {{"NEW": "2", "PATH": os.environ["PATH"]}})
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    return subprocess.run((sys.executable, "-c", script), capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("program", "code", "out", "err"),
    [
        ("print('done')", 0, "done\n", ""),
        ("sys.exit(3)", 3, "", ""),
        ("sys.exit('no such app')", 1, "", "no such app\n"),
        ("print(sorted(set(os.environ) & {'OLD', 'NEW'}))", 0, "['NEW']\n", ""),
        ("os.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(30)", 256 - 15, "", ""),
        ("atexit.register(print, 'cleaned')", 0, "cleaned\n", ""),
        ("threading.Timer(0.2, print, ['late']).start()", 0, "late\n", ""),
    ],
)
def test_a_fork_ends_as_a_program_does(program: str, code: int, out: str, err: str) -> None:
    """Its exit code, its last words, its own environment, signals as the system has them, threads waited for."""
    ended = forked(program)
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, out, err)


def test_a_fork_that_fails_says_why() -> None:
    """A traceback in its own log, and an exit code that is not 0."""
    ended = forked("raise RuntimeError('broken')")
    assert ended.returncode == 1
    assert ended.stderr.endswith("RuntimeError: broken\n")


@LINUX
def test_lanes_and_listeners_are_forked() -> None:
    """Celery and what listens, with and without a parent death signal of their own; every other program is executed."""
    for process in (*local_workers(), intake("127.0.0.1", 8001)):
        assert forked_program(shlex.split(command_line(process))), process.name
    for command in (
        ("/usr/bin/redis-server", "--port", "0"),
        (sys.executable, "-m", "fal_emulator"),
        (sys.executable, parent_death_signal.__file__, "--user", "pgserver", "INT", "/bin/postgres"),
    ):
        assert forked_program(command) is None


@LINUX
def test_forks_inherit_only_what_they_share() -> None:
    """Each of them counts all that was imported before it; and what was hidden meanwhile can be imported afterwards."""
    script = f"""
import sys
from cli.stack import fork_server
few = ("flask", "granian", "jinja2", "obstore", "PIL", "psutil", "rich", "yaml", "intake")
for modules, unwanted in (({FOR_ALL!r}, ("celery", "redis", *few)), ({FOR_WORKERS!r}, few)):
    for name in modules:
        fork_server.warm(name, last=name == modules[-1])
    print([name for name in unwanted if name in sys.modules])
import rich.console
"""
    answer = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True, timeout=120, check=True)
    assert answer.stdout == "[]\n[]\n"


def test_importing_what_is_shared_starts_nothing() -> None:
    """No thread and no connection before the fork: it would be shared by programs that do not know of each other."""
    script = f"""
import threading, psutil
from importlib import import_module
for name in {FOR_ALL + FOR_WORKERS!r}:
    import_module(name)
print(threading.active_count(), len(psutil.Process().net_connections("all")), psutil.Process().num_threads())
"""
    answer = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True, timeout=120, check=True)
    assert answer.stdout == "1 0 1\n"


def test_what_lanes_share_is_made_once() -> None:
    """Two lanes of one worker that ask at the same time get the same thing."""
    made: list[object] = []

    class Slow:
        @shared
        def thing(self) -> object:
            time.sleep(0.1)
            made.append(object())
            return made[-1]

    slow = Slow()
    got: list[object] = []
    threads = [threading.Thread(target=lambda: got.append(slow.thing)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert got == made * 4
