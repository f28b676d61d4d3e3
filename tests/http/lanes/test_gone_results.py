"""A paid result is not gone because of one 404; and a listing that cannot be read to its end is no answer."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from core.errors import TryLater
from models.provider import pause, resume
from provider import listing as listing_module
from provider.listing import Listing
from tests.support.factories import make_submitted
from tests.support.lane_runner import KEY, LONG, Emulator, lane_runner, stand
from tests.support.receiving import rows
from tests.support.servers import Peer, serve
from worker.lanes import poll

ENDPOINT = "fal-ai/bytedance/seedream/v4/edit"
NOW = datetime.now(UTC)
CLOCKS = {"submit_start_timeout": 0.6, "run_allowance": 0.2, "delivery_allowance": 0.1, "result_retention": 0.6}


def answering_404(peer: Peer) -> bool:
    return peer.reply(404, b'{"detail": "Request not found"}')


def expired(engine: Engine) -> list[tuple]:
    return rows(engine, "SELECT type FROM edit_errors")


def test_result_is_gone_only_after_several_404s(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """None counts before the request can have ended; then it takes several, over as long as a result is kept."""
    began = time.monotonic()  # no later than the acceptance from which the product counts
    with engine.begin() as connection:
        make_submitted(connection)
        connection.exec_driver_sql("UPDATE submissions SET due_at = now()")
    with (
        serve(answering_404) as wire,
        lane_runner(engine, emulator, tmp_path, without_callbacks=True, **CLOCKS) as worker,
    ):
        worker.settings = worker.settings.model_copy(update={"fal_queue_url": wire.url})
        ask = worker.lane("poll")
        while time.monotonic() < began + 0.8:
            ask(engine, lambda: True)
            denials = rows(engine, "SELECT denials FROM submissions")
            assert denials == [(0,)] or time.monotonic() >= began + 0.8
        assert expired(engine) == []
        first = time.monotonic()
        while not expired(engine):
            ask(engine, lambda: True)
            time.sleep(0.02)
            assert time.monotonic() < first + LONG
        assert time.monotonic() >= first + CLOCKS["result_retention"] - 0.1
    assert expired(engine) == [("result_expired",)]
    assert stand(engine) == {"failed": 1}


def test_404_between_answers_counts_for_nothing(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Whatever else the queue answers, it still has the request: the count begins anew."""
    with engine.begin() as connection:
        make_submitted(connection)
        connection.exec_driver_sql("UPDATE submissions SET accepted_at = now() - interval '1 day', due_at = now()")

    def script(peer: Peer) -> bool:
        script.count += 1
        if script.count % 3:
            return answering_404(peer)
        return peer.reply(202, b'{"status": "IN_PROGRESS", "logs": null}')

    script.count = 0
    with serve(script) as wire, lane_runner(engine, emulator, tmp_path, without_callbacks=True, **CLOCKS) as worker:
        worker.settings = worker.settings.model_copy(update={"fal_queue_url": wire.url, "poll_every": 0.1})
        ask, began = worker.lane("poll"), time.monotonic()
        while script.count < 9 or time.monotonic() < began + 3 * CLOCKS["result_retention"]:
            ask(engine, lambda: True)
            time.sleep(0.02)
            assert time.monotonic() < began + LONG
    assert expired(engine) == []


def ask_a_day_later(engine: Engine, ask: Callable[[Engine, Callable[[], bool]], int]) -> None:
    """One more question, long after the last one; `poll_every` keeps it from being asked twice."""
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE submissions SET due_at = now(), denied_since = denied_since - interval '1 day'"
        )
    assert ask(engine, lambda: True) == 1


