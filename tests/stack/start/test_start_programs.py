"""The programs of the supervisor that end by themselves: what they come to is what `darkroom up` says."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.stack.embedded import free_port
from cli.stack.home import Home
from cli.stack.processes import Process, Stage
from cli.stack.start_programs import last_line
from cli.stack.supervision import Supervisor
from core.errors import UserError
from tests.support.running_stack import darkroom
from tests.support.servers import closed_port

ENDS = {
    "well": (
        "import os, sys, time; print('first', flush=True); heard = sys.argv[1]; "
        "next(n for n in range(600) if os.path.exists(heard) or time.sleep(0.1)); os.unlink(heard); print('last')"
    ),
    "trouble": "import sys; print('first'); print('The disk is full.'); sys.exit(2)",
    "bug": "print('first', flush=True); raise KeyError('x')",
    "killed": "import os; print('first', flush=True); os.kill(os.getpid(), 9)",
}


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    with tempfile.TemporaryDirectory(prefix="darkroom-starting-") as folder:
        home = Home(Path(folder))
        home.create()
        yield home


@pytest.fixture(scope="module")
def listened(home: Home) -> Path:
    """Made once the first word of the program that ends well was heard: it waits for that."""
    return home.folder / "listened"


@pytest.fixture(scope="module")
def supervisor(home: Home, listened: Path) -> Iterator[Supervisor]:
    """One that runs nothing yet."""
    commands = {name: (sys.executable, "-c", code, str(listened)) for name, code in ENDS.items()}
    programs = [Process(name, command, Stage.STARTING, once=True) for name, command in commands.items()]
    with home.hold() as lock:
        supervisor = Supervisor(home, programs, os.environ, lock)
        try:
            supervisor.wait()
            yield supervisor
        finally:
            supervisor.stop()


def end(supervisor: Supervisor, name: str, say: Callable[[str], None] = lambda _: None) -> None:
    """Run one of them to its end."""
    supervisor.finish(Process(name, (), Stage.STARTING, once=True), say)


def test_an_end_is_waited_for(supervisor: Supervisor, home: Home, listened: Path) -> None:
    """What it says meanwhile is heard, and it goes on; again and again, as after the death of a supervisor."""
    for _ in range(2):
        said: list[str] = []

        def hear(line: str, said: list[str] = said) -> None:
            if line == "first" and line not in said:
                listened.touch()
            said.append(line)

        end(supervisor, "well", hear)
        assert "first" in said
        assert last_line(home, "well") == "last"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("trouble", r"^The disk is full\.$"),
        ("bug", r"^The stack does not start: KeyError: 'x'; see .*/logs\.$"),
        ("killed", r"^The stack does not start: first; see .*/logs\.$"),
    ],
)
def test_any_other_end_is_one_sentence(supervisor: Supervisor, name: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        end(supervisor, name)


def test_what_forks_need_is_there_in_the_end(supervisor: Supervisor) -> None:
    """The supervisor answers while it imports, and nobody waits for ever."""
    supervisor.wait_until_warm()
    supervisor.wait_until_warm(for_workers=True)


def test_a_database_that_is_not_there() -> None:
    """Found out in a fork of the supervisor, told here."""
    ports = {"RECEIVER_PORT": str(free_port()), "INTAKE_PORT": str(free_port())}
    nowhere = f"postgresql://nobody@127.0.0.1:{closed_port()}/none"
    options = ("--emulator", "--emulator-port", str(free_port()))
    with tempfile.TemporaryDirectory(prefix="darkroom-starting-") as folder:
        answer = darkroom("up", *options, DARKROOM_HOME=f"{folder}/home", DATABASE_URL=nowhere, **ports)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith("darkroom: The database cannot be migrated: ")
    assert answer.stderr.count("\n") == 1
