"""Whoever asks, by SQL, on the command line or over HTTP, is told the same of a batch at one moment."""

import os
from typing import Any

from sqlalchemy import Engine

from models.record_reports import record_reports
from models.transitions import cancel_batch, settle_batches
from models.verdict import Retry
from tests.support.api_client import intake_app
from tests.support.command_line import CommandLine
from tests.support.factories import POLICY, accept, answer, claim, failure, make_batch, success

STATES = ("pending", "submitting", "submitted", "ready", "stored", "failed", "cancelled")
NUMBERS = (*STATES, "edits", "skipped", "cost", "committed", "images_waiting", "images_stored", "images_failed")


def make_everything(engine: Engine) -> str:
    """A batch with edits in most states, an error that passes and one that does not; its id."""
    with engine.begin() as connection:
        batch_id = make_batch(connection, 8, max_cost="5")
        submissions = claim(connection, limit=6)
        accept(connection, submissions[:5])
        verdicts = [success(2), failure("no_images", Retry.NEVER), failure(), success()]
        record_reports(connection, [*map(answer, submissions[:4], verdicts)], POLICY)
    return str(batch_id)


def ask_sql(engine: Engine, batch_id: str) -> dict[str, Any]:
    with engine.connect() as connection:
        row = (
            connection.exec_driver_sql("SELECT * FROM batch_progress WHERE batch_id = %s", (batch_id,)).mappings().one()
        )
        errors = connection.exec_driver_sql(
            "SELECT type, edits, failed FROM errors_by_type WHERE batch_id = %s ORDER BY edits DESC, type", (batch_id,)
        ).all()
    return {name: as_number(row[name]) for name in NUMBERS} | {
        "errors": [tuple(map(as_text, error)) for error in errors]
    }


def as_number(value: object) -> float | None:
    return None if value is None else float(str(value))


def as_text(value: object) -> str:
    return str(value)


def of_row(row: dict[str, Any]) -> dict[str, Any]:
    return {name: as_number(row[name]) for name in NUMBERS}


def of_errors(errors: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [(error["type"], str(error["edits"]), str(error["failed"])) for error in errors]


def test_each_number_is_the_same_wherever_it_is_read(run_cli: CommandLine, engine: Engine) -> None:
    """`status`, `batches`, `top`, `watch`, `errors`, the detail of the HTTP API, and the view."""
    batch_id = make_everything(engine)
    expected = ask_sql(engine, batch_id)
    assert [expected[state] for state in STATES] == [3, 1, 1, 2, 0, 1, 0]
    numbers = {name: expected[name] for name in NUMBERS}

    status = run_cli("status", batch_id, "--json").json
    assert (of_row(status), of_errors(status["errors"])) == (numbers, expected["errors"])
    assert of_row(run_cli("batches", "--json").lines[0]) == numbers
    overview = run_cli("top", "--once", "--json").json
    assert of_row(overview["running"][0]) == numbers
    in_flight = {row["state"]: row["edits"] for row in overview["in_flight"]}
    assert in_flight == {"submitting": expected["submitting"], "submitted": expected["submitted"]}
    assert of_errors(run_cli("errors", batch_id, "--json").json["types"]) == expected["errors"]

    with intake_app(os.environ["DATABASE_URL"]) as app:
        detail = app.test_client().get(f"/v1/batches/{batch_id}").get_json()
    assert {state: detail["counts"][state] for state in STATES} == {state: expected[state] for state in STATES}
    images = {f"images_{state}": float(detail["images"][state]) for state in ("waiting", "stored", "failed")}
    assert images == {name: expected[name] for name in images}
    assert (detail["edits"], float(detail["cost"])) == (expected["edits"], expected["cost"])

    with engine.begin() as connection:
        cancel_batch(connection, status["batch_id"])
        connection.exec_driver_sql(
            "UPDATE edits SET state = 'cancelled', due_at = NULL, finished_at = now() WHERE due_at IS NOT NULL"
        )
        settle_batches(connection)
    watched = run_cli("watch", batch_id, "--json").lines[-1]
    ended = ask_sql(engine, batch_id)
    assert (of_row(watched), of_errors(watched["errors"])) == ({name: ended[name] for name in NUMBERS}, ended["errors"])
