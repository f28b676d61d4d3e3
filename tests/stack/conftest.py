"""What the tests of the command line share."""

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.doctor import lane_checks
from tests.support.command_line import CommandLine
from tests.support.running_stack import Stack


@pytest.fixture(scope="session")
def stack(clean_environment: None) -> Iterator[Stack]:
    """One running stack for every file that asks for it (conftest.py keeps these together).

    Not in pytest's own folder, which other runs lock again for the user that PostgreSQL runs as under root.
    """
    with tempfile.TemporaryDirectory(prefix="darkroom-stack-") as folder:
        stack = Stack(Path(folder) / "home")
        stack.variables |= {"POLL_AFTER": "2", "POLL_EVERY": "1"}
        stack.start()
        yield stack
        stack.end(signal.SIGTERM, within=5)


@pytest.fixture
def quick_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor's clocks that run out where something is missing run out at once."""
    for name, value in {"WATCHED_FOR": 1.0, "LOOK_EVERY": 0.2, "ANSWER_WITHIN": 0.2, "ROUNDS": 1}.items():
        monkeypatch.setattr(lane_checks, name, value)


@pytest.fixture
def run_cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, database_url: str
) -> CommandLine:
    """A command line on a fresh database; no broker, no workers."""
    folder = tmp_path / "images"
    return CommandLine(
        monkeypatch,
        capsys,
        tmp_path / "home",
        DATABASE_URL=database_url,
        REDIS_URL="redis://127.0.0.1:1/0",
        STORAGE_URL=folder.as_uri(),
    )
