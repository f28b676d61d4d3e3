"""The doctor with things broken on purpose: it names the one that is, says what to do, and never takes long."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from cli.doctor import lane_checks
from cli.stack.broker_readiness import redis_answers
from cli.stack.readiness import until
from models.claims import claim_polls
from models.pauses import pause_lane
from models.provider import pause
from tests.support.command_line import CommandLine, Said
from tests.support.factories import accept, claim, fall_due, make_batch, make_submitted
from tests.support.lane_runner import KEY, Emulator, emulating
from tests.support.running_stack import broker_process
from tests.support.servers import closed_port, serve
from worker.lanes import LANES
from worker.webhook_signing import new_secret

BOUND = 60.0
"""Seconds that no examination may take, with everything silent, on a busy machine."""


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with emulating(tmp_path_factory.mktemp("emulator")) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """A broker to which no worker listens."""
    with broker_process() as (url, process):
        assert until(lambda: redis_answers(url), timeout=60)
        yield url
        process.terminate()


@pytest.fixture
def healthy(run_cli: CommandLine, emulator: Emulator, redis_url: str, quick_doctor: None) -> CommandLine:
    """Everything is there but workers and a receiver."""
    for name in ("FAL_QUEUE_URL", "FAL_REST_URL", "FAL_API_URL", "FAL_CDN_URL"):
        run_cli.set(**{name: emulator.url})
    run_cli.set(REDIS_URL=redis_url, FAL_KEY=KEY)
    return run_cli


def findings(said: Said) -> dict[str, dict[str, Any]]:
    """By check; the worst where one check found several."""
    order = ["ok", "warning", "fault"]
    found: dict[str, dict[str, Any]] = {}
    for line in said.lines:
        assert set(line) == {"check", "result", "message", "advice"}
        before = found.get(line["check"])
        if before is None or order.index(line["result"]) >= order.index(before["result"]):
            found[line["check"]] = line
    assert said.code == (1 if any(line["result"] == "fault" for line in said.lines) else 0)
    return found


def bad(run_cli: CommandLine) -> dict[str, str]:
    """What is not ok, and what was said of it."""
    return {
        check: f"{found['message']} {found['advice']}"
        for check, found in findings(run_cli("doctor", "--json")).items()
        if found["result"] != "ok"
    }


def test_all_but_the_workers(healthy: CommandLine) -> None:
    """Everything that is there is ok, in an order that a person can follow; nothing is left in storage."""
    found = findings(healthy("doctor", "--json"))
    assert [check for check, one in found.items() if one["result"] != "ok"] == ["workers"]
    assert "submit" in found["workers"]["message"]
    assert list(found)[:4] == ["settings", "database", "schema", "clock"]
    assert {"broker", *LANES, "provider", "keys", "address", "storage"} <= set(found)
    said = healthy("doctor")
    assert said.out.splitlines()[-1] == "1 fault."
    assert all(line.split()[0] in ("ok", "fault") for line in said.out.splitlines()[:-2])


def test_every_line_is_explained(healthy: CommandLine) -> None:
    """The page for the night explains each line that the doctor may print."""
    page = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    checks = {line["check"] for line in healthy("doctor", "--json").lines} | {"stack"}
    assert [check for check in checks if f"`{check}`" not in page] == []


def test_storage_is_left_as_it_was(healthy: CommandLine, tmp_path: Path) -> None:
    """Only the doctor's own object comes and goes."""
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "doctor-of-somebody-else").write_text("theirs")
    healthy("doctor")
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["doctor-of-somebody-else"]


def test_redis_gone(healthy: CommandLine) -> None:
    """The broker is named, and that nothing is lost; what needs no broker is looked at all the same."""
    healthy.set(REDIS_URL=f"redis://:secret@127.0.0.1:{closed_port()}/0")
    wrong = bad(healthy)
    assert set(wrong) == {"broker"}
    assert "nothing is lost" in wrong["broker"]
    assert "secret" not in wrong["broker"]


def test_database_gone(healthy: CommandLine) -> None:
    """The database is named; what stands in it is not asked for, everything else is."""
    healthy.set(DATABASE_URL=f"postgresql://postgres@127.0.0.1:{closed_port()}/none")
    found = findings(healthy("doctor", "--json"))
    assert found["database"]["result"] == "fault"
    assert "schema" not in found
    assert found["storage"]["result"] == found["provider"]["result"] == "ok"


def test_model_down(healthy: CommandLine, engine: Engine) -> None:
    """What is paused, since when and why, and that nobody need do anything."""
    with engine.begin() as connection:
        pause_lane(connection, "submit", "a/model", reason="model_down", message="5 in a row failed", retry_after=600)
    found = findings(healthy("doctor", "--json"))["pauses"]
    assert found["result"] == "warning"
    assert "a/model" in found["message"]
    assert "5 in a row failed; next try" in found["message"]


def test_schema_old(healthy: CommandLine, engine: Engine) -> None:
    """It says how to bring it up, and asks no view that may not be there."""
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    found = findings(healthy("doctor", "--json"))
    assert "run `darkroom migrate`" in found["schema"]["message"]
    assert "accounting" not in found


