"""The model is down for a while: nobody's edits pay for that, and an edit that is bad itself still ends."""

from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Engine

from models.incidents import EDITS, EXCUSED_MOST, FAILURES, INCIDENT_TYPES
from models.pauses import list_pauses
from models.record_reports import record_reports
from models.transitions import Submission, excuse_failures, resolve_unknown, settle_batches
from models.verdict import ERRORS, Retry, Verdict
from tests.support.factories import POLICY, accept, answer, claim, failure, fall_due, make_batch, states, success
from tests.support.lane_runner import Emulator, all_are, assert_stored_as_made, lane_runner, make_edits
from tests.support.receiving import rows
from worker.beat_scheduler import lanes_due

pytestmark = pytest.mark.usefixtures("balanced")

DOWN = failure("downstream_service_unavailable")


def end(engine: Engine, submissions: list[Submission], verdict: Verdict = DOWN) -> None:
    """The provider accepted these, and each ended so, in a callback of its own."""
    with engine.begin() as connection:
        accept(connection, submissions)
    for submission in submissions:
        with engine.begin() as connection:
            record_reports(connection, [answer(submission, verdict)], POLICY)


def submit(engine: Engine, limit: int = 100) -> list[Submission]:
    with engine.begin() as connection:
        fall_due(connection)
        return claim(connection, limit=limit)


def probe(engine: Engine) -> list[Submission]:
    """What is claimed once the clock of every pause has run out."""
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE lane_pauses SET retry_at = now()")
    return submit(engine)


def paused(engine: Engine) -> list[tuple[str, str]]:
    with engine.connect() as connection:
        return [(pause.lane, pause.reason) for pause in list_pauses(connection)]


def edits_of(engine: Engine, batch_id: UUID) -> list[tuple]:
    return rows(engine, f"SELECT state, attempt - attempts_before FROM edits WHERE batch_id = '{batch_id}'")


