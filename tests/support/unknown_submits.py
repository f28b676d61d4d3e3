"""Submits that nobody heard of: the lanes that make them, and the provider's own books to hold the answers against."""

import json
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from intake.batches import BatchHeader, create
from intake.manifest import read_jsonl
from models.seedream import as_sent
from provider.listing import Listing
from tests.support.lane_runner import KEY, Emulator, LaneRunner, lane_runner, wait_for
from tests.support.queueing import ENDPOINT
from tests.support.receiving import rows
from worker import unknown_submissions

SOON: dict[str, Any] = {"submit_start_timeout": 1.2, "run_allowance": 0.2, "delivery_allowance": 0.2}
"""A unknown deadline that a test can wait for."""


def make_inputs(engine: Engine, emulator: Emulator, inputs: Sequence[dict[str, Any]]) -> None:
    """A batch of one prompt and one seed, as people write them; what differs is given. Tests that share the books have
    seeds of their own."""
    lines = [json.dumps({"prompt": "put the hat on", "seed": emulator.seen, **one}) for one in inputs]
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
        page = emulator.session.get(url, params=query, headers=headers, timeout=60).json()
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


def unheard(engine: Engine) -> list[tuple]:
    return rows(engine, "SELECT outcome, request_id, note FROM submissions ORDER BY posted_at, id")