def test_two_404s_are_few_however_far_apart(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Time alone proves nothing: each may be somebody's mistake, so it takes several answers."""
    with engine.begin() as connection:
        make_submitted(connection)
        connection.exec_driver_sql("UPDATE submissions SET accepted_at = now() - interval '1 day'")
    with (
        serve(answering_404) as wire,
        lane_runner(engine, emulator, tmp_path, without_callbacks=True, **CLOCKS) as worker,
    ):
        worker.settings = worker.settings.model_copy(update={"fal_queue_url": wire.url, "poll_every": 60})
        for _ in range(poll.DENIALS - 1):
            ask_a_day_later(engine, worker.lane("poll"))
        assert expired(engine) == []
        ask_a_day_later(engine, worker.lane("poll"))
    assert expired(engine) == [("result_expired",)]
    assert poll.DENIALS >= 3


def test_404s_of_a_paused_account_count_for_nothing(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """What a paused account is refused is about the account, however often and for how long."""
    with engine.begin() as connection:
        make_submitted(connection)
        connection.exec_driver_sql("UPDATE submissions SET accepted_at = now() - interval '1 day'")
        pause(connection, "invalid_key", "no", retry_after=3600)
    with (
        serve(answering_404) as wire,
        lane_runner(engine, emulator, tmp_path, without_callbacks=True, **CLOCKS) as worker,
    ):
        worker.settings = worker.settings.model_copy(update={"fal_queue_url": wire.url, "poll_every": 60})
        for _ in range(2 * poll.DENIALS):
            ask_a_day_later(engine, worker.lane("poll"))
        assert expired(engine) == []
        assert rows(engine, "SELECT denials FROM submissions") == [(0,)]
        with engine.begin() as connection:
            resume(connection)
        for _ in range(poll.DENIALS):
            ask_a_day_later(engine, worker.lane("poll"))
    assert expired(engine) == [("result_expired",)]


def item(number: int, ended_at: datetime, **more: object) -> dict[str, object]:
    given = {"prompt": "x" * 10, "image_urls": ["https://e.com/a.png"], "seed": number}
    return {
        "request_id": f"r{number}",
        "ended_at": ended_at.isoformat(),
        "status_code": 200,
        "json_input": given,
        **more,
    }


def read(url: str) -> list[str]:
    pages = Listing(url, KEY).pages(ENDPOINT, NOW - timedelta(hours=1), NOW)
    return [one.request_id for page in pages for one in page.items]


@pytest.mark.parametrize(
    "page",
    [
        {"items": [item(1, NOW - timedelta(minutes=9)), item(2, NOW)], "next_cursor": None, "has_more": False},
        {"items": [item(1, NOW)], "next_cursor": None, "has_more": True},
        {"items": [item(1, NOW)], "next_cursor": "same", "has_more": True},
        {"nothing": []} | {"items": {}},
        {},
        {"detail": "maintenance"},
        {"items": None, "next_cursor": None, "has_more": False},
        {"items": []},
        {"items": [item(1, NOW)], "next_cursor": None},
    ],
    ids=[
        "out of order",
        "more, but no cursor",
        "a cursor that leads nowhere",
        "no list",
        "nothing at all",
        "a message",
        "null for a list",
        "nothing about the rest",
        "an item, and nothing about the rest",
    ],
)
def test_listing_that_does_not_prove_its_end(page: dict[str, object]) -> None:
    """It is no answer: whoever takes it for one holds a request to be dead that is listed further on."""
    with serve(lambda peer: peer.reply(200, json.dumps(page).encode())) as wire, pytest.raises(TryLater):
        read(wire.url)


def test_large_inputs_make_small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs of megabytes: fewer a page, until a page fits; every request is listed once."""
    monkeypatch.setattr(listing_module, "SEVERAL_MAX_BYTES", 2_000)
    items = [item(number, NOW - timedelta(seconds=number), pad="x" * 800) for number in range(10)]

    whole: list[int] = []

    def script(peer: Peer) -> bool:
        query = dict(part.split("=") for part in peer.request.target.partition("?")[2].split("&"))
        start = int(query.get("cursor", 0))
        end = start + int(query["limit"])
        more = end < len(items)
        page = {"items": items[start:end], "next_cursor": str(end) if more else None, "has_more": more}
        body = json.dumps(page).encode()
        whole.append(len(body) if len(body) <= 2_000 else 0)
        return peer.reply(200, body)

    with serve(script) as wire:
        assert read(wire.url) == [f"r{number}" for number in range(10)]
    assert whole[0] == 0
    assert sum(map(bool, whole)) >= 5
