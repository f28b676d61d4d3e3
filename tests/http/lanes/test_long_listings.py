"""Submits that nobody heard of, looked up in a listing of more than fifty pages: in one turn of reading or in many."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.support.lane_runner import Emulator, all_are, emulating, stand, wait_for
from tests.support.receiving import rows
from tests.support.unknown_submits import (
    assert_every_image_is_of_its_input,
    different,
    looking_up,
    make_inputs,
    post_all,
    unheard,
    work,
)
from worker import unknown_search, unknown_submissions

pytestmark = pytest.mark.usefixtures("balanced")


@pytest.fixture
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """One of its own: hundreds of requests in the books would be in the way of other tests."""
    with emulating(tmp_path_factory.mktemp("provider")) as emulator:
        yield emulator


SMALL_PAGES: dict[str, Any] = {"concurrency": 100, "listing_page": 10}
"""So that some hundred requests are a listing of more than fifty pages."""


def add_others(emulator: Emulator, *, seconds: float) -> None:
    """Another program's requests on the account, more than fifty small pages, that ended since."""
    given = {"count": 520, "seconds": seconds}
    emulator.session.post(f"{emulator.url}/_emulator/requests", json=given, timeout=60).raise_for_status()


@pytest.mark.parametrize("turn", [10.0, 0.0])
def test_long_listing(
    turn: float, engine: Engine, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than fifty pages of requests ended since: the lost one is found all the same, in one turn of reading or in
    many of one page each."""
    monkeypatch.setattr(unknown_search, "SLICE_SECONDS", turn)
    emulator.mark(**SMALL_PAGES)
    emulator.faults(reset_after_accept=1)
    make_inputs(engine, emulator, different(1))
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
    emulator.mark(**SMALL_PAGES)
    emulator.faults(reset_after_accept=1, listing_401=0.05, listing_500=0.05)
    make_inputs(engine, emulator, different(6))
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
    emulator.mark(**SMALL_PAGES)
    emulator.faults(reset_after_accept=1, slow_run="1@9")
    make_inputs(engine, emulator, different(1))
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
    emulator.mark(**SMALL_PAGES)
    emulator.faults(nginx_502_before="1*1")
    make_inputs(engine, emulator, different(1))
    with looking_up(engine, emulator, tmp_path) as (worker, look):
        worker.work_until(all_are(engine, submitting=1), lanes=("submit",))
        add_others(emulator, seconds=1)
        work(worker, look, all_are(engine, stored=1))
    assert rows(engine, "SELECT outcome FROM submissions ORDER BY attempt") == [("unknown",), ("succeeded",)]
    assert unheard(engine)[0][2] == unknown_submissions.IN_NO_LISTING
