"""What the tests of the command line share."""

from pathlib import Path

import pytest

from cli.doctor import lane_checks
from tests.support.command_line import CommandLine


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
