"""`darkroom errors`: every failed edit is found by its type, and what is tried again is not passed off as lost."""

import json

from sqlalchemy import Connection, Engine

from models.record_reports import record_reports
from models.transitions import cancel_batch
from models.verdict import Kind, Retry, Verdict
from tests.support.command_line import CommandLine
from tests.support.factories import POLICY, answer, make_batch, make_submitted, success

BLOCKED = Verdict(
    Kind.FAILED, error_type="content_policy_violation", message="two\nlines \x1b[31m [bold]", retry=Retry.NEVER
)
BUSY = Verdict(Kind.FAILED, error_type="internal_server_error", message="busy", retry=Retry.TRANSIENT)


def fail(connection: Connection, *, stored: int = 1) -> None:
    """A batch with three edits that failed, two that are tried again, and some without an error."""
    submissions = make_submitted(connection, 5 + stored)
    verdicts = [BUSY, BLOCKED, BLOCKED, BLOCKED, BUSY, *[success()] * stored]
    record_reports(connection, [*map(answer, submissions, verdicts)], POLICY)


def test_types_then_edits(run_cli: CommandLine, engine: Engine) -> None:
    """The most frequent type first with an example; then the edits, what failed for good before what goes on."""
    with engine.begin() as connection:
        fail(connection)
    lines = run_cli("errors", "last").out.splitlines()
    assert lines[:2] == [
        r"error  3 × content_policy_violation  two\nlines \x1b[31m [bold]",
        "error  2 × internal_server_error (0 for good)  busy",
    ]
    assert [line.split(", ")[0] for line in lines[2:]] == [
        "1  failed",
        "2  failed",
        "3  failed",
        "0  pending",
        "4  pending",
    ]
    assert lines[2].endswith(r": content_policy_violation  two\nlines \x1b[31m [bold]")


def test_for_a_script(run_cli: CommandLine, engine: Engine) -> None:
    """One object; what an edit's last error was, by the names of its columns."""
    with engine.begin() as connection:
        fail(connection)
    shown = run_cli("errors", "last", "--json").json
    assert [(row["type"], row["edits"], row["failed"]) for row in shown["types"]] == [
        ("content_policy_violation", 3, 3),
        ("internal_server_error", 2, 0),
    ]
    assert [edit["position"] for edit in shown["edits"]] == [1, 2, 3, 0, 4]
    first = shown["edits"][0]
    assert (first["custom_id"], first["state"], first["attempt"], first["type"]) == (
        None,
        "failed",
        1,
        BLOCKED.error_type,
    )
    assert json.loads(json.dumps(first["message"])) == BLOCKED.message


def test_of_one_type_and_no_more_than_asked_for(run_cli: CommandLine, engine: Engine) -> None:
    """`--error-type` holds for the edits, too; what the limit leaves out is counted."""
    with engine.begin() as connection:
        fail(connection)
    one = run_cli("errors", "last", "--error-type", "internal_server_error", "--json").json
    assert [edit["position"] for edit in one["edits"]] == [0, 4]
    said = run_cli("errors", "last", "--limit", 4)
    assert said.out.splitlines()[-1] == "The first 4 of 5 edits; more with --limit."
    assert "of this type" in run_cli("errors", "last", "--error-type", "no_such").out


def test_cancelled_edits_keep_their_errors(run_cli: CommandLine, engine: Engine) -> None:
    """Why an edit was not made at the first try is of interest after its batch was cancelled."""
    with engine.begin() as connection:
        fail(connection, stored=0)
        batch_id = connection.exec_driver_sql("SELECT id FROM batches").scalar_one()
        cancel_batch(connection, batch_id)
    shown = run_cli("errors", "last", "--json").json
    assert [(edit["position"], edit["state"]) for edit in shown["edits"]][3:] == [(0, "cancelled"), (4, "cancelled")]


def test_none(run_cli: CommandLine, engine: Engine) -> None:
    """A sentence, and nothing failed."""
    with engine.begin() as connection:
        batch_id = make_batch(connection)
    said = run_cli("errors", str(batch_id))
    assert (said.code, said.out) == (0, f"No edit of batch {batch_id} has an error.\n")
    assert run_cli("errors", "last", "--json").json == {"batch_id": str(batch_id), "types": [], "edits": []}
    assert run_cli("errors", "0" * 8).code == 2