def test_settings_wrong(healthy: CommandLine) -> None:
    """Each wrong one is a line of its own; what does not need them is checked."""
    healthy.set(MAX_IN_FLIGHT="0", CALLBACK_MAX_BYTES="lots", RETRY_DELAY="-1")
    said = healthy("doctor", "--json")
    names = [line["message"].split()[0] for line in said.lines if line["check"] == "settings"]
    assert sorted(names) == ["CALLBACK_MAX_BYTES", "MAX_IN_FLIGHT", "RETRY_DELAY"]
    assert findings(said)["database"]["result"] == "ok"


def test_no_stack(run_cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing runs and nothing is set it says how to start."""
    monkeypatch.delenv("DATABASE_URL")
    found = findings(run_cli("doctor", "--json"))
    assert "darkroom up" in found["stack"]["message"]


def test_key_wrong(healthy: CommandLine) -> None:
    """The provider's own word, and what to do; without a key it is not asked, and that is no fault."""
    healthy.set(FAL_KEY="not-a-key")
    wrong = bad(healthy)
    assert "invalid_key" in wrong["provider"]
    assert "darkroom resume --provider" in wrong["provider"]
    assert "not-a-key" not in json.dumps(wrong)
    healthy.set(FAL_KEY=" ")
    assert findings(healthy("doctor", "--json"))["provider"]["result"] == "warning"


def test_storage_does_not_take_it(healthy: CommandLine, tmp_path: Path) -> None:
    """A store that cannot be written is a fault, whatever the reason."""
    (tmp_path / "file").write_text("")
    healthy.set(STORAGE_URL=(tmp_path / "file" / "images").as_uri())
    assert "does not take an image" in bad(healthy)["storage"]
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / ".incoming").write_text("in the way")
    healthy.set(STORAGE_URL=folder.as_uri())
    assert "does not take an image" in bad(healthy)["storage"]


def test_nobody_at_our_address(healthy: CommandLine) -> None:
    """A warning, because from the provider it may be otherwise; somebody else's page is not our receiver."""
    healthy.set(PUBLIC_URL=f"http://127.0.0.1:{closed_port()}")
    found = findings(healthy("doctor", "--json"))["address"]
    assert (found["result"], "From here it may be otherwise" in found["advice"]) == ("warning", True)
    with serve(lambda line: line.reply(200, b"[1, 2]")) as wire:
        healthy.set(PUBLIC_URL=wire.url)
        assert findings(healthy("doctor", "--json"))["address"]["result"] == "warning"
    with serve(lambda line: line.reply(200, b'{"status": "ok"}')) as wire:
        healthy.set(PUBLIC_URL=wire.url)
        assert findings(healthy("doctor", "--json"))["address"]["result"] == "ok"


def test_keys_unreadable(healthy: CommandLine) -> None:
    """A key set without a key."""
    with serve(lambda line: line.reply(200, b'{"keys": []}')) as wire:
        healthy.set(FAL_JWKS_URL=wire.url)
        assert "holds no Ed25519 key" in bad(healthy)["keys"]


def test_silence_is_bounded(healthy: CommandLine) -> None:
    """Servers that take the connection and say nothing do not hold it up for long."""
    healthy.set(SUBMIT_START_TIMEOUT="1")
    with serve(lambda line: line.silence(BOUND), reads=False) as wire:
        healthy.set(PUBLIC_URL=wire.url, FAL_JWKS_URL=wire.url, FAL_QUEUE_URL=wire.url)
        healthy.set(REDIS_URL=f"redis://127.0.0.1:{wire.port}/0")
        started = time.monotonic()
        wrong = bad(healthy)
        assert time.monotonic() - started < BOUND
    assert {"broker", "address", "keys", "provider"} <= set(wrong)


@pytest.mark.parametrize(("reason", "result"), [("locked", "fault"), ("rate_limited", "warning")])
def test_account_paused(healthy: CommandLine, engine: Engine, reason: str, result: str) -> None:
    """A pause that no waiting mends is a fault, another one a warning; the submit lane is not blamed for it."""
    with engine.begin() as connection:
        make_batch(connection)
        pause(connection, reason, f"{reason}: 403 no", retry_after=600)
    found = findings(healthy("doctor", "--json"))
    assert (found["account"]["result"], reason in found["account"]["message"]) == (result, True)
    assert found["submit"]["result"] == "ok"


def test_a_probe_is_not_used_up(healthy: CommandLine, engine: Engine) -> None:
    """An account that is due to be probed is still due afterwards; that nobody probes it is seen."""
    with engine.begin() as connection:
        make_batch(connection)
        pause(connection, "outage", "outage", retry_after=600)
        connection.exec_driver_sql("UPDATE provider_status SET retry_at = now() - interval '1 minute'")
        connection.exec_driver_sql("UPDATE edits SET due_at = now() - interval '1 minute'")
    with engine.connect() as connection:
        before = connection.exec_driver_sql("SELECT * FROM provider_status").all()
    assert findings(healthy("doctor", "--json"))["submit"]["result"] == "fault"
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT * FROM provider_status").all() == before


