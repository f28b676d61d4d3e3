"""Steering from the command line: each command says what it concerned, may be given again, and fails in a sentence."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Engine

from models.pauses import list_pauses, pause_lane
from models.provider import pause
from models.record_reports import record_reports
from models.transitions import settle_batches
from models.verdict import Retry
from tests.support.command_line import CommandLine
from tests.support.factories import POLICY, accept, answer, claim, failure, make_batch, make_submitted, states

EDIT = {"prompt": "x", "image_urls": ["https://example.com/a.png"]}


def manifest(folder: Path, *edits: dict[str, Any]) -> Path:
    path = folder / "more.jsonl"
    path.write_text("\n".join(json.dumps({**EDIT, **edit}) for edit in edits))
    return path


def in_states(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return states(connection)


def fail(connection: Connection, error: str) -> None:
    """A batch of one edit that failed for good."""
    [submission] = make_submitted(connection)
    record_reports(connection, [answer(submission, failure(error, Retry.NEVER))], POLICY)


def test_cancel(run_cli: CommandLine, engine: Engine) -> None:
    """What waits is cancelled at once, what is in flight by a wish; the second time nothing is left."""
    with engine.begin() as connection:
        batch_id = make_batch(connection, 5)
        accept(connection, claim(connection, limit=2))
    shown = run_cli("cancel", str(batch_id)[:13], "--json")
    assert shown.code == 0
    cancelled_at = shown.json.pop("cancelled_at")
    assert cancelled_at
    assert {**shown.json, "cancelled_at": 0} == {
        "batch_id": str(batch_id),
        "concerned": 5,
        "in_flight": 2,
        "cancelled_at": 0,
    }
    assert in_states(engine) == {"cancelled": 3, "submitted": 2}
    assert run_cli("cancel", "last").out == (
        f"batch {batch_id} is cancelled; nothing more was left to cancel, 2 edits in flight\n"
    )
    assert run_cli("cancel", "last", "--json").json["concerned"] == 0


def test_pause_and_resume(run_cli: CommandLine, engine: Engine) -> None:
    """A pause stands until it is ended, however often it is said."""
    with engine.begin() as connection:
        batch_id = make_batch(connection, 2)
    first = run_cli("pause", batch_id, "--json").json
    assert (first["pending"], first["in_flight"]) == (2, 0)
    assert run_cli("pause", batch_id, "--json").json == first
    assert "is paused already: 2 edits wait" in run_cli("pause", batch_id).out
    assert "paused" in run_cli("status", batch_id).out
    assert run_cli("resume", batch_id, "--json").json["was_paused_at"] == first["paused_at"]
    assert run_cli("resume", batch_id).out == f"batch {batch_id} was not paused\n"
    with engine.begin() as connection:
        assert len(claim(connection)) == 2


def test_resume_provider_tries_paused_endpoints_too(run_cli: CommandLine, engine: Engine) -> None:
    """A model that was down is tried at once, and the line says since when it was left alone and why."""
    with engine.begin() as connection:
        pause_lane(connection, "submit", "a/model", reason="model_down", message="all failed", retry_after=600)
        pause_lane(connection, "download", "storage", reason="full", message="disk full", retry_after=600)
    assert "The endpoint a/model is tried at once" in run_cli("resume", "--provider").out
    assert "was not paused" in run_cli("resume", "--provider").out
    with engine.connect() as connection:
        assert [pause.lane for pause in list_pauses(connection)] == ["download"]


def test_resume_provider(run_cli: CommandLine, engine: Engine) -> None:
    """It says for what the account was paused, and that it was not, which is no error."""
    said = run_cli("resume", "--provider")
    assert (said.code, said.out) == (0, "The provider's account was not paused.\n")
    assert run_cli("resume", "--provider", "--json").json == {"resumed": False, "was": None, "endpoints": []}
    with engine.begin() as connection:
        pause(connection, "locked", "locked: 403 User is locked.", retry_after=600)
    assert "User is locked" in run_cli("status", "last").err + run_cli("batches").out
    assert "for locked: 403 User is locked.\n" in run_cli("resume", "--provider").out
    with engine.begin() as connection:
        make_batch(connection)
        assert len(claim(connection)) == 1
    assert run_cli("resume", "--provider", "last").code == 2
    assert run_cli("resume").code == 2


def test_retry_by_error_type(run_cli: CommandLine, engine: Engine) -> None:
    """Only what failed for the named types is tried again."""
    with engine.begin() as connection:
        fail(connection, "downstream_service_error")
    assert "no edit failed for image_too_small" in run_cli("retry", "last", "--error-type", "image_too_small").out
    types = ("--error-type", "image_too_small", "--error-type", "downstream_service_error")
    shown = run_cli("retry", "last", *types, "--json").json
    assert (shown["retried"], shown["failed"]) == (1, 0)
    assert in_states(engine) == {"pending": 1}
    assert run_cli("retry", "last", "--json").json["retried"] == 0
    run_cli("cancel", "last")
    said = run_cli("retry", "last")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("darkroom: The batch is cancelled")


def test_priority(run_cli: CommandLine, engine: Engine) -> None:
    """A negative one is a number and no option."""
    with engine.begin() as connection:
        batch_id = make_batch(connection)
    assert run_cli("priority", "last", -5, "--json").json == {"batch_id": str(batch_id), "priority": -5, "before": 0}
    assert run_cli("priority", "last", -5).out == f"batch {batch_id} has priority -5 already\n"
    assert run_cli("priority", "last", 40_000).code == 2
    assert run_cli("priority", "last", "high").code == 2


def test_append(run_cli: CommandLine, engine: Engine, tmp_path: Path) -> None:
    """Edits are added after those that are there, and with the same key only once."""
    with engine.begin() as connection:
        batch_id = make_batch(connection, 2)
    path = manifest(tmp_path, {"custom_id": "a"}, {})
    call = ("append", "last", path, "--idempotency-key", "k", "--json")
    shown = {"batch_id": str(batch_id), "added": 2, "edits": 2, "skipped": 0, "existing": False}
    assert run_cli(*call).json == shown
    assert run_cli(*call).json == {**shown, "added": 0, "existing": True}
    assert "were there already" in run_cli(*call[:-1]).out
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT position, custom_id FROM edits ORDER BY position").all()
    assert rows == [(0, None), (1, None), (2, "a"), (3, None)]


def test_append_all_or_nothing(run_cli: CommandLine, engine: Engine, tmp_path: Path) -> None:
    """A custom_id of the batch, a missing file: every fault is told with its line, and nothing is added."""
    with engine.begin() as connection:
        make_batch(connection)
    run_cli("append", "last", manifest(tmp_path, {"custom_id": "a"}))
    path = manifest(tmp_path, {"custom_id": "a"}, {}, {"image_urls": ["missing.png"]})
    said = run_cli("append", "last", path, "--json")
    assert said.code == 2
    assert [(fault["line"], fault["field"]) for fault in said.lines] == [(3, "image_urls")]
    shown = run_cli("append", "last", path, "--on-invalid", "skip", "--json").json
    assert (shown["added"], shown["skipped"]) == (3, 2)
    assert in_states(engine) == {"pending": 3, "failed": 2}
    assert "nothing to retry: its 2 skipped lines" in run_cli("retry", "last").out
    said = run_cli("append", "last", manifest(tmp_path, {"custom_id": "a"}), "--json")
    assert (said.code, said.lines[0]["reason"]) == (2, "a is what an edit of the batch is called")


def test_append_knows_its_positions(run_cli: CommandLine, engine: Engine, tmp_path: Path) -> None:
    """An edit without a custom_id is called by its place in the batch, not in the manifest; nobody else may be."""
    with engine.begin() as connection:
        make_batch(connection, 2)
    said = run_cli("append", "last", manifest(tmp_path, {}, {"custom_id": "2"}), "--json")
    assert (said.code, said.lines[0]["line"], said.lines[0]["field"]) == (2, 2, "custom_id")
    assert run_cli("append", "last", manifest(tmp_path, {}, {"custom_id": "0"})).code == 2
    assert run_cli("append", "last", manifest(tmp_path, {}, {"custom_id": "7"})).code == 0


def test_append_to_a_finished_batch(run_cli: CommandLine, engine: Engine, tmp_path: Path) -> None:
    """It is refused before anything is uploaded."""
    with engine.begin() as connection:
        make_batch(connection)
    run_cli("cancel", "last")
    path = manifest(tmp_path, {"image_urls": ["missing.png"]})
    said = run_cli("append", "last", path)
    assert (said.code, said.err) == (2, "darkroom: The batch is cancelled; nothing can be added.\n")
    with engine.begin() as connection:
        settle_batches(connection)
    assert run_cli("pause", "last").err == "darkroom: The batch is finished; there is nothing to pause.\n"


@pytest.mark.parametrize("command", ["cancel", "pause", "resume", "retry", "status", "contact-sheet"])
def test_no_such_batch(run_cli: CommandLine, command: str) -> None:
    """A batch that does not exist is one sentence."""
    assert run_cli(command, "last").err == "darkroom: There is no batch yet.\n"
    unknown = uuid4()
    said = run_cli(command, unknown, "--json")
    assert (said.code, said.out, said.err) == (2, "", f"darkroom: There is no batch {unknown}.\n")
