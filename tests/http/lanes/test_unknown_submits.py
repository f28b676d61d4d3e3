"""Submits that nobody heard of, looked up in the emulator's listing: the right image, paid for once, or the reason why
nothing is known yet. What is right is read from the emulator's own books."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

import pytest
from PIL import Image
from sqlalchemy import Engine

from models.claims import DueUnknown, claim_unknown
from models.provider import pause
from models.seedream import as_sent, identify_input
from models.transitions import DenialCount
from provider.listing import Listed, Listing
from tests.support.factories import claim
from tests.support.lane_runner import (
    KEY,
    LONG,
    Emulator,
    all_are,
    assert_stored_as_made,
    emulating,
    lane_runner,
    stand,
    wait_for,
)
from tests.support.queueing import ENDPOINT
from tests.support.receiving import rows
from tests.support.servers import Peer, serve
from tests.support.unknown_submits import (
    assert_every_image_is_of_its_input,
    different,
    listed,
    looking_up,
    make_inputs,
    post_all,
    unheard,
    work,
)
from worker import unknown_submissions
from worker.settings import WorkerSettings
from worker.unknown_search import Search

pytestmark = pytest.mark.usefixtures("balanced")


@pytest.fixture(scope="module")
def emulator_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """One for this file: the listing is searched for whatever other tests have asked for."""
    with emulating(tmp_path_factory.mktemp("provider")) as emulator:
        yield emulator


def test_one_prompt_and_one_seed(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Thirty edits of one prompt and one seed, thirty inputs, no reply and no callback: each gets its own image."""
    emulator.mark(concurrency=100)
    emulator.faults(reset_after_accept=1)
    make_inputs(engine, emulator, different(30))
    with looking_up(engine, emulator, tmp_path, max_in_flight=100, provider_retry_after=0.05) as (worker, look):
        work(worker, look, all_are(engine, stored=30))

    assert [row["charges"] for row in emulator.rows] == [1] * 30
    assert_every_image_is_of_its_input(engine, emulator)
    assert_stored_as_made(engine, emulator, tmp_path)


