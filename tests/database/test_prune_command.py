"""`darkroom prune`: what would go, and then it goes."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from models.states import Kept
from tests.support.command_line import CommandLine
from tests.support.finished_batches import finished
from tests.support.receiving import rows

NONE = dict.fromkeys([*(kind.value for kind in Kept), "held_back"], 0)


@pytest.fixture
def run_cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, database_url: str
) -> CommandLine:
    return CommandLine(
        monkeypatch, capsys, tmp_path, DATABASE_URL=database_url, KEEP_BATCHES="3600", KEEP_CALLBACK_BODIES="forever"
    )


def test_a_dry_run_says_what_goes(run_cli: CommandLine, engine: Engine, tmp_path: Path) -> None:
    """Counts by kind, what is held back too; nothing is removed. Then the same is removed."""
    finished(engine, 3)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE batch_counters SET unknown = 1 WHERE batch_id = %s", (finished(engine, 2),))
    file = tmp_path / "images" / "quarantine" / "a.bin"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no image")
    expected = {**NONE, "batches": 3, "held_back": 1}
    assert run_cli("prune", "--dry-run", "--json").json == {"dry_run": True, **expected}
    said = run_cli("prune", "--dry-run").out
    assert "3 edits" in said
    assert "a dry run" in said
    assert rows(engine, "SELECT count(*) FROM edits") == [(5,)]

    assert run_cli("prune", "--json").json == {"dry_run": False, **expected}
    assert rows(engine, "SELECT count(*) FROM edits") == [(2,)]
    assert run_cli("prune", "--json").json == {"dry_run": False, **NONE, "held_back": 1}
    assert file.exists()


def test_what_commands_say_of_a_pruned_batch(run_cli: CommandLine, engine: Engine) -> None:
    """Its figures and errors are there; whoever wants an edit of it gets a sentence."""
    finished(engine, 3, failed=1)
    run_cli("prune")
    assert "its edits are no longer kept" in run_cli("status", "last").out
    said = run_cli("errors", "last").out
    assert "content_policy_violation" in said
    assert said.endswith("Its edits are no longer kept.\n")
    for command in (("export", "last"), ("contact-sheet", "last"), ("retry", "last"), ("cancel", "last")):
        refused = run_cli(*command)
        assert (refused.code, refused.err) == (2, "darkroom: The batch is pruned: its edits are no longer kept.\n")


def test_bodies_and_files(run_cli: CommandLine, engine: Engine, tmp_path: Path) -> None:
    """Each by its own setting."""
    finished(engine, 3)
    file = tmp_path / "images" / "quarantine" / "a.bin"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no image")
    run_cli.set(KEEP_BATCHES="forever", KEEP_CALLBACK_BODIES="3600", KEEP_QUARANTINE="0.001")
    expected = {**NONE, "callback_bodies": 3, "quarantine": 1}
    assert run_cli("prune", "--dry-run", "--json").json == {"dry_run": True, **expected}
    assert run_cli("prune", "--json").json == {"dry_run": False, **expected}
    assert not file.exists()
    assert rows(engine, "SELECT count(*) FROM callbacks WHERE delivery IS NULL") == [(3,)]


def test_a_wrong_setting_is_one_sentence(run_cli: CommandLine) -> None:
    """Nothing is removed by a duration that nobody meant."""
    run_cli.set(KEEP_BATCHES="30 days")
    said = run_cli("prune")
    assert said.code == 2
    assert "KEEP_BATCHES is wrong" in said.err
