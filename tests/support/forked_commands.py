"""A process that has imported the command line once; each command of a test is a fork of it.

A command costs most of a second of imports, which is no test's subject. What a fork runs is a process all the same: its
own environment, folder, streams, exit code, and way to die. For a shell (`typed`) a stream that is closed is none, as
Python has it, and in the end Python does all that it does at any end, which costs.
"""

import gc
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, NoReturn

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
        self._folder = tempfile.TemporaryDirectory(prefix="darkroom-commands-")
        self._address = f"{self._folder.name}/orders"
        self._ours, theirs = socket.socketpair()
        with theirs, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as orders:
            orders.bind(self._address)
            orders.listen(16)
            files = (orders.fileno(), theirs.fileno())
            command = (sys.executable, "-m", __name__, *map(str, files))
            self._process = subprocess.Popen(command, pass_fds=files, stdin=subprocess.DEVNULL)

    @property
    def typed(self) -> tuple[str, ...]:
        """What stands for `darkroom` in a shell."""
        return (sys.executable, "-I", "-S", str(Path(__file__).with_name("typed_command.py")), self._address)

    def run(self, arguments: Sequence[str], variables: dict[str, str], timeout: float) -> tuple[int, str, str]:
        """One command to its end: its exit code, and what it said on either stream.

        Raises:
            subprocess.TimeoutExpired: it was killed.
        """
        with (
            tempfile.TemporaryFile("w+") as order,
            open(os.devnull) as nothing,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line,
        ):
            order.write("\0".join([os.getcwd(), str(len(arguments)), *arguments, *map("=".join, variables.items())]))
            order.flush()
            line.connect(self._address)
            socket.send_fds(line, [b"!012"], [file.fileno() for file in (order, nothing, out, err)])
            pid = int(line.recv(20))
            line.settimeout(timeout)
            try:
                code = int(line.recv(20))
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(arguments, timeout) from None
            return code, _text(out), _text(err)

    def end(self) -> None:
        self._ours.close()
        self._process.wait(60)
        self._folder.cleanup()


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode().replace("\r\n", "\n")


def serve(orders: socket.socket, parent: socket.socket) -> None:
    """Fork for every order, and say how the fork ended; until the other side has gone."""
    while parent not in select.select([orders, parent], [], [])[0]:
        line, _ = orders.accept()
        with line:
            message, files, _, _ = socket.recv_fds(line, 4, 4)
            if not message:
                continue
            streams = map(int, message[1:].decode())
            pid = os.fork()
            if pid == 0:
                orders.close()
                parent.close()
                _become(files[0], dict(zip(streams, files[1:], strict=True)), typed=message.startswith(b"$"))
            for file in files:
                os.close(file)
            with suppress(BrokenPipeError, ConnectionResetError):
                line.send(str(pid).encode())
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            with suppress(BrokenPipeError, ConnectionResetError):
                line.send(str(code).encode())


def _become(order: int, streams: dict[int, int], *, typed: bool) -> NoReturn:
    from cli import main
    from cli.stack import fork_server

    os.lseek(order, 0, os.SEEK_SET)
    with open(order) as file:
        folder, count, *rest = file.read().split("\0")
    os.chdir(folder)
    for number in range(3):
        if number in streams:
            os.dup2(streams[number], number)
            os.close(streams[number])
        else:
            os.close(number)
    sys.argv = ["darkroom", *rest[: int(count)]]
    variables = dict(pair.split("=", 1) for pair in rest[int(count) :])
    if not typed:
        fork_server.become(main.main, variables)
    os.environ.clear()
    os.environ.update(variables)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        mode = "w" if number else "r"
        setattr(sys, name, open(number, mode, closefd=False) if number in streams else None)  # noqa: SIM115
    main.main()
    raise AssertionError("a command ends its process")


if __name__ == "__main__":
    for name in ("cli.main", "cli.stack.fork_server", *PRELOADED):
        import_module(name)
    gc.freeze()
    serve(*(socket.socket(fileno=int(number)) for number in sys.argv[1:3]))
