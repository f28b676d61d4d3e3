"""Status, status stream, result and cancel of a request (provider-protocol 2.2 to 2.5)."""

import asyncio
import json
import time
from typing import Any

from aiohttp import web

from . import disturbances
from .authentication import auth_error, refusal
from .emulator import Emulator, emulator_of
from .endpoints import parse, request_urls
from .job import COMPLETED, IN_QUEUE, Job
from .reads import RESULT
from .runlog import lines
from .verdicts import REQUEST_ERRORS

STREAM_LOOK_EVERY = 0.2  # seconds between two looks at a streamed status
KEEP_ALIVE_EVERY = 15.0  # seconds between comment lines


def _lookup(request: web.Request) -> tuple[Emulator, Job | None, web.Response | None]:
    """The request a URL names; a right id under another application is unknown, too."""
    emulator = emulator_of(request)
    endpoint = parse(request.match_info["endpoint"])
    app_id = endpoint.app_id if endpoint else request.match_info["endpoint"]
    if problem := auth_error(request, app_id):
        return emulator, None, refusal(401, problem)
    job = emulator.find(request.match_info["request_id"])
    return emulator, job if job and job.app_id == app_id else None, None


def describe(emulator: Emulator, job: Job, *, logs: bool) -> dict[str, Any]:
    """The status object; `logs` is always there, `queue_position` only in the queue (provider-protocol 2.2)."""
    state = job.state
    content: dict[str, Any] = {
        "status": state,
        "request_id": job.request_id,
        **request_urls(job.origin, job.app_id, job.request_id),
        "logs": lines(job, emulator.options.latency) if logs and state != IN_QUEUE else None,
    }
    if state == IN_QUEUE:
        content["queue_position"] = emulator.runner.line.position(job)
    if state == COMPLETED:
        content["metrics"] = {} if job.inference_time is None else {"inference_time": job.inference_time}
        content.update(_error(emulator, job))
    return content


def _error(emulator: Emulator, job: Job) -> dict[str, str]:
    """Infrastructure errors show in the status; for a model's 422 this is not attested, hence the knob."""
    infrastructure = job.error_type is None or job.error_type in REQUEST_ERRORS
    if job.error is None or not (infrastructure or emulator.options.status_error_for_422):
        return {}
    return {"error": job.error, "error_type": job.error_type or "bad_request"}


async def status(request: web.Request) -> web.Response:
    """`GET …/requests/{id}/status?logs=`: 202 until COMPLETED, then 200."""
    emulator, job, problem = _lookup(request)
    if problem:
        return problem
    if job is None:
        return web.json_response({"status": "NOT_FOUND"}, status=404)
    if spoilt := await disturbances.spoil_reading(emulator.faults.draw("status", job.markers)):
        return spoilt
    logs = request.query.get("logs", "0") in ("1", "true")
    code = 200 if job.state == COMPLETED else 202
    headers = {"x-fal-request-id": job.request_id}
    return web.json_response(describe(emulator, job, logs=logs), status=code, headers=headers)


async def stream(request: web.Request) -> web.StreamResponse:
    """`GET …/status/stream`: an event per change, a comment every 15 s, closed after COMPLETED."""
    emulator, job, problem = _lookup(request)
    if problem:
        return problem
    if job is None:
        return web.json_response({"status": "NOT_FOUND"}, status=404)
    logs = request.query.get("logs", "0") in ("1", "true")
    reply = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await reply.prepare(request)
    last, spoke_at = "", time.monotonic()
    while True:
        text = json.dumps(describe(emulator, job, logs=logs))
        if text != last:
            await reply.write(f"data: {text}\n\n".encode())
            last, spoke_at = text, time.monotonic()
        elif time.monotonic() - spoke_at > KEEP_ALIVE_EVERY:
            await reply.write(b": keep-alive\n\n")
            spoke_at = time.monotonic()
        if job.state == COMPLETED:
            return reply
        await asyncio.sleep(STREAM_LOOK_EVERY)


async def result(request: web.Request) -> web.Response:
    """`GET …/requests/{id}[/response]`: the job's own status and body, until they expire (provider-protocol 2.4)."""
    emulator, job, problem = _lookup(request)
    if problem:
        return problem
    if job is None:
        return refusal(404, "Request not found")
    if spoilt := await disturbances.spoil_reading(emulator.faults.draw("result", job.markers)):
        emulator.reads.count(job.request_id, RESULT, intact=False)
        return spoilt
    headers = {"x-fal-request-id": job.request_id}
    if job.state != COMPLETED:
        return refusal(400, "Request is still in progress", **headers)
    output = emulator.ledger.output(job) if emulator.result_is_readable(job) else None
    if output is None:
        return refusal(404, emulator.options.expired_detail, **headers)
    headers |= outcome_headers(job)
    emulator.reads.count(job.request_id, RESULT, intact=True)
    return web.Response(body=output, status=job.status or 500, content_type="application/json", headers=headers)


def outcome_headers(job: Job) -> dict[str, str]:
    """The headers that a finished run carries (provider-protocol 3.2)."""
    headers = {"X-Fal-Billable-Units": str(job.billed_units)}
    if job.needs_retry is not None:
        headers["X-Fal-Needs-Retry"] = "1" if job.needs_retry else "0"
    if job.error_type in REQUEST_ERRORS:
        headers["X-Fal-Error-Type"] = job.error_type
    if job.timeout_type:
        headers["X-Fal-Request-Timeout-Type"] = job.timeout_type
    return headers


async def cancel(request: web.Request) -> web.Response:
    """`PUT …/requests/{id}/cancel`: queued 200, running 202, over 400, unknown 404 (provider-protocol 2.5)."""
    emulator, job, problem = _lookup(request)
    if problem:
        return problem
    if job is None:
        return web.json_response({"status": "NOT_FOUND"}, status=404)
    headers = {"x-fal-request-id": job.request_id}
    if job.state == COMPLETED:
        return web.json_response({"status": "ALREADY_COMPLETED"}, status=400, headers=headers)
    waiting = emulator.runner.cancel(job)
    await emulator.store.committed()
    if waiting and emulator.options.cancel_queued_status == 200:
        return web.json_response({"status": "OK"}, headers=headers)
    return web.json_response({"status": "CANCELLATION_REQUESTED"}, status=202, headers=headers)