def test_same_line_many_times(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Four edits that are the same in every respect: any may have any request, each has one, none is paid for again."""
    emulator.mark(concurrency=100)
    emulator.faults(reset_after_accept=1)
    make_inputs(engine, emulator, [{"image_urls": ["https://example.com/a.png"]}] * 4)
    with looking_up(engine, emulator, tmp_path, provider_retry_after=0.05) as (worker, look):
        work(worker, look, all_are(engine, stored=4))

    assert len(emulator.rows) == 4
    assert_every_image_is_of_its_input(engine, emulator)


def pass_time(engine: Engine, *, seconds: int) -> None:
    """Whatever was POSTed was POSTed so long ago."""
    with engine.begin() as connection:
        for table, moments in {"submissions": ("posted_at", "due_at"), "edits": ("due_at",)}.items():
            ago = ", ".join(f"{moment} = {moment} - interval '{seconds} s'" for moment in moments)
            connection.exec_driver_sql(f"UPDATE {table} SET {ago}")


def test_request_of_a_live_submission_is_never_taken(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Two of the same input, POSTed at different times, one request listed: neither has it before both are past their
    deadlines."""
    emulator.mark(concurrency=100)
    make_inputs(engine, emulator, [{"image_urls": ["https://example.com/a.png"]}])
    emulator.faults(nginx_502_before=1)  # it never arrives
    with looking_up(engine, emulator, tmp_path, provider_retry_after=0.05, submit_start_timeout=60) as (worker, look):
        worker.work_until(all_are(engine, submitting=1), lanes=("submit",))
        pass_time(engine, seconds=61)
        make_inputs(engine, emulator, [{"image_urls": ["https://example.com/a.png"]}])
        emulator.faults(reset_after_accept=1)
        post_all(worker, emulator, 1)
        emulator.faults(reset_after_accept=0)
        assert look() == 1
        (first, second) = unheard(engine)
        assert (first[:2], second[:2]) == ((None, None), (None, None))
        assert "not past its own deadline" in first[2]
        pass_time(engine, seconds=61)
        work(worker, look, all_are(engine, stored=2))

    assert rows(engine, "SELECT outcome, count(*) FROM submissions GROUP BY 1 ORDER BY 1") == [
        ("succeeded", 2),
        ("unknown", 1),
    ]
    assert len(emulator.rows) == 2
    assert_every_image_is_of_its_input(engine, emulator)


@pytest.mark.parametrize("status", [401, 403, 404, 503])
def test_listing_that_says_no_once(status: int, engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """A refusal, or no answer, proves nothing: the submit stays unknown, says why, and is found later."""
    emulator.mark(concurrency=100, listing_status=status)
    emulator.faults(reset_after_accept=1)
    make_inputs(engine, emulator, different(2))
    with looking_up(engine, emulator, tmp_path) as (worker, look):
        post_all(worker, emulator, 2)
        wait_for(lambda: rows(engine, "SELECT 1 FROM submissions WHERE due_at <= now() HAVING count(*) = 2"))
        assert look() == 2
        assert stand(engine) == {"submitting": 2}
        assert [row[0] for row in unheard(engine)] == [None, None]
        assert all(str(status) in note for _, _, note in unheard(engine))
        assert rows(engine, "SELECT DISTINCT reason LIKE '%%by-endpoint%%' FROM unanswered") == [(True,)]
        emulator.ask("PUT", "options", listing_status=200)
        work(worker, look, all_are(engine, stored=2))
    assert len(emulator.rows) == 2
    assert_every_image_is_of_its_input(engine, emulator)


@pytest.mark.parametrize(("status", "ends"), [(403, True), (503, False)])
def test_listing_that_keeps_saying_no(
    status: int, ends: bool, engine: Engine, emulator: Emulator, tmp_path: Path
) -> None:
    """A key that may never read it: the deadline alone decides in the end. A listing that is only away: never."""
    emulator.mark(concurrency=100, listing_status=status)
    emulator.faults(nginx_502_before="1*1")
    make_inputs(engine, emulator, different(1))
    short = {"submit_start_timeout": 0.5, "delivery_allowance": 0.01, "run_allowance": 0.01}
    with looking_up(engine, emulator, tmp_path, **short) as (worker, look):
        began = time.monotonic()  # no later than the POST from which the product counts
        worker.work_until(all_are(engine, submitting=1), lanes=("submit",))
        unknown_deadline = worker.settings.unknown_deadline
        while time.monotonic() < began + (1 + unknown_submissions.PERSISTS) * unknown_deadline:
            assert stand(engine) == {"submitting": 1}
            look()
            time.sleep(0.02)
        deadline = time.monotonic() + (LONG if ends else 2 * unknown_deadline)
        while stand(engine) == {"submitting": 1} and time.monotonic() < deadline:
            look()
            time.sleep(0.02)
    assert stand(engine) == ({"pending": 1} if ends else {"submitting": 1})
    ((_, _, note),) = unheard(engine)
    assert note == unknown_submissions.UNREADABLE if ends else "503" in note


@pytest.mark.parametrize(
    ("before", "over", "dead"), [(0, 99, False), (1, 99, False), (2, 99, True), (2, 2.4, False), (50, 2.4, False)]
)
def test_refusals_must_be_several_and_persist(before: int, over: float, dead: bool, database_url: str) -> None:
    """Two refusals are few, however far apart; fifty are few within an hour."""
    settings = WorkerSettings(database_url=database_url, redis_url="redis://127.0.0.1:1/0")
    posted_at = datetime.now(UTC) - timedelta(days=2)
    due = DueUnknown(UUID(int=1), ENDPOINT, posted_at, before + 1, before, over * settings.unknown_deadline, None, None)
    refused = Search([], posted_at, None, "not for this key (403)", refused=True)
    decided = unknown_submissions.decide_lookup(due, refused, hidden=False, paused=False, settings=settings)
    assert (decided is None) == dead
    assert dead or (decided is not None and decided.denials is DenialCount.ADD and decided.delay > 0)


def test_refusals_of_a_paused_account_do_not_count(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """While the account is paused whatever it is refused is about the account."""
    emulator.mark(concurrency=100, listing_status=403)
    emulator.faults(nginx_502_before="1*1")
    make_inputs(engine, emulator, different(1))
    with looking_up(engine, emulator, tmp_path) as (worker, look):
        worker.work_until(all_are(engine, submitting=1), lanes=("submit",))
        with engine.begin() as connection:
            pause(connection, "locked", "exhausted balance", retry_after=3600)
        wait_for(lambda: look())
    assert rows(engine, "SELECT denials, note IS NOT NULL FROM submissions") == [(0, True)]


def test_requests_without_their_inputs_prove_nothing(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """The account keeps no payloads: what is listed may be the lost one, so it is not said to be dead at once."""
    emulator.mark(concurrency=100)
    emulator.faults(reset_after_accept=1)
    make_inputs(engine, emulator, different(1))
    with looking_up(engine, emulator, tmp_path, fal_store_io=False) as (worker, look):
        post_all(worker, emulator, 1)
        wait_for(lambda: rows(engine, "SELECT 1 FROM submissions WHERE due_at <= now()"))
        look()
    ((outcome, request_id, note),) = unheard(engine)
    assert (outcome, request_id) == (None, None)
    assert "without their inputs" in note


@pytest.mark.parametrize("spoil", [{"request_id": None}, {"request_id": 7, "id": "x"}, {"json_input": "{}"}])
def test_an_entry_that_cannot_be_read_proves_nothing(
    spoil: dict[str, Any], engine: Engine, emulator: Emulator, tmp_path: Path
) -> None:
    """It may be the lost one, in a form that the provider did not document: the edit is not paid for again at once."""
    make_inputs(engine, emulator, different(1))
    with engine.begin() as connection:
        (submission,) = claim(connection)
        connection.exec_driver_sql("UPDATE submissions SET due_at = now()")
    entry = {
        "request_id": "lost",
        "sent_at": datetime.now(UTC).isoformat(),
        "ended_at": datetime.now(UTC).isoformat(),
        "status_code": 200,
        "json_input": as_sent(submission.arguments, submission.seed),
    }
    page = json.dumps({"items": [entry | spoil], "next_cursor": None, "has_more": False}).encode()
    with serve(lambda peer: peer.reply(200, page)) as wire, looking_up(engine, emulator, tmp_path) as (worker, _):
        assert unknown_submissions.look_up_unknown(engine, Listing(wire.url, KEY), worker.settings) == 1
    assert stand(engine) == {"submitting": 1}
    ((outcome, request_id, note),) = unheard(engine)
    assert (outcome, request_id) == (None, None)
    assert "without their inputs" in note


def test_who_was_given_more_time_than_is_given_now(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """The clocks were set shorter meanwhile: the listing is read over the time that this request was allowed."""
    make_inputs(engine, emulator, different(1))
    with engine.begin() as connection:
        (submission,) = claim(connection)
        connection.exec_driver_sql("UPDATE submissions SET posted_at = posted_at - interval '1500 s', due_at = now()")
        connection.exec_driver_sql("UPDATE edits SET due_at = due_at - interval '1500 s'")
    entry = {
        "request_id": "lost",
        "sent_at": (datetime.now(UTC) - timedelta(seconds=1500)).isoformat(),
        "ended_at": (datetime.now(UTC) - timedelta(seconds=50)).isoformat(),
        "status_code": 200,
        "json_input": as_sent(submission.arguments, submission.seed),
    }

    def script(peer: Peer) -> bool:
        assert peer.request
        (end,) = parse_qs(peer.request.target.partition("?")[2])["end"]
        page = {"items": [entry] if entry["ended_at"] <= end else [], "next_cursor": None, "has_more": False}
        return peer.reply(200, json.dumps(page).encode())

    with serve(script) as wire, looking_up(engine, emulator, tmp_path) as (worker, _):
        unknown_submissions.look_up_unknown(engine, Listing(wire.url, KEY), worker.settings)
    assert unheard(engine)[0][:2] == (None, "lost")


def test_a_failure_is_nobodys_while_the_listing_is_read(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Another program's failed request of the same input stands before ours, which was paid for: to take the failure
    would have the edit paid for again."""
    make_inputs(engine, emulator, different(1))
    with engine.begin() as connection:
        [submission] = claim(connection)
        connection.exec_driver_sql("UPDATE submissions SET due_at = now()")
    identity = identify_input(as_sent(submission.arguments, submission.seed))

    def listed(request_id: str, status: int) -> Listed:
        now = datetime.now(UTC)
        return Listed(request_id, identity, True, status, now, now)

    with lane_runner(engine, emulator, tmp_path, without_callbacks=True) as worker, engine.begin() as connection:
        due = claim_unknown(connection, limit=9, lease=60)
        for search, request in (
            (Search([listed("theirs", 500)], datetime.now(UTC)), None),
            (Search([listed("theirs", 500)], None, trouble="no answer"), None),
            (Search([listed("theirs", 500), listed("ours", 200)], None), "ours"),
        ):
            if search.trouble:
                search = search._replace(down_to=datetime.now(UTC))
            unknown_submissions.record_listing_search(
                connection, due, {submission.id: identity}, search, worker.settings
            )
            assert connection.exec_driver_sql("SELECT request_id FROM submissions").scalar_one() == request


def test_of_two_successes_the_own_is_taken(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Another program asked for the very same a little later; its images may be spoilt, while ours are paid for."""
    make_inputs(engine, emulator, different(1))
    with engine.begin() as connection:
        [submission] = claim(connection)
        connection.exec_driver_sql("UPDATE submissions SET due_at = now()")
    identity = identify_input(as_sent(submission.arguments, submission.seed))
    now = datetime.now(UTC)
    theirs = Listed("theirs", identity, True, 200, now + timedelta(seconds=9), now + timedelta(seconds=10))
    ours = Listed("ours", identity, True, 200, now, now + timedelta(seconds=1))
    with lane_runner(engine, emulator, tmp_path, without_callbacks=True) as worker, engine.begin() as connection:
        due = claim_unknown(connection, limit=9, lease=60)
        unknown_submissions.record_listing_search(
            connection, due, {submission.id: identity}, Search([theirs, ours], None), worker.settings
        )
        assert connection.exec_driver_sql("SELECT request_id FROM submissions").scalar_one() == "ours"


def test_objects_of_the_store_are_matched_by_what_was_sent(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Edits that name objects, of one prompt and one seed, no reply and no callback: each gets its own, paid once."""
    emulator.mark(concurrency=100)
    folder = tmp_path / "inputs" / "local"
    folder.mkdir(parents=True)
    for number in range(4):
        Image.new("RGB", (64, 64 + number)).save(folder / f"{number}.png")
    make_inputs(engine, emulator, [{"image_urls": [f"storage://{number}.png"]} for number in range(4)])
    with looking_up(engine, emulator, tmp_path, provider_retry_after=0.05) as (worker, look):
        ready = "SELECT count(*) FROM batches WHERE inputs_ready_to IS NULL"
        worker.work_until(lambda: rows(engine, ready) == [(1,)], lanes=("prepare",))
        emulator.faults(reset_after_accept=1)
        work(worker, look, all_are(engine, stored=4))

    assert [row["charges"] for row in emulator.rows] == [1] * 4
    sent = rows(engine, "SELECT request_id, sent_urls ->> '0' FROM submissions")
    inputs = listed(emulator)
    assert {request: inputs[request]["image_urls"][0] for request, _ in sent} == dict(sent)
