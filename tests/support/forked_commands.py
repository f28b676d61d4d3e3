"""A process that has imported the command line once; each command of a test is a fork of it.

A command costs most of a second of imports, which is no test's subject. What a fork runs is a process all the same: its
own environment, folder, streams, exit code, and way to die.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import IO

PRELOADED = (
    "cli.provider.request",
    "cli.batches.actions",
    "cli.batches.edit",
    "cli.batches.submit",
    "cli.database_commands",
    "cli.batches.notify",
    "cli.batches.status",
)
SHAPES_PYTHON = ("PYTHON", "LANG", "LC_")
"""What a Python reads when it starts, and not again."""


class ForkedCommands:
    """The process, and the socket on which it takes orders: one at a time."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = (sys.executable, "-m", __name__, str(theirs.fileno()))
            self._process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL)

    def run(self, arguments: Sequence[str], variables: dict[str, str], timeout: float) -> tuple[int, str, str]:
        """One command to its end: its exit code, and what it said on either stream.

        Raises:
            subprocess.TimeoutExpired: it was killed.
        """
        with tempfile.TemporaryFile("w+") as order, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            order.write("\0".join([os.getcwd(), str(len(arguments)), *arguments, *map("=".join, variables.items())]))
            order.flush()
            socket.send_fds(self._socket, [b"!"], [order.fileno(), out.fileno(), err.fileno()])
            pid = int(self._socket.recv(20))
            self._socket.settimeout(timeout)
            try:
                code = int(self._socket.recv(20))
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                self._socket.settimeout(None)
                self._socket.recv(20)
                raise subprocess.TimeoutExpired(arguments, timeout) from None
            self._socket.settimeout(None)
            return code, _text(out), _text(err)

    def end(self) -> None:
        self._socket.close()
        self._process.wait(60)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode().replace("\r\n", "\n")


def serve(orders: socket.socket) -> None:
    """Fork for every order, and say how the fork ended; until the other side has gone."""
    while True:
        message, files, _, _ = socket.recv_fds(orders, 1, 3)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            _become(*files)
        for file in files:
            os.close(file)
        orders.send(str(pid).encode())
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with suppress(BrokenPipeError):
            orders.send(str(code).encode())


def _become(order: int, out: int, err: int) -> None:
    from cli import main
    from cli.stack import fork_server

    os.lseek(order, 0, os.SEEK_SET)
    with open(order) as file:
        folder, count, *rest = file.read().split("\0")
    os.chdir(folder)
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.argv = ["darkroom", *rest[: int(count)]]
    fork_server.become(main.main, dict(pair.split("=", 1) for pair in rest[int(count) :]))


if __name__ == "__main__":
    for name in ("cli.main", "cli.stack.fork_server", *PRELOADED):
        import_module(name)
    serve(socket.socket(fileno=int(sys.argv[1])))
