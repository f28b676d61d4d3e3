"""What the tests of the command line share."""

from pathlib import Path

import pytest

from tests.stack.desk import Desk


@pytest.fixture
def desk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, database_url: str
) -> Desk:
    """A command line on a fresh database; no broker, no workers."""
    folder = tmp_path / "images"
    return Desk(
        monkeypatch,
        capsys,
        tmp_path / "home",
        DATABASE_URL=database_url,
        REDIS_URL="redis://127.0.0.1:1/0",
        STORAGE_URL=folder.as_uri(),
    )
