"""A real `darkroom` command line for the tests: one command, or a whole stack with the processes below it."""

import atexit
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import requests

from cli.stack import broker
from cli.stack.accounts import own_folder
from cli.stack.embedded import free_port
from cli.stack.home import Home
from tests.support.forked_commands import SHAPES_PYTHON, ForkedCommands

READY_WITHIN = 90.0
"""Seconds; a start takes six on a quiet machine with two cores."""
PYTHON = (sys.executable, "-m", "cli.main")


@cache
def forked_commands() -> ForkedCommands:
    """The parent of the commands of this run of tests; it ends with it."""
    forked_commands = ForkedCommands()
    atexit.register(forked_commands.end)
    return forked_commands


def darkroom(*arguments: str, timeout: float = 60.0, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    if "up" in arguments or any(name.startswith(SHAPES_PYTHON) for name in variables):
        return subprocess.run(
            (*PYTHON, *arguments),
            env=os.environ | variables,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    code, out, err = forked_commands().run(arguments, dict(os.environ) | variables, timeout)
    return subprocess.CompletedProcess(arguments, code, out, err)


def eventually(holds: Callable[[], Any], within: float = 60.0) -> bool:
    """Whether something comes true in time."""
    deadline = time.monotonic() + within
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@contextmanager
def broker_process() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A broker of its own, and its URL; ended afterwards."""
    with tempfile.TemporaryDirectory(prefix="darkroom-broker-") as folder:
        home = Home(Path(folder))
        home.create()
        own_folder(home.broker_socket.parent, None)
        for folder_above in (home.folder, home.sockets):
            folder_above.chmod(0o755)  # so that nothing but the broker's own folder keeps strangers out
        program = broker.command(broker.find_server(), home)
        with subprocess.Popen(program, stdout=subprocess.DEVNULL) as process:
            try:
                yield broker.broker_url(home), process
            finally:
                process.kill()


class Stack:
    """One `darkroom up --emulator` in a home of its own."""

    def __init__(self, home: Path) -> None:
        ports = {"RECEIVER_PORT": str(free_port()), "INTAKE_PORT": str(free_port())}
        self.variables = {"DARKROOM_HOME": str(home), **ports, "RETRY_DELAY": "0.1"}
        self.home = home
        self.port, self.intake_port = self.variables["RECEIVER_PORT"], self.variables["INTAKE_PORT"]
        self.emulator_port = str(free_port())
        self.output = home.parent / "up.out"

    @property
    def provider(self) -> str:
        """The emulator's address."""
        return f"http://127.0.0.1:{self.emulator_port}"

    def set_options(self, **changes: object) -> None:
        """Have the emulator go on with other options."""
        with requests.Session() as session:
            session.put(f"{self.provider}/_emulator/options", json=changes, timeout=60).raise_for_status()

    @property
    def said(self) -> str:
        return self.output.read_text()

    def start(self) -> None:
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                (*PYTHON, "up", "--emulator", "--emulator-port", self.emulator_port, "--emulator-latency", "0.1"),
                env=os.environ | self.variables,
                stdout=output,
            )
        if not eventually(self.is_ready, READY_WITHIN):
            self.end(signal.SIGTERM, within=5)
            raise AssertionError(self._logs())

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self._logs()
        return "ready" in self.said

    def _logs(self) -> str:
        return "\n".join(f"{log.name}: {log.read_text()[-1000:]}" for log in (self.home / "logs").glob("*"))

    def below(self) -> list[psutil.Process]:
        """Every process below `darkroom up`."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def pid(self, program: str) -> int | None:
        """The process id of one program of the supervisor."""
        for process in self.below():
            try:
                command = " ".join(process.cmdline())
                parent = process.parent()
            except psutil.NoSuchProcess:
                continue
            if program in command and parent and "supervisord" in " ".join(parent.cmdline()):
                return int(process.pid)
        return None

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command in another terminal, which knows nothing but the home."""
        return darkroom(*arguments, DARKROOM_HOME=str(self.home))

    def healthy(self) -> bool:
        try:
            return requests.Session().get(f"http://127.0.0.1:{self.port}/livez", timeout=2).ok
        except requests.RequestException:
            return False

    def end(self, number: signal.Signals, within: float) -> tuple[int, list[psutil.Process]]:
        """Signal `darkroom up`; gives its exit code and what of its processes is left after `within` seconds."""
        below = self.below()
        self.process.send_signal(number)
        code = self.process.wait(60)
        _, left = psutil.wait_procs(below, timeout=within)
        return code, left
