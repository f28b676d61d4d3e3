"""`POST /{owner}/{app}[/{path}]`: accept a request, durably, and only then answer (provider-protocol 2.1, 3.1).

Every accepted POST is a new request: fal has no idempotency key, so neither has its emulator.
"""

import json
import math
import time
import uuid
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from . import arguments, disturbances, lifecycle
from .authentication import auth_error, origin, refusal
from .emulator import Emulator, emulator_of
from .endpoints import Endpoint, parse, request_urls
from .fault_plan import read_markers
from .faults import UnknownFault
from .job import IN_QUEUE, Job
from .ledger import LARGEST

SHORTEST_START_TIMEOUT = 0.1  # seconds; the server demands more than this
TRUTHY = ("1", "true", "yes")
RECORDED = ("X-Fal-Runner-Hint", "X-Fal-Tags", "x-app-fal-disable-fallback", "X-Fal-Retry-Config", "User-Agent")


class BadHeader(ValueError):
    """A header or parameter that fal would not take."""


UNREADABLE = (BadHeader, UnknownFault, lifecycle.InvalidLifecycle)


def bad_request(error: Exception) -> web.Response:
    """The refusal of a request that cannot be read."""
    content = {"detail": str(error), "error_type": "bad_request"}
    return web.json_response(content, status=400, headers={"X-Fal-Error-Type": "bad_request"})


async def submit(request: web.Request) -> web.StreamResponse:
    """`POST /{endpoint}?fal_webhook=&fal_max_queue_length=`: accept a request; each POST is a new one."""
    emulator, endpoint = emulator_of(request), endpoint_of(request)
    if isinstance(endpoint, web.Response):
        return endpoint
    body = await request.read()
    try:
        job = read_request(request, endpoint, body)
    except UNREADABLE as error:
        return bad_request(error)
    if refused := _turned_away(request, emulator, endpoint, body):
        return refused
    if fault := emulator.faults.draw("submit", job.markers):
        return disturbances.refuse(request, fault, emulator.options.retry_after)
    fault = emulator.faults.draw("reply", job.markers)
    if fault:
        job.note_fault(fault.kind)
    emulator.ledger.accept(job, body)
    await emulator.store.committed()
    reply = accepted(emulator, job)
    emulator.runner.enqueue(job)
    if fault is None:
        return reply
    return await disturbances.spoil_reply(request, emulator, job, reply, fault)


def accepted(emulator: Emulator, job: Job) -> web.Response:
    """The reply to an accepted POST."""
    content = {
        "status": IN_QUEUE,
        "request_id": job.request_id,
        "gateway_request_id": job.gateway_request_id,
        "queue_position": len(emulator.runner.line),
        **request_urls(job.origin, job.app_id, job.request_id),
    }
    headers = {"x-fal-request-id": job.request_id}
    return web.json_response(content, status=emulator.options.submit_status, headers=headers)


def endpoint_of(request: web.Request) -> Endpoint | web.Response:
    """The endpoint that is called, or the refusal: no such application, no key, no credit (provider-protocol 5.4)."""
    emulator, endpoint = emulator_of(request), parse(request.match_info["endpoint"])
    if endpoint is None or not emulator.catalogue.has_app(endpoint.app_id):
        return refusal(404, f'Application "{endpoint.app_id if endpoint else request.path}" not found')
    if problem := auth_error(request, endpoint.app_id):
        return refusal(401, problem)
    return endpoint if emulator.balance > 0 else refusal(403, disturbances.LOCKED)


def _turned_away(request: web.Request, emulator: Emulator, endpoint: Endpoint, body: bytes) -> web.Response | None:
    """The refusals that need no reading of headers: a queue that is too long, and optionally invalid input."""
    longest = request.query.get("fal_max_queue_length", "")
    if longest.isdigit() and emulator.runner.line.length(endpoint.id) > int(longest):
        return disturbances.too_many("Queue is longer than fal_max_queue_length", emulator.options.retry_after)
    if emulator.options.validate_at_submit and endpoint.id in emulator.catalogue.models:
        try:
            arguments.read(body, emulator.options)
        except arguments.InvalidInput as error:
            return web.json_response({"detail": error.details}, status=422)
    return None


def read_request(request: web.Request, endpoint: Endpoint, body: bytes, *, direct: bool = False) -> Job:
    """The new request as it will be written down."""
    headers, now, request_id = request.headers, time.time(), str(uuid.uuid4())
    given = _glance(body)
    seed, prompt = given.get("seed"), given.get("prompt")
    preference = headers.get("X-Fal-Object-Lifecycle-Preference")
    lifecycle.parse(preference)
    return Job(
        seq=0,
        request_id=request_id,
        gateway_request_id=request_id,
        endpoint_id=endpoint.id,
        app_id=endpoint.app_id,
        origin=origin(request),
        webhook_url=None if direct else _webhook_url(request),
        seed=seed if isinstance(seed, int) and abs(seed) < LARGEST else None,
        low_priority=_low_priority(headers.get("X-Fal-Queue-Priority", "normal")),
        start_by=None if direct else _start_by(headers.get("X-Fal-Request-Timeout"), now),
        no_retry=headers.get("X-Fal-No-Retry", "").lower() in TRUTHY,
        store_io=headers.get("X-Fal-Store-IO") != "0" and given.get("sync_mode") is not True,
        direct=direct,
        lifecycle=preference,
        headers=json.dumps({name: headers[name] for name in RECORDED if name in headers}),
        markers=read_markers(prompt, [given.get("image_urls")]) if isinstance(prompt, str) else "",
        injected="",
        submitted_at=now,
    )


def _glance(body: bytes) -> dict[str, Any]:
    """The body as far as it can be read; whether it is valid is the model's business."""
    try:
        return arguments.parse_object(body)
    except arguments.InvalidInput:
        return {}


def _webhook_url(request: web.Request) -> str | None:
    url = request.query.get("fal_webhook")
    if not url:
        return None
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise BadHeader(f"fal_webhook is not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadHeader("fal_webhook must be an absolute http or https URL")
    return url


def _low_priority(priority: str) -> bool:
    if priority not in ("normal", "low"):
        raise BadHeader("X-Fal-Queue-Priority must be normal or low")
    return priority == "low"


def _start_by(timeout: str | None, now: float) -> float | None:
    if timeout is None:
        return None
    try:
        seconds = float(timeout)
    except ValueError as error:
        raise BadHeader("X-Fal-Request-Timeout must be a number of seconds") from error
    if not (math.isfinite(seconds) and seconds > SHORTEST_START_TIMEOUT):
        raise BadHeader(f"X-Fal-Request-Timeout must be more than {SHORTEST_START_TIMEOUT} seconds")
    return now + seconds
