"""Requests of other programs on the same account, thousands at once: a long listing. fal has no such route."""

import json
import time
import uuid
from typing import Any

from aiohttp import web

from .authentication import json_object, origin
from .catalogue import EDIT
from .emulator import Emulator, emulator_of
from .endpoints import parse
from .job import Job, Verdict

MOST = 100_000
SECONDS = 600.0


async def add_requests(request: web.Request) -> web.Response:
    """`POST /_emulator/requests`: `{"count": 5000, "seconds": 600, "input": {…}}`: as many that ended since."""
    emulator, given = emulator_of(request), await json_object(request)
    count, seconds, shared = given.get("count"), given.get("seconds", SECONDS), given.get("input", {})
    if not isinstance(count, int) or not 1 <= count <= MOST:
        raise web.HTTPBadRequest(text=f"count must lie between 1 and {MOST}\n")
    if not isinstance(seconds, int | float) or not isinstance(shared, dict):
        raise web.HTTPBadRequest(text="seconds must be a number, input an object\n")
    endpoint_id = str(given.get("endpoint_id", EDIT))
    now = time.time()
    for number in range(count):
        _add(emulator, endpoint_id, origin(request), {"seed": number, **shared}, now - seconds * number / count)
    await emulator.store.committed()
    return web.json_response({"added": count})


def _add(emulator: Emulator, endpoint_id: str, base: str, given: dict[str, Any], ended_at: float) -> None:
    endpoint, request_id, seed = parse(endpoint_id), str(uuid.uuid4()), given["seed"]
    job = Job(
        seq=0,
        request_id=request_id,
        gateway_request_id=request_id,
        endpoint_id=endpoint_id,
        app_id=endpoint.app_id if endpoint else endpoint_id,
        origin=base,
        webhook_url=None,
        seed=seed,
        low_priority=False,
        start_by=None,
        no_retry=False,
        store_io=True,
        direct=False,
        lifecycle=None,
        headers="{}",
        markers="",
        injected="",
        submitted_at=ended_at - 1,
        started_at=ended_at - 1,
    )
    emulator.ledger.accept(job, json.dumps(given).encode())
    emulator.ledger.finish(job, Verdict(200, {"images": [], "seed": seed}, seed=seed), ended_at)
