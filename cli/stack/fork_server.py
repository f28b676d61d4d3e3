"""supervisord as the warmed parent of its programs: it imports once what all of them need, and they are its forks.

Ten Python programs that each import Celery, SQLAlchemy and pydantic cost ten seconds of CPU at every start, and as
many copies in memory. A fork has all of it at once and shares the memory. Linux only: elsewhere a fork without exec
is not safe, and each program is started anew. What is started, and when it is restarted, is supervisord's business.
"""

import atexit
import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from types import ModuleType
from typing import NoReturn

from supervisor.options import ServerOptions
from supervisor.supervisord import Supervisor

from cli.stack import parent_death_signal
from cli.stack.processes import FOR_ALL, FOR_WORKERS

FORKED = ("celery", "buffering.serve", "cli.stack.start_programs")
"""The programs that profit; whatever else is Python (the emulator) has little in common with them."""
NO_SHELL = ModuleType("click_repl")
"""In the place of the interactive shell of `celery amqp`, which no stack opens: a sixth of the time, and six megabytes
in each of the forks, are its terminal toolkit's."""
NO_SHELL.register_repl = lambda _: None  # type: ignore[attr-defined]
UNUSED = ("msgpack", "opentelemetry", "psutil", "pygments", "rich", "yaml")
"""What libraries import only if it is there, for what no program of the stack does: metrics of the broker's client,
memory in Celery's debug output, coloured reports and tracebacks, messages in YAML and MessagePack. Nine megabytes in
each of the forks."""
SIGNALS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR2)
"""What supervisord listens to; its programs start with the system's own answers."""


class ForkingSupervisor(Supervisor):  # type: ignore[misc]  # supervisor has no types
    """A supervisor that imports what is shared while programs start: one module in each turn of its loop."""

    def __init__(self, options: ServerOptions) -> None:
        super().__init__(options)
        self.cold: list[str] = []
        self.warm(FOR_ALL)
        poll = options.poller.poll
        options.poller.poll = lambda timeout: poll(0 if self.cold else timeout)

    def warm(self, modules: Sequence[str]) -> None:
        """Have these modules imported."""
        if sys.platform == "linux":
            self.cold += modules

    def tick(self, now: float | None = None) -> None:
        """The end of each turn of supervisord's loop."""
        super().tick(now)
        if self.cold:
            warm(self.cold.pop(0), last=not self.cold)


class ForkInterface:
    """What the supervisor answers beside supervisord's own methods."""

    def __init__(self, supervisord: ForkingSupervisor) -> None:
        self._supervisord = supervisord

    def are_warm(self) -> bool:
        """Whether a fork would have at hand whatever was to be imported so far."""
        return not self._supervisord.cold

    def warm_for_workers(self) -> bool:
        """Import what the workers need, from now on."""
        self._supervisord.warm(FOR_WORKERS)
        return True


def make_fork_interface(supervisord: ForkingSupervisor) -> ForkInterface:
    """Called by supervisord, as its configuration says."""
    return ForkInterface(supervisord)


class WarmOptions(ServerOptions):  # type: ignore[misc]
    """Starts a program of ours in the fork itself, where supervisord would execute a new Python."""

    def execve(self, filename: str, argv: Sequence[str], env: dict[str, str]) -> None:
        """The last step of starting a program, in the child: never returns, unless it fails."""
        if (program := forked_program(argv)) is not None:
            become(program, env)
        super().execve(filename, argv, env)


def forked_program(argv: Sequence[str]) -> Callable[[], None] | None:
    """How a command is run in this process; None if it has to be executed."""
    if sys.platform != "linux" or argv[0] != sys.executable or "-m" not in argv:
        return None
    if argv[argv.index("-m") + 1] not in FORKED:
        return None
    arguments = list(argv[1:])
    if arguments[0] == parent_death_signal.__file__:
        return lambda: parent_death_signal.main(arguments[1:])
    return lambda: parent_death_signal.run(arguments)


def warm(name: str, *, last: bool) -> None:
    """Import what is shared, and leave it to the forks as it is."""
    gc.disable()  # next to nothing of what an import makes is garbage, and looking for it takes a quarter of the time
    sys.modules.setdefault("click_repl", NO_SHELL)
    with suppress(ImportError), without(UNUSED):  # then the program that needs it says so, in its own log
        import_module(name)
    if last:
        gc.collect()
        gc.freeze()  # a collection in a fork would copy every page that it looks at
        gc.enable()


@contextmanager
def without(names: Sequence[str]) -> Iterator[None]:
    """Within the block these modules cannot be imported; afterwards, in a fork that wants one, they can."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None is Python's own word for it
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def become(program: Callable[[], None], env: dict[str, str]) -> NoReturn:
    """Run a program as if this process had been started for it, and end with it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()  # noqa: TID251 - as execve would
    os.environ.update(env)  # noqa: TID251
    sys.excepthook = sys.__excepthook__
    gc.enable()
    code = 0
    try:
        program()
    except SystemExit as stop:
        code = _exit_code(stop)
    except BaseException:
        traceback.print_exc()
        code = 1
    _end(code)


def _exit_code(stop: SystemExit) -> int:
    if stop.code is None or isinstance(stop.code, int):
        return stop.code or 0
    print(stop.code, file=sys.stderr)
    return 1


def _end(code: int) -> NoReturn:
    """What Python does at the end of a process, without going back into supervisord's code."""
    with suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as multiprocessing's children do
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def main() -> None:
    """Run supervisord in the foreground, until it is told to stop."""
    options = WarmOptions()
    options.realize(sys.argv[1:], doc=__doc__)
    options.first, options.test = True, False
    ForkingSupervisor(options).main()


if __name__ == "__main__":
    main()
