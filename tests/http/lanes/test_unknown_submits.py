"""Submits that nobody heard of, looked up in the emulator's listing: the right image, paid for once, or the reason why
nothing is known yet. What is right is read from the emulator's own books."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

import pytest
from sqlalchemy import Engine

from intake.batches import BatchHeader, create
from intake.manifest import read_jsonl
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
    LaneRunner,
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
from worker import unknown_search, unknown_submissions
from worker.settings import WorkerSettings
from worker.unknown_search import Search

pytestmark = pytest.mark.usefixtures("balanced")


@pytest.fixture
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """One of its own: thousands of requests in the books would be in the way of other tests."""
    with emulating(tmp_path_factory.mktemp("provider")) as emulator:
        yield emulator


SOON: dict[str, Any] = {"submit_start_timeout": 1.2, "run_allowance": 0.2, "delivery_allowance": 0.2}
"""A unknown deadline that a test can wait for."""


def make_inputs(engine: Engine, inputs: Sequence[dict[str, Any]]) -> None:
    """A batch of one prompt and one seed, as people write them; what differs is given."""
    lines = [json.dumps({"prompt": "put the hat on", "seed": 7, **one}) for one in inputs]
    with engine.begin() as connection:
        create(connection, BatchHeader(), read_jsonl(BytesIO("\n".join(lines).encode())))


def different(count: int) -> list[dict[str, Any]]:
    return [{"image_urls": [f"https://example.com/{n}.png"]} for n in range(count)]


def listed(emulator: Emulator) -> dict[str, dict[str, Any]]:
    """Inputs by request, as the provider keeps them."""
    url = f"{emulator.url}/v1/models/requests/by-endpoint"
    headers = {"Authorization": f"Key {KEY}"}
    found: dict[str, dict[str, Any]] = {}
    query: dict[str, str] = {"endpoint_id": ENDPOINT, "expand": "payloads", "limit": "100"}
    while True:
        page = emulator.session.get(url, params=query, headers=headers, timeout=10).json()
        found |= {item["request_id"]: item["json_input"] for item in page["items"]}
        if not page["has_more"]:
            return found
        query["cursor"] = page["next_cursor"]


def assert_every_image_is_of_its_input(engine: Engine, emulator: Emulator) -> None:
    """The request that each submission holds was made from the very input of its edit, and each holds another."""
    inputs = listed(emulator)
    held = rows(
        engine,
        "SELECT s.request_id, e.arguments, e.seed FROM submissions s JOIN edits e ON e.id = s.edit_id "
        "WHERE s.request_id IS NOT NULL",
    )
    for request_id, arguments, seed in held:
        assert inputs[request_id] == as_sent(arguments, seed)
    assert len({request_id for request_id, _, _ in held}) == len(held)


@contextmanager
def looking_up(engine: Engine, emulator: Emulator, folder: Path, **changes: Any):
    """The lanes without callbacks, and the looking up beside them as the poll task does it."""
    with lane_runner(engine, emulator, folder, without_callbacks=True, **{**SOON, **changes}) as worker:
        yield worker, lambda: unknown_submissions.look_up_unknown(engine, Listing(emulator.url, KEY), worker.settings)


def work(worker: LaneRunner, look: Callable[[], int], done: Callable[[], bool]) -> None:
    """The lanes and the looking up, until done."""

    def looked() -> bool:
        look()
        return done()

    worker.work_until(looked)


def post_all(worker: LaneRunner, emulator: Emulator, count: int) -> None:
    """Every POST goes out, no reply comes back, and every request has ended."""
    worker.work_until(lambda: len(emulator.rows) == count, lanes=("submit",))
    wait_for(lambda: emulator.in_flight == 0)


def add_others(emulator: Emulator, *, seconds: float) -> None:
    """Another program's requests on the account, more than fifty pages, that ended since."""
    given = {"count": 5_200, "seconds": seconds}
    emulator.session.post(f"{emulator.url}/_emulator/requests", json=given, timeout=60).raise_for_status()


