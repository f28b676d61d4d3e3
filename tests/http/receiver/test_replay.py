"""A replay takes stored callbacks as the receiver took them: it mends what a bug broke, and believes nothing more."""

from pathlib import Path

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine

from models.states import Effect
from models.verdict import Unreadable
from tests.support.command_line import CommandLine
from tests.support.factories import request_id
from tests.support.provider_callbacks import ACCOUNT, Provider, ok
from tests.support.receiving import deliver, effect, kept, rows, submitted, unanswered, world
from webhook_receiver import recording

pytestmark = pytest.mark.usefixtures("balanced")


@pytest.fixture
def run_cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, database_url: str
) -> CommandLine:
    return CommandLine(monkeypatch, capsys, tmp_path, DATABASE_URL=database_url, FAL_USER_ID=ACCOUNT)


def received_by_a_bug(
    client: FlaskClient, provider: Provider, engine: Engine, monkeypatch: pytest.MonkeyPatch, edits: int = 1
) -> None:
    """Successes that the receiver could not read."""

    def broken(_: bytes) -> None:
        raise Unreadable

    with monkeypatch.context() as bug:
        bug.setattr(recording, "read_callback", broken)
        for submission in submitted(engine, edits):
            answer = deliver(client, provider, submission.id, ok(request_id(submission)), request_id(submission))
            assert effect(answer) == "unreadable"


def test_a_mended_bug(
    run_cli: CommandLine, client: FlaskClient, provider: Provider, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be read is applied now, once; a second replay changes nothing any more."""
    received_by_a_bug(client, provider, engine, monkeypatch, edits=2)
    replayed = run_cli("replay", "--effect", "unreadable", "--json")
    change = {"before": "unreadable", "after": "applied", "count": 2}
    assert replayed.json == {"callbacks": 2, "applied": 2, "dry_run": False, "effects": [change]}
    assert rows(engine, "SELECT state FROM edits") == [("ready",)] * 2
    assert [row[0] for row in kept(engine)] == ["applied"] * 2
    before = world(engine)
    assert run_cli("replay", "last").out == "       2  applied -> duplicate\n2 callbacks taken again, 0 applied.\n"
    assert [row[0] for row in kept(engine)] == ["applied"] * 2
    assert world(engine) == before
    assert run_cli("replay", "--effect", "unreadable", "--json").json["callbacks"] == 0


def test_dry_run_changes_nothing(
    run_cli: CommandLine, client: FlaskClient, provider: Provider, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what would happen, and every row stays as it was."""
    received_by_a_bug(client, provider, engine, monkeypatch)
    before = world(engine), kept(engine)
    replayed = run_cli("replay", "--dry-run", "--json").json
    assert (replayed["applied"], replayed["dry_run"]) == (1, True)
    assert (world(engine), kept(engine)) == before
    assert "nothing was changed: a dry run." in run_cli("replay", "--dry-run").out


def test_stale_stays_stale(run_cli: CommandLine, client: FlaskClient, provider: Provider, engine: Engine) -> None:
    """Its age is that which it had when it came: the body is still not believed, only the request id."""
    [submission] = unanswered(engine)
    answer = deliver(client, provider, submission.id, ok("r"), "r", age=900)
    assert effect(answer) == "stale"
    assert run_cli("replay", "--json").json["effects"] == [{"before": "stale", "after": "stale", "count": 1}]
    assert rows(engine, "SELECT state FROM edits") == [("submitted",)]
    assert [row[0] for row in kept(engine)] == ["stale"]


def test_fresh_stays_fresh(
    run_cli: CommandLine, client: FlaskClient, provider: Provider, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was in time when it came is in time, however late the replay."""
    received_by_a_bug(client, provider, engine, monkeypatch)
    with engine.begin() as connection:
        for column in ("received_at", "signed_at"):
            connection.exec_driver_sql(f"UPDATE callbacks SET {column} = {column} - interval '9 days'")
    assert run_cli("replay", "--since", "8d", "--json").json["callbacks"] == 0
    assert run_cli("replay", "--since", "10d", "--json").json["applied"] == 1


def test_another_account(
    run_cli: CommandLine, client: FlaskClient, provider: Provider, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came while our account was not known, and is another's, is not believed now either."""
    received_by_a_bug(client, provider, engine, monkeypatch)
    run_cli.set(FAL_USER_ID="github|someone-else")
    before = world(engine)
    replayed = run_cli("replay", "--json").json
    assert replayed["effects"] == [{"before": "unreadable", "after": "other account", "count": 1}]
    assert world(engine) == before


def test_orphan_and_mismatch(run_cli: CommandLine, client: FlaskClient, provider: Provider, engine: Engine) -> None:
    """Strangers and contradictions stay what they are; nothing moves."""
    [submission] = submitted(engine)
    deliver(client, provider, "nobody", ok("r"), "r")
    deliver(client, provider, submission.id, ok("another"), "another")
    before = world(engine), kept(engine)
    assert [row[0] for row in kept(engine)] == ["orphan", "mismatch"]
    replayed = run_cli("replay", "--json").json
    assert {(way["before"], way["after"]) for way in replayed["effects"]} == {
        ("orphan", "orphan"),
        ("mismatch", "mismatch"),
    }
    assert (world(engine), kept(engine)) == before
    assert run_cli("replay", "last", "--json").json["callbacks"] == 1  # the orphan is no batch's


def test_an_orphan_finds_its_edit(
    run_cli: CommandLine, client: FlaskClient, provider: Provider, engine: Engine
) -> None:
    """A callback that came when its submission was not to be found is applied, and belongs to it then."""
    [submission] = submitted(engine)
    deliver(client, provider, submission.id, ok(request_id(submission)), request_id(submission))
    with engine.begin() as connection:  # as though a restored database had known nothing of it
        connection.exec_driver_sql(
            "UPDATE callbacks SET effect = 'orphan', submission_id = NULL, token = submission_id::text"
        )
        connection.exec_driver_sql("DELETE FROM images")
        connection.exec_driver_sql("UPDATE batch_counters SET images_waiting = 0")  # nothing of ours deletes a row
        connection.exec_driver_sql(
            """
            UPDATE submissions SET outcome = NULL, learned_by = NULL, due_at = now(), images_returned = NULL,
                cost = NULL, completed_at = NULL
            """
        )
        connection.exec_driver_sql("UPDATE edits SET state = 'submitted'")
    assert run_cli("replay", "last", "--effect", "orphan", "--json").json["applied"] == 1
    assert kept(engine) == [(Effect.APPLIED, submission.id)]


def test_wrong_options(run_cli: CommandLine) -> None:
    """A sentence each."""
    assert run_cli("replay", "--since", "lately").err.startswith("darkroom: --since 'lately' is neither a duration")
    assert run_cli("replay", "--effect", "odd").code == 2
