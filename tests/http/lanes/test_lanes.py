"""The lanes against the emulator and the real database: nothing lost, nothing paid twice, nobody hammered."""

import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import Engine

from models.claims import claim_edits
from models.provider import count_unknown, pause, resume
from models.record_reports import record_reports
from tests.http.conftest import Away
from tests.support.factories import POLICY, PRICE, accept, answer, claim, make_batch, success
from tests.support.lane_runner import (
    LONG,
    Emulator,
    all_are,
    assert_stored_as_made,
    lane_runner,
    make_edits,
    sampling,
    stand,
    wait_for,
)
from tests.support.receiving import rows
from tests.support.servers import closed_port
from worker.lanes.settle import settle_due
from worker.lanes.submit import OUTAGE

pytestmark = pytest.mark.usefixtures("balanced")


def test_batch_from_end_to_end(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Two submit workers: one charge per edit, every image as made, the window used and never exceeded."""
    emulator.mark(concurrency=2, latency=0.05)
    batch_id = make_edits(engine, [f"edit {n}" for n in range(16)])

    def sample() -> tuple[int, int]:
        in_flight = rows(engine, "SELECT count(*) FROM edits WHERE state IN ('submitting', 'submitted')")[0][0]
        return in_flight, emulator.in_flight

    with lane_runner(engine, emulator, tmp_path, max_in_flight=5) as worker, sampling(sample) as window:
        worker.work_until(all_are(engine, stored=16), lanes=("submit", "submit", "poll", "download"))

    assert max(ours for ours, _ in window) == 5
    assert max(theirs for _, theirs in window) <= 5
    assert [row["charges"] for row in emulator.rows] == [1] * 16
    assert_stored_as_made(engine, emulator, tmp_path)
    assert rows(engine, "SELECT DISTINCT learned_by, outcome FROM submissions") == [("callback", "succeeded")]
    assert rows(engine, "SELECT count(*), sum(cost)::text FROM submissions") == [(16, "0.48")]
    assert settle_due(engine, worker.settings) == 1
    assert settle_due(engine, worker.settings) == 0
    assert rows(engine, "SELECT id FROM batches WHERE finished_at IS NOT NULL") == [(batch_id,)]


def test_request_as_the_provider_saw_it(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """The seed and the token of the submission in the database, and no other model than the one asked for."""
    make_edits(engine, ["a", "b"])
    with lane_runner(engine, emulator, tmp_path) as worker:
        worker.work_until(all_are(engine, stored=2))
        public = worker.settings.public_url

    seen = {(row["seed"], row["webhook_url"]) for row in emulator.rows}
    written = rows(engine, "SELECT e.seed, s.id FROM submissions s JOIN edits e ON e.id = s.edit_id")
    assert seen == {(seed, f"{public}/webhooks/fal/{token}") for seed, token in written}
    assert {row["headers"]["x-app-fal-disable-fallback"] for row in emulator.rows} == {"1"}


def test_polling_alone(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Without a public URL no callback is asked for, and the batch is finished all the same."""
    make_edits(engine, [f"edit {n}" for n in range(10)])
    with lane_runner(engine, emulator, tmp_path, without_callbacks=True, max_in_flight=4) as worker:
        worker.work_until(all_are(engine, stored=10))

    assert {row["webhook_url"] for row in emulator.rows} == {None}
    assert len(emulator.rows) == 10
    assert rows(engine, "SELECT DISTINCT learned_by, inference_time > 0 FROM submissions") == [("poll", True)]
    assert rows(engine, "SELECT count(*) FROM callbacks") == [(0,)]
    assert_stored_as_made(engine, emulator, tmp_path)


def test_lost_callbacks_are_made_up_for(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """A callback that never comes is asked for; one that comes twice, or after the poll, changes nothing."""
    prompts = [
        f"{n} [[fault:{kind}]]" for n in range(2) for kind in ("drop_webhook", "duplicate_webhook", "null_payload")
    ]
    make_edits(engine, prompts)
    with lane_runner(engine, emulator, tmp_path, poll_after=0.5) as worker:
        worker.work_until(all_are(engine, stored=6))

    assert [row["charges"] for row in emulator.rows] == [1] * 6
    assert rows(engine, "SELECT learned_by, count(*) FROM submissions GROUP BY 1 ORDER BY 1") == [
        ("callback", 2),
        ("poll", 4),
    ]
    assert_stored_as_made(engine, emulator, tmp_path)


@pytest.mark.parametrize("kind", ["reset_after_accept", "nginx_502_after", "broken_json", "missing_fields"])
def test_unknown_submit_is_healed(kind: str, engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Accepted, but the reply is spoilt: never sent again; the callback tells, and there is one charge for one edit."""
    make_edits(engine, [f"{n} [[fault:{kind}]]" for n in range(3)])
    with lane_runner(engine, emulator, tmp_path) as worker:
        worker.work_until(all_are(engine, stored=3))

    assert [row["charges"] for row in emulator.rows] == [1] * 3
    assert [row["faults"] for row in emulator.rows] == [[kind]] * 3
    assert rows(engine, "SELECT attempt, errors FROM edits") == [(1, [])] * 3
    assert (
        rows(engine, "SELECT outcome, learned_by, doubled FROM submissions") == [("succeeded", "callback", False)] * 3
    )
    assert_stored_as_made(engine, emulator, tmp_path)


def test_callback_overtakes_the_reply(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """The provider answers the POST only after its callback was taken: the late reply takes nothing back."""
    make_edits(engine, [f"{n} [[fault:webhook_before_reply]]" for n in range(4)])
    with lane_runner(engine, emulator, tmp_path) as worker:
        worker.work_until(all_are(engine, stored=4))

    assert [row["charges"] for row in emulator.rows] == [1] * 4
    assert rows(engine, "SELECT DISTINCT effect FROM callbacks") == [("applied",)]


def test_outcome_nobody_tells_is_never_sent_again(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """The reply is lost and no callback can come: the edit waits for its unknown deadline, there is no second POST."""
    make_edits(engine, ["a [[fault:reset_after_accept]]"])
    with lane_runner(engine, emulator, tmp_path, without_callbacks=True) as worker:
        worker.work_until(lambda: len(emulator.rows) == 1)
        began = time.monotonic()
        worker.work_until(lambda: time.monotonic() > began + 0.7)

    assert len(emulator.rows) == 1
    assert stand(engine) == {"submitting": 1}


def test_outage_pauses(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Where one POST after the other goes out and nothing usable comes back, submitting stops after a few."""
    emulator.faults(nginx_502_before=1)
    make_edits(engine, [f"edit {n}" for n in range(20)])
    with lane_runner(
        engine, emulator, tmp_path, without_callbacks=True, max_in_flight=1000, submit_threads=2
    ) as worker:
        worker.work_until(lambda: rows(engine, "SELECT 1 FROM provider_status WHERE reason <> ''"), lanes=("submit",))

    assert rows(engine, "SELECT reason FROM provider_status") == [("outage",)]
    assert OUTAGE <= stand(engine)["submitting"] < OUTAGE + 4


def test_unknown_replies_are_counted_over_all_workers(engine: Engine) -> None:
    """Two workers that see a few each see an outage together; an accepted reply to either begins the count anew."""
    with engine.begin() as connection:
        make_batch(connection, OUTAGE + 1)
        submissions = claim(connection)
    unknown = [submission.id for submission in submissions]
    counts = []
    for some in (unknown[:2], unknown[2:4], unknown[4:5]):
        with engine.begin() as connection:
            counts.append(count_unknown(connection, some))
    assert counts == [2, 4, OUTAGE]
    with engine.begin() as connection:
        accept(connection, submissions[5:])
        resume(connection)
    with engine.begin() as connection:
        assert count_unknown(connection, unknown[:1]) == 1


def test_lost_replies_do_not_crawl(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Every submit is accepted, every reply is lost, callbacks come: each proves that submitting works.

    The clock of a paused account would let one edit go in a minute.
    """
    emulator.mark(concurrency=40)
    emulator.faults(reset_after_accept=1)
    make_edits(engine, [f"edit {n}" for n in range(60)])

    def sample() -> int:
        return stand(engine).get("submitting", 0)

    with (
        lane_runner(engine, emulator, tmp_path, max_in_flight=12, provider_retry_after=60) as worker,
        sampling(sample) as window,
    ):
        worker.work_until(all_are(engine, stored=60), lanes=("submit", "submit", "poll", "download"))

    assert max(window) <= 12
    assert [row["charges"] for row in emulator.rows] == [1] * 60
    assert rows(engine, "SELECT paused_at, unknown_submits FROM provider_status WHERE paused_at IS NOT NULL") == []


@pytest.mark.parametrize(
    ("reason", "ends"), [("outage", True), ("unreachable", True), ("locked", False), ("invalid_key", False)]
)
def test_callback_that_proves_a_submit_ends_some_pauses(reason: str, ends: bool, engine: Engine) -> None:
    """A lost reply's callback says that submitting works; it does not say that a refused account is taken again."""
    with engine.begin() as connection:
        pause(connection, reason, "no", retry_after=600)
        make_batch(connection, 2)
        connection.exec_driver_sql("UPDATE provider_status SET retry_at = now()")
    with engine.begin() as connection:
        [probe] = claim(connection)
        count_unknown(connection, [probe.id])
    with engine.begin() as connection:
        record_reports(connection, [answer(probe, success())], POLICY)
    assert rows(engine, "SELECT paused_at IS NULL, unknown_submits FROM provider_status") == [(ends, 0)]


def test_callback_of_before_says_nothing_about_now(engine: Engine) -> None:
    """What the provider accepted before the run of lost submits began does not end the pause for it."""
    with engine.begin() as connection:
        make_batch(connection, 6)
        [early] = claim(connection, limit=1)
    with engine.begin() as connection:
        late = claim(connection)
        assert count_unknown(connection, [submission.id for submission in late]) == OUTAGE
        pause(connection, "outage", "no", retry_after=600)
    with engine.begin() as connection:
        record_reports(connection, [answer(early, success())], POLICY)
    assert rows(engine, "SELECT reason, unknown_submits FROM provider_status") == [("outage", OUTAGE)]


@pytest.mark.parametrize(
    ("kind", "reason"), [("bad_key_401", "invalid_key"), ("locked_403", "locked"), ("busy_429", "rate_limited")]
)
def test_refused_account_pauses(kind: str, reason: str, engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Submitting pauses, with the reason; no edit fails or loses an attempt; it resumes by itself."""
    emulator.faults(**{kind: "1*3"})
    make_edits(engine, [f"edit {n}" for n in range(6)])

    def sample() -> list[tuple]:
        return rows(engine, "SELECT reason FROM provider_status WHERE paused_at IS NOT NULL")

    with lane_runner(engine, emulator, tmp_path, max_in_flight=2) as worker, sampling(sample) as seen:
        worker.work_until(all_are(engine, stored=6))

    assert [(reason,)] in seen
    assert rows(engine, "SELECT paused_at, reason, retry_at, probes FROM provider_status") == [(None, None, None, 0)]
    assert rows(engine, "SELECT DISTINCT attempt, errors FROM edits") == [(1, [])]
    assert rows(engine, "SELECT outcome, count(*) FROM submissions GROUP BY 1 ORDER BY 1") == [
        ("rejected", 3),
        ("succeeded", 6),
    ]
    assert len(emulator.rows) == 6


def test_paused_account_is_left_in_peace(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """While the pause lasts nobody knocks; then one edit does, alone."""
    emulator.faults(locked_403=1)
    make_edits(engine, [f"edit {n}" for n in range(20)])
    with lane_runner(engine, emulator, tmp_path, max_in_flight=20, provider_retry_after=0.6) as worker:
        worker.work_until(lambda: rows(engine, "SELECT 1 FROM provider_status WHERE probes = 1"), lanes=("submit",))

    refused = rows(engine, "SELECT posted_at::text, count(*) FROM submissions GROUP BY 1 ORDER BY 1")
    assert refused[0][1] + refused[-1][1] == rows(engine, "SELECT count(*) FROM submissions")[0][0]
    assert refused[-1][1] == 1
    assert stand(engine) == {"pending": 20}
    assert emulator.rows == []


def test_provider_that_cannot_be_reached(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Nothing left the machine: no attempt is counted, submitting pauses as unreachable, and goes on once it can."""
    make_edits(engine, ["a", "b"])
    nowhere = f"http://127.0.0.1:{closed_port()}"
    with lane_runner(engine, emulator, tmp_path, fal_queue_url=nowhere, provider_retry_after=0.1) as worker:
        worker.work_until(lambda: rows(engine, "SELECT 1 FROM provider_status WHERE probes > 1"), lanes=("submit",))
    assert rows(engine, "SELECT reason FROM provider_status") == [("unreachable",)]
    assert rows(engine, "SELECT DISTINCT state, attempt, errors FROM edits") == [("pending", 0, [])]

    with lane_runner(engine, emulator, tmp_path, provider_retry_after=0.1) as worker:
        worker.work_until(all_are(engine, stored=2))


def test_replies_outlive_the_database(engine: Engine, emulator: Emulator, tmp_path: Path, database_away: Away) -> None:
    """The database goes away while eight paid POSTs are under way: all eight replies are recorded when it is back."""
    emulator.faults(slow_submit="1@0.4")
    make_edits(engine, [f"edit {n}" for n in range(8)])
    with lane_runner(engine, emulator, tmp_path, without_callbacks=True, poll_after=30) as worker:

        def outage() -> None:
            wait_for(lambda: len(emulator.rows) == 8)
            with database_away():
                time.sleep(1.0)

        thread = threading.Thread(target=outage)
        thread.start()
        worker.work_until(lambda: not thread.is_alive() and "submitting" not in stand(engine), lanes=("submit",))
        thread.join(LONG)

    assert stand(engine) == {"submitted": 8}
    assert {row["request_id"] for row in emulator.rows} == {
        request_id for (request_id,) in rows(engine, "SELECT request_id FROM submissions")
    }
    assert len(emulator.rows) == 8


def test_batch_window_and_priority(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """A batch's own window holds beside the account's, and the urgent batch goes first."""
    emulator.mark(concurrency=0)
    calm = make_edits(engine, [f"calm {n}" for n in range(6)], max_in_flight=2)
    urgent = make_edits(engine, [f"urgent {n}" for n in range(3)], priority=5)
    with lane_runner(engine, emulator, tmp_path, without_callbacks=True, max_in_flight=4) as worker:
        worker.work_until(all_are(engine, pending=5, submitted=4), lanes=("submit", "submit"))
        with engine.begin() as connection:
            assert claim_edits(connection, limit=10, window=4, probe_after=60, price=PRICE) == []

    in_flight = dict(rows(engine, "SELECT batch_id, count(*) FROM edits WHERE state = 'submitted' GROUP BY 1"))
    assert in_flight == {urgent: 3, calm: 1}
    assert len(emulator.rows) == 4


def test_stopped_lane_lets_its_calls_end(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Told to stop in the middle of a wave, the lane records every reply before it returns."""
    emulator.faults(slow_submit="1@0.3")
    make_edits(engine, [f"edit {n}" for n in range(6)])
    with lane_runner(engine, emulator, tmp_path, without_callbacks=True, poll_after=30, max_in_flight=3) as worker:
        made = worker.lane("submit")(engine, lambda: not emulator.rows)

    assert (made, stand(engine)) == (3, {"pending": 3, "submitted": 3})