def unheard(engine: Engine) -> list[tuple]:
    return rows(engine, "SELECT outcome, request_id, note FROM submissions ORDER BY posted_at, id")


def test_one_prompt_and_one_seed(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Thirty edits of one prompt and one seed, thirty inputs, no reply and no callback: each gets its own image."""
    emulator.mark(concurrency=100)
    emulator.faults(reset_after_accept=1)
    make_inputs(engine, different(30))
    with looking_up(engine, emulator, tmp_path, max_in_flight=100, provider_retry_after=0.05) as (worker, look):
        work(worker, look, all_are(engine, stored=30))

    assert [row["charges"] for row in emulator.rows] == [1] * 30
    assert_every_image_is_of_its_input(engine, emulator)
    assert_stored_as_made(engine, emulator, tmp_path)


def test_same_line_many_times(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Four edits that are the same in every respect: any may have any request, each has one, none is paid for again."""
    emulator.mark(concurrency=100)
    emulator.faults(reset_after_accept=1)
    make_inputs(engine, [{"image_urls": ["https://example.com/a.png"]}] * 4)
    with looking_up(engine, emulator, tmp_path, provider_retry_after=0.05) as (worker, look):
        work(worker, look, all_are(engine, stored=4))

    assert len(emulator.rows) == 4
    assert_every_image_is_of_its_input(engine, emulator)


def test_request_of_a_live_submission_is_never_taken(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Two of the same input, POSTed at different times, one request listed: neither has it before both are past their
    deadlines."""
    emulator.mark(concurrency=100)
    make_inputs(engine, [{"image_urls": ["https://example.com/a.png"]}])
    emulator.faults(nginx_502_before=1)  # it never arrives
    with looking_up(engine, emulator, tmp_path, provider_retry_after=0.05) as (worker, look):
        worker.work_until(all_are(engine, submitting=1), lanes=("submit",))
        time.sleep(0.8)
        make_inputs(engine, [{"image_urls": ["https://example.com/a.png"]}])
        emulator.faults(reset_after_accept=1)
        post_all(worker, emulator, 1)
        emulator.faults(reset_after_accept=0)
        wait_for(lambda: rows(engine, "SELECT 1 FROM submissions WHERE due_at <= now()"))
        assert look() == 1
        (first, second) = unheard(engine)
        assert (first[:2], second[:2]) == ((None, None), (None, None))
        assert "not past its own deadline" in first[2]
        work(worker, look, all_are(engine, stored=2))

    assert rows(engine, "SELECT outcome, count(*) FROM submissions GROUP BY 1 ORDER BY 1") == [
        ("succeeded", 2),
        ("unknown", 1),
    ]
    assert len(emulator.rows) == 2
    assert_every_image_is_of_its_input(engine, emulator)


@pytest.mark.parametrize("turn", [10.0, 0.0])
def test_long_listing(
    turn: float, engine: Engine, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than five thousand requests ended since: the lost one is found all the same, in one turn of reading or in
    many of one page each."""
    monkeypatch.setattr(unknown_search, "SLICE_SECONDS", turn)
    emulator.mark(concurrency=100)
    emulator.faults(reset_after_accept=1)
    make_inputs(engine, different(1))
    with looking_up(engine, emulator, tmp_path) as (worker, look):
        post_all(worker, emulator, 1)
        (mine,) = emulator.rows
        add_others(emulator, seconds=time.time() - mine["ended_at"] - 0.01)
        wait_for(lambda: rows(engine, "SELECT 1 FROM submissions WHERE due_at <= now()"))
        turns = 0
        while not rows(engine, "SELECT 1 FROM submissions WHERE request_id IS NOT NULL"):
            assert stand(engine) == {"submitting": 1}
            turns += look()
            assert turns < 200
    assert (turns == 1) == (turn > 0)
    assert_every_image_is_of_its_input(engine, emulator)


def test_a_listing_of_which_one_page_in_ten_is_refused(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Two long readings at different places: none comes to its end in one turn, and both go on where they were. The
    refusals are about the pages, so they are no denial: whoever reads anew each time, or gives up, pays twice."""
    emulator.mark(concurrency=100)
    emulator.faults(reset_after_accept=1, listing_401=0.05, listing_500=0.05)
    make_inputs(engine, different(6))
    with looking_up(engine, emulator, tmp_path) as (worker, look):
        post_all(worker, emulator, 6)
        add_others(emulator, seconds=time.time() - min(mine["ended_at"] for mine in emulator.rows) - 0.01)
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE submissions SET due_at = now() + mod(edit_id, 6) * interval '1 s'")
        began = time.monotonic()
        while rows(engine, "SELECT 1 FROM submissions WHERE request_id IS NULL"):
            look()
            time.sleep(0.02)
            assert time.monotonic() < began + 90
    assert rows(engine, "SELECT count(*), max(denials) FROM submissions") == [(6, 0)]
    emulator.faults(listing_401=0)
    assert_every_image_is_of_its_input(engine, emulator)


def test_what_ends_while_the_listing_is_read(
    engine: Engine, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request runs past every allowance and ends when the upper part of a long listing has been read already."""
    monkeypatch.setattr(unknown_search, "SLICE_SECONDS", 0.0)  # a page in a turn
    emulator.mark(concurrency=100)
    emulator.faults(reset_after_accept=1, slow_run="1@9")
    make_inputs(engine, different(1))
    with looking_up(engine, emulator, tmp_path) as (worker, look):
        worker.work_until(lambda: len(emulator.rows) == 1, lanes=("submit",))
        add_others(emulator, seconds=1)
        wait_for(lambda: rows(engine, "SELECT 1 FROM submissions WHERE due_at <= now()"))
        while not rows(engine, "SELECT 1 FROM submissions WHERE searched_to IS NOT NULL"):
            look()
        assert emulator.in_flight == 1
        wait_for(lambda: emulator.in_flight == 0)
        turns = 0
        while rows(engine, "SELECT 1 FROM submissions WHERE request_id IS NULL"):
            assert stand(engine) == {"submitting": 1}
            turns += look()
            assert turns < 200
    assert rows(engine, "SELECT count(*) FROM submissions") == [(1,)]


def test_nothing_in_a_long_listing_is_proof(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """It never arrived; the listing is read to its end, and only then it is submitted again."""
    emulator.mark(concurrency=100)
    emulator.faults(nginx_502_before="1*1")
    make_inputs(engine, different(1))
    with looking_up(engine, emulator, tmp_path) as (worker, look):
        worker.work_until(all_are(engine, submitting=1), lanes=("submit",))
        add_others(emulator, seconds=1)
        work(worker, look, all_are(engine, stored=1))
    assert rows(engine, "SELECT outcome FROM submissions ORDER BY attempt") == [("unknown",), ("succeeded",)]
    assert unheard(engine)[0][2] == unknown_submissions.IN_NO_LISTING


@pytest.mark.parametrize("status", [401, 403, 404, 503])
def test_listing_that_says_no_once(status: int, engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """A refusal, or no answer, proves nothing: the submit stays unknown, says why, and is found later."""
    emulator.mark(concurrency=100, listing_status=status)
    emulator.faults(reset_after_accept=1)
    make_inputs(engine, different(2))
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
    make_inputs(engine, different(1))
    with looking_up(engine, emulator, tmp_path, delivery_allowance=0.01, run_allowance=0.01) as (worker, look):
        worker.work_until(all_are(engine, submitting=1), lanes=("submit",))
        began, unknown_deadline = time.monotonic(), worker.settings.unknown_deadline
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
    make_inputs(engine, different(1))
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
    make_inputs(engine, different(1))
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
    make_inputs(engine, different(1))
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
    make_inputs(engine, different(1))
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
    make_inputs(engine, different(1))
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
    make_inputs(engine, different(1))
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