def test_accounts_that_do_not_balance(healthy: CommandLine, engine: Engine) -> None:
    """The identity that does not hold is named."""
    with engine.begin() as connection:
        make_batch(connection)
        connection.exec_driver_sql("UPDATE batches SET edit_count = 7")
    assert "edits = sum over states: 6 unexplained" in bad(healthy)["accounting"]


def test_counters_that_say_otherwise_than_the_rows(healthy: CommandLine, engine: Engine) -> None:
    """A look at the counters does not show it; the audit does."""
    with engine.begin() as connection:
        make_batch(connection)
        connection.exec_driver_sql("UPDATE batch_counters SET cost = cost + 1")
    assert findings(healthy("doctor", "--json"))["accounting"]["result"] == "ok"
    found = findings(healthy("doctor", "--audit", "--json"))["accounting"]
    assert "counters of batches = their rows: 1 unexplained" in found["message"]


def test_overdue_rows(healthy: CommandLine, engine: Engine) -> None:
    """What waits too long is counted."""
    with engine.begin() as connection:
        make_submitted(connection, 2)
        connection.exec_driver_sql("UPDATE submissions SET due_at = now() - interval '3 hours'")
    assert "2 submissions unanswered, late by up to 3 h 0 min" in bad(healthy)["overdue"]


def test_due_work_that_nobody_takes(healthy: CommandLine, engine: Engine) -> None:
    """Due rows that stay first in line: the lane is at fault, the others are not, and not a row is changed."""
    with engine.begin() as connection:
        accept(connection, claim(connection) if make_batch(connection, 2) else [])
        make_batch(connection, 1)
        fall_due(connection)
        connection.exec_driver_sql("UPDATE submissions SET due_at = due_at - interval '1 minute'")
        connection.exec_driver_sql("UPDATE edits SET due_at = due_at - interval '1 minute' WHERE state = 'pending'")
    query = "SELECT s.*, e.state, e.due_at FROM submissions s JOIN edits e ON e.id = s.edit_id ORDER BY s.id"
    with engine.connect() as connection:
        before = connection.exec_driver_sql(query).all()
    wrong = bad(healthy)
    assert {"submit", "poll"} == set(wrong) - {"workers", "overdue"}
    assert "no worker takes it" in wrong["poll"]
    with engine.connect() as connection:
        assert connection.exec_driver_sql(query).all() == before


def test_a_busy_lane_is_no_fault(healthy: CommandLine, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the line, and however old it is: while somebody takes from its head the lane is well."""
    monkeypatch.setattr(lane_checks, "WATCHED_FOR", 60.0)
    with engine.begin() as connection:
        make_submitted(connection, 40)
        connection.exec_driver_sql("UPDATE submissions SET due_at = now() - interval '1 hour'")
    over = threading.Event()

    def take() -> None:
        while not over.wait(0.1):
            with engine.begin() as connection:
                claim_polls(connection, limit=1, lease=600)

    thread = threading.Thread(target=take)
    thread.start()
    try:
        assert findings(healthy("doctor", "--json"))["poll"]["result"] == "ok"
    finally:
        over.set()
        thread.join()


def test_a_full_window_is_no_fault(healthy: CommandLine, engine: Engine) -> None:
    """Edits that wait for a free slot are not work that nobody takes."""
    healthy.set(MAX_IN_FLIGHT="2")
    with engine.begin() as connection:
        make_batch(connection, 5)
        accept(connection, claim(connection, limit=2))
        connection.exec_driver_sql("UPDATE edits SET due_at = now() - interval '1 hour' WHERE state = 'pending'")
    assert findings(healthy("doctor", "--json"))["submit"]["result"] == "ok"


def test_notification_nobody_sends(healthy: CommandLine, engine: Engine) -> None:
    """A caller who is not told is seen too."""
    with engine.begin() as connection:
        connection.exec_driver_sql(
            """
            INSERT INTO notifications (id, batch_id, event, url, payload, due_at)
            VALUES (%s, %s, 'batch.finished', 'https://example.com', '{}', now() - interval '5 minutes')
            """,
            (uuid4(), make_batch(connection)),
        )
        connection.exec_driver_sql("UPDATE batches SET paused_at = now()")
    assert "notify" in bad(healthy)


def test_clients_that_can_forge_each_others_messages(healthy: CommandLine, engine: Engine) -> None:
    """Several clients behind one secret are named; so is one that has none."""
    with engine.begin() as connection:
        for client in ("shop", "press"):
            make_batch(connection, client=client, notify_url="https://example.com/hook")
    assert "press, shop: their messages wait" in bad(healthy)["notify"]
    healthy.set(NOTIFY_SECRET=new_secret())
    assert "press, shop share one NOTIFY_SECRET" in bad(healthy)["notify"]
    healthy.set(NOTIFY_SECRET=f"press:{new_secret()},{new_secret()}")
    assert "notify" not in bad(healthy)