@pytest.mark.parametrize("kind", ["downstream_service_unavailable", "internal_server_error"])
def test_every_edit_survives_an_incident(kind: str, engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Everything fails for a while: 20 of 20 are stored, each paid for once, and hardly anybody knocks meanwhile."""
    emulator.faults(**{kind: 1})
    make_edits(engine, [f"edit {n}" for n in range(20)], max_attempts=2)
    lanes = ("submit", "poll", "download")
    with lane_runner(engine, emulator, tmp_path, max_in_flight=10, provider_retry_after=0.1) as worker:
        worker.work_until(lambda: rows(engine, "SELECT 1 FROM lane_pauses WHERE probes >= 3"), lanes=lanes)
        made = len(emulator.rows)
        assert paused(engine) == [("submit", "model_down")]
        assert "failed" not in states_now(engine)
        emulator.faults(**{kind: 0})
        worker.work_until(all_are(engine, stored=20), lanes=lanes)

    assert made <= 10 + 10 + 4
    assert sum(row["charges"] for row in emulator.rows) == 20
    assert paused(engine) == []
    assert_stored_as_made(engine, emulator, tmp_path)


def states_now(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return states(connection)


def test_incident_pauses_one_endpoint_and_gives_attempts_back(engine: Engine) -> None:
    """The failures that told of it do not count either, not even those that had been an edit's last attempt."""
    with engine.begin() as connection:
        batch_id = make_batch(connection, FAILURES, max_attempts=1, priority=1)
        other = make_batch(connection, 1)
        connection.exec_driver_sql("UPDATE batches SET endpoint = 'other/model' WHERE id = %s", (other,))
    submissions = submit(engine, limit=FAILURES)
    end(engine, submissions[:-1])
    assert edits_of(engine, batch_id).count(("failed", 1)) == FAILURES - 1
    end(engine, submissions[-1:])
    assert {state for state, _ in edits_of(engine, batch_id)} == {"pending"}
    assert {count for _, count in edits_of(engine, batch_id)} == {0}
    assert [s.endpoint for s in submit(engine)] == ["other/model"]
    with engine.connect() as connection:
        assert not lanes_due(connection)["submit"]
    assert rows(engine, "SELECT count(*) FROM submissions WHERE excused") == [(FAILURES,)]


def test_an_excused_edit_waits_for_its_first_submission(engine: Engine) -> None:
    """An earlier submission turns out to be in flight: the edit that comes back is not POSTed again beside it."""
    with engine.begin() as connection:
        make_batch(connection, 1)
        [first] = claim(connection)
        resolve_unknown(connection, [first.id], resubmit=True, max_attempts=2)
        fall_due(connection)
        [second] = claim(connection)
    end(engine, [second])
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE edits SET state = 'failed', due_at = NULL, finished_at = now()")
        accept(connection, [first])  # the first reply was only slow
        assert excuse_failures(connection, [second.id], most=6) == 1
        assert states(connection) == {"submitted": 1}


def test_probes_are_single_and_take_turns(engine: Engine) -> None:
    """One edit for each clock, first one that was never tried; a failed probe costs it nothing; a success resumes."""
    with engine.begin() as connection:
        make_batch(connection, FAILURES + 1)
    end(engine, submit(engine, limit=FAILURES))
    untried = rows(engine, "SELECT id FROM edits WHERE attempt = 0")
    first = probe(engine)
    assert [(submission.edit_id,) for submission in first] == untried
    assert submit(engine) == []
    end(engine, first)
    tried = [first[0].edit_id]
    for _ in range(FAILURES):
        [submission] = probe(engine)
        tried.append(submission.edit_id)
        end(engine, [submission])
    assert len(set(tried)) == FAILURES + 1
    assert rows(engine, "SELECT DISTINCT state, attempt - attempts_before FROM edits") == [("pending", 0)]
    end(engine, probe(engine), success())
    assert paused(engine) == []
    assert len(submit(engine)) == FAILURES


def test_bad_edit_still_uses_up_its_attempts(engine: Engine) -> None:
    """It fails like this always, while others succeed: it ends as ever, and pauses nobody."""
    with engine.begin() as connection:
        bad = make_batch(connection, 1)
    for _ in range(POLICY.max_attempts):
        end(engine, submit(engine))
        with engine.begin() as connection:
            make_batch(connection, 1)
        end(engine, submit(engine, limit=1) if not edits_pending(engine, bad) else others(engine, bad), success())
    assert edits_of(engine, bad) == [("failed", POLICY.max_attempts)]
    assert paused(engine) == []


def edits_pending(engine: Engine, batch_id: UUID) -> bool:
    return edits_of(engine, batch_id)[0][0] == "pending"


def others(engine: Engine, batch_id: UUID) -> list[Submission]:
    """What is claimed while that batch is paused."""
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE batches SET paused_at = now() WHERE id = %s", (batch_id,))
        claimed = claim(connection)
        connection.exec_driver_sql("UPDATE batches SET paused_at = NULL WHERE id = %s", (batch_id,))
    return claimed


def test_bad_edits_among_themselves_end(engine: Engine) -> None:
    """Nothing but bad edits looks like an incident: each is excused a few times, and then fails."""
    with engine.begin() as connection:
        batch_id = make_batch(connection, EDITS)
    for _ in range(EDITS * (EXCUSED_MOST + POLICY.max_attempts)):
        end(engine, probe(engine))
    assert edits_of(engine, batch_id) == [("failed", POLICY.max_attempts)] * EDITS


def test_two_edits_are_no_incident_until_a_third_fails(engine: Engine) -> None:
    """Two edits that fail may be bad themselves, and end; the failure of a third, of whichever batch, excuses all."""
    with engine.begin() as connection:
        batch_id = make_batch(connection, 2)
    for _ in range(POLICY.max_attempts):
        end(engine, submit(engine))
    assert edits_of(engine, batch_id) == [("failed", POLICY.max_attempts)] * 2
    assert paused(engine) == []
    with engine.begin() as connection:
        make_batch(connection, 1)
    end(engine, submit(engine))
    assert paused(engine) == [("submit", "model_down")]
    assert edits_of(engine, batch_id) == [("pending", 0)] * 2


def test_sound_edit_gets_past_bad_ones(engine: Engine) -> None:
    """Bad edits paused their endpoint; the next probe is an edit that was never tried, and its success ends that."""
    with engine.begin() as connection:
        make_batch(connection, EDITS)
    for _ in range(3):
        end(engine, submit(engine))
    assert paused(engine)
    with engine.begin() as connection:
        sound = make_batch(connection, 1)
    end(engine, probe(engine), success())
    assert edits_of(engine, sound)[0][0] == "ready"
    assert paused(engine) == []


@pytest.mark.parametrize("error", ["generation_timeout", "content_policy_violation", "file_download_error"])
def test_what_an_edit_brings_on_itself_is_no_incident(error: str, engine: Engine) -> None:
    """However many fail like that in a row."""
    assert error not in INCIDENT_TYPES <= ERRORS.keys()
    with engine.begin() as connection:
        make_batch(connection, 2 * FAILURES, max_attempts=1)
    end(engine, submit(engine), failure(error, Retry.NEVER))
    assert paused(engine) == []
    assert states_now(engine) == {"failed": 2 * FAILURES}


def test_who_was_told_stays_told(engine: Engine) -> None:
    """A batch that finished before the incident showed is not opened again."""
    with engine.begin() as connection:
        early = make_batch(connection, FAILURES - 1, max_attempts=1)
        make_batch(connection, 1)
    *first, last = sorted(submit(engine), key=lambda submission: submission.edit_id)
    end(engine, first)
    with engine.begin() as connection:
        assert settle_batches(connection) == [early]
    end(engine, [last])
    assert paused(engine)
    assert {state for state, _ in edits_of(engine, early)} == {"failed"}
    assert rows(engine, "SELECT count(*) FROM batches WHERE finished_at IS NOT NULL") == [(1,)]


def test_paused_account_and_paused_endpoint_do_not_wait_for_each_other(engine: Engine) -> None:
    """The probe of the account may be the probe of the endpoint too."""
    with engine.begin() as connection:
        make_batch(connection, FAILURES)
    end(engine, submit(engine))
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO provider_status (paused_at, reason, retry_at) VALUES (now(), 'locked', now())"
        )
    assert len(probe(engine)) == 1
