"""The platform API under `/v1`: the listing of finished requests, billing events, prices, models, meta.

fal-protocol 7.2 and 7.3. The listing shows finished requests only, after a delay, because that is the worst that
a client has to cope with.
"""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from .emulator import Emulator, emulator_of
from .gate import complaint, platform_refusal
from .job import Job
from .listing import BadQuery, Listing

MOST_LISTED = 100
LISTED = 50
MOST_EVENTS = 10_000
NANO = 1_000_000_000
WEBHOOK_RANGES = ["127.0.0.1/32", "::1/128"]  # a stand-in delivers from this machine
STATUS_FILTERS = {
    "success": "status BETWEEN 200 AND 299",
    "error": "status >= 500",
    "user_error": "status BETWEEN 400 AND 499",
}


def _key_problem(request: web.Request) -> web.Response | None:
    problem = complaint(request, "platform")
    return platform_refusal(401, "authorization_error", problem) if problem else None


def _iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat()


async def by_endpoint(request: web.Request) -> web.Response:
    """`GET /v1/models/requests/by-endpoint`: what finished, for finding orphans (fal-protocol 7.2)."""
    if problem := _key_problem(request):
        return problem
    emulator = emulator_of(request)
    payloads = "payloads" in request.query.get("expand", "").split(",")
    show = _listed_with_payloads(emulator) if payloads else _listed
    try:
        return _asked_for(request, emulator).page(emulator.ledger, show, "items")
    except BadQuery as error:
        return platform_refusal(400, "validation_error", str(error))


def _asked_for(request: web.Request, emulator: Emulator) -> Listing:
    """The filters of by-endpoint."""
    options = emulator.options
    listing = Listing.of(request, in_flight=options.list_in_flight, limit=LISTED, most=MOST_LISTED, days=1)
    endpoint_id, status, order = (request.query.get(name) for name in ("endpoint_id", "status", "sort_by"))
    if not endpoint_id:
        raise BadQuery("endpoint_id is required")
    if status is not None and status not in STATUS_FILTERS:
        raise BadQuery("status must be success, error or user_error")
    if order not in (None, "ended_at", "duration"):
        raise BadQuery("sort_by must be ended_at or duration")
    listing.by_duration = order == "duration"
    listing.add("endpoint_id = ?", endpoint_id)
    unfinished = "ended_at IS NULL OR " if options.list_in_flight else ""
    listing.add(f"({unfinished}ended_at <= ?)", time.time() - options.listing_delay)
    if status:
        listing.add(STATUS_FILTERS[status])
    return listing


def _listed(job: Job) -> dict[str, Any]:
    ended = job.ended_at is not None and job.started_at is not None
    return {
        "request_id": job.request_id,
        "endpoint_id": job.endpoint_id,
        "runner_id": "emulator",
        "sent_at": _iso(job.submitted_at),
        "started_at": _iso(job.started_at),
        "ended_at": _iso(job.ended_at),
        "status_code": job.status,
        "duration": round((job.ended_at or 0) - (job.started_at or 0), 3) if ended else None,
    }


def _listed_with_payloads(emulator: Emulator) -> Callable[[Job], dict[str, Any]]:
    """Payloads only of requests whose payloads are stored."""

    def show(job: Job) -> dict[str, Any]:
        stored = emulator.options.store_io and job.store_io
        given = emulator.ledger.input(job) if stored else b""
        output = emulator.ledger.output(job) if stored else None
        return {
            **_listed(job),
            "json_input": _readable(given),
            "json_output": _readable(output or b""),
        }

    return show


def _readable(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return None


async def billing_events(request: web.Request) -> web.Response:
    """`GET /v1/models/billing-events`: the authority on what was charged; an administrator's key only."""
    if problem := _key_problem(request):
        return problem
    emulator = emulator_of(request)
    admin_key = emulator.options.admin_key
    if admin_key is not None and request.headers.get("Authorization") != f"Key {admin_key}":
        return platform_refusal(403, "authorization_error", "This endpoint requires an admin API key")

    def show(job: Job) -> dict[str, Any]:
        price = emulator.catalogue.price(job.endpoint_id)
        return {
            "request_id": job.request_id,
            "endpoint_id": job.endpoint_id,
            "timestamp": _iso(job.ended_at),
            "output_units": job.billed_units,
            "unit_price": price,
            "percent_discount": 0,
            "cost_total": round(job.billed_units * price, 9),
            "cost_estimate_nano_usd": round(job.billed_units * price * NANO),
        }

    try:
        listing = Listing.of(request, in_flight=False, limit=MOST_EVENTS, most=MOST_EVENTS, days=90)
        listing.add("billed_units > 0")
        if endpoint_id := request.query.get("endpoint_id"):
            listing.add("endpoint_id = ?", endpoint_id)
        return listing.page(emulator.ledger, show, "billing_events")
    except BadQuery as error:
        return platform_refusal(400, "validation_error", str(error))


def _chosen(request: web.Request, emulator: Emulator) -> list[str]:
    wanted = [each for text in request.query.getall("endpoint_id", []) for each in text.split(",")]
    return [endpoint_id for endpoint_id in emulator.catalogue.models if not wanted or endpoint_id in wanted]


async def pricing(request: web.Request) -> web.Response:
    """`GET /v1/models/pricing`."""
    if problem := _key_problem(request):
        return problem
    emulator = emulator_of(request)
    prices = [
        {"endpoint_id": one, "unit_price": emulator.catalogue.price(one), "unit": "image", "currency": "USD"}
        for one in _chosen(request, emulator)
    ]
    return web.json_response({"prices": prices, "next_cursor": None, "has_more": False})


async def models(request: web.Request) -> web.Response:
    """`GET /v1/models`: needs no key."""
    emulator = emulator_of(request)
    found = [
        {"endpoint_id": one, "metadata": {"display_name": emulator.catalogue.models[one].title, "status": "active"}}
        for one in _chosen(request, emulator)
    ]
    return web.json_response({"models": found, "next_cursor": None, "has_more": False})


async def meta(_: web.Request) -> web.Response:
    """`GET /v1/meta`: where webhooks come from."""
    return web.json_response({"webhook_ip_ranges": WEBHOOK_RANGES})


def add_routes(app: web.Application) -> None:
    """Hang the platform's routes up."""
    app.router.add_get("/v1/meta", meta)
    app.router.add_get("/v1/models", models)
    app.router.add_get("/v1/models/pricing", pricing)
    app.router.add_get("/v1/models/billing-events", billing_events)
    app.router.add_get("/v1/models/requests/by-endpoint", by_endpoint)
