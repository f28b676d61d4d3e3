"""The emulator's own routes under `/_emulator`: the ledger, the state, faults, live knobs. fal has none of them."""

import json
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from aiohttp import web

from . import BANNER
from .authentication import json_object, refusal
from .crowd import add_requests
from .emulator import Emulator, emulator_of
from .faults import UnknownFault
from .job import Job
from .reads import RESULT, Read

MOST_ROWS = 10_000
ROWS = 1_000  # per page unless asked otherwise


def ledger_rows(emulator: Emulator, jobs: list[Job]) -> list[dict[str, Any]]:
    """Accepted requests, as an auditor compares them."""
    inputs = emulator.reads.inputs([job.seq for job in jobs])
    reads = emulator.reads.of([job.request_id for job in jobs])
    return [_row(emulator, job, inputs.get(job.seq), reads) for job in jobs]


def _row(emulator: Emulator, job: Job, input_sha256: str | None, reads: dict[tuple[str, str], Read]) -> dict[str, Any]:
    images = json.loads(job.images)
    files = [emulator.files.own_path(image["url"], job.origin) or "" for image in images]
    return {
        "input_sha256": input_sha256,
        "store_io": bool(job.store_io) and emulator.options.store_io,
        "reads": {
            "result": asdict(reads.get((job.request_id, RESULT), Read())),
            "files": [asdict(reads.get((job.request_id, path), Read())) for path in files],
        },
        "seq": job.seq,
        "request_id": job.request_id,
        "gateway_request_id": job.gateway_request_id,
        "endpoint_id": job.endpoint_id,
        "webhook_url": job.webhook_url,
        "seed": job.seed,
        "state": job.state,
        "outcome": job.status,
        "error_type": job.error_type,
        "attempts": job.attempts,
        "charges": job.billed_units,
        "images": len(images),
        "sha256": [image["sha256"] for image in images],
        "urls": [image["url"] for image in images],
        "faults": job.injected.split(",") if job.injected else [],
        "headers": json.loads(job.headers),
        "submitted_at": job.submitted_at,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "cancelled_at": job.cancelled_at,
        "webhook": {
            "state": job.webhook_state,
            "tries": job.webhook_tries,
            "status": job.webhook_status,
            "delivered_at": job.delivered_at,
        },
    }


def counts(emulator: Emulator) -> dict[str, Any]:
    """Where everything stands."""
    return {
        **asdict(emulator.ledger.totals),
        "in_queue": len(emulator.runner.line),
        "in_progress": emulator.runner.running,
        "webhooks_owed": emulator.webhooks.owed,
    }


def _number(request: web.Request, name: str, default: int, most: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isdigit():
        raise web.HTTPBadRequest(text=f"{name} must be a whole number\n")
    return min(int(text), most)


async def ledger(request: web.Request) -> web.Response:
    """`GET /_emulator/ledger?after=SEQ&limit=N`: totals and a page of rows; `next` is the next `after`."""
    emulator = emulator_of(request)
    limit = max(1, _number(request, "limit", ROWS, MOST_ROWS))
    jobs = emulator.ledger.page(_number(request, "after", 0, 2**62), limit)
    rows = ledger_rows(emulator, jobs)
    following = jobs[-1].seq if len(jobs) == limit else None
    return web.json_response({"totals": counts(emulator), "rows": rows, "next": following})


async def state(request: web.Request) -> web.Response:
    """`GET /_emulator/state`: what this is, its counts and its knobs; keys are not shown."""
    emulator = emulator_of(request)
    options = {
        field.name: str(value) if isinstance(value := getattr(emulator.options, field.name), Path) else value
        for field in fields(emulator.options)
        if field.name not in ("key", "admin_key", "fault")
    }
    uptime = round(time.time() - emulator.started_at, 3)
    return web.json_response({"emulator": BANNER, "uptime": uptime, "counts": counts(emulator), "options": options})


async def show_faults(request: web.Request) -> web.Response:
    """`GET /_emulator/faults`: rules, counts of what was injected, and the table of kinds."""
    return web.json_response(emulator_of(request).faults.report())


async def put_faults(request: web.Request) -> web.Response:
    """`PUT /_emulator/faults`: the whole new set of rules, `{}` for none."""
    given = await json_object(request)
    try:
        emulator_of(request).faults.replace(given)
    except UnknownFault as error:
        return refusal(400, str(error))
    return await show_faults(request)


async def put_options(request: web.Request) -> web.Response:
    """`PUT /_emulator/options`: turn live knobs, for example `{"latency": 0.5, "concurrency": 8}`."""
    given = await json_object(request)
    try:
        emulator_of(request).change(given)
    except (ValueError, TypeError) as error:
        return refusal(400, str(error))
    return await state(request)


async def rotate_key(request: web.Request) -> web.Response:
    """`POST /_emulator/rotate-key`: `{"keep_old": true}` leaves the previous key published."""
    given = await json_object(request) if request.can_read_body else {}
    emulator = emulator_of(request)
    kid = emulator.keys.rotate(keep_old=bool(given.get("keep_old", False)))
    await emulator.store.committed()
    return web.json_response({"kid": kid, "published": len(emulator.keys.jwks()["keys"])})


async def redeliver(request: web.Request) -> web.Response:
    """`POST /_emulator/redeliver/{request_id}`: one more attempt for a finished request."""
    emulator = emulator_of(request)
    job = emulator.find(request.match_info["request_id"])
    if job is None or job.ended_at is None or not job.webhook_url:
        return refusal(404, "there is no finished request of this id with a webhook")
    emulator.webhooks.redeliver(job)
    return web.json_response({"request_id": job.request_id, "webhook_url": job.webhook_url}, status=202)


def add_routes(app: web.Application) -> None:
    """Hang the administrative routes up."""
    app.router.add_get("/_emulator/ledger", ledger)
    app.router.add_get("/_emulator/state", state)
    app.router.add_get("/_emulator/faults", show_faults)
    app.router.add_put("/_emulator/faults", put_faults)
    app.router.add_put("/_emulator/options", put_options)
    app.router.add_post("/_emulator/rotate-key", rotate_key)
    app.router.add_post("/_emulator/redeliver/{request_id}", redeliver)
    app.router.add_post("/_emulator/requests", add_requests)
