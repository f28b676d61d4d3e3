"""The platform's history of requests, by endpoint, and the deletion of what it keeps of one.

provider-protocol 7.2 and 7.3. It shows finished requests only, after a delay, because that is the
worst that a client has to cope with; `list_in_flight` is the kinder reading.
"""

import json
import time
from typing import Any

from aiohttp import web

from . import disturbances
from .authentication import BadQuery, platform_refusal
from .emulator import Emulator, emulator_of
from .job import Job
from .listing import BY_DURATION, BY_END, BY_LAST_NEWS, Listing, duration, iso, several

MOST_LISTED = 100
LISTED = 50
STATUS_FILTERS = {
    "success": "status BETWEEN 200 AND 299",
    "error": "status >= 500",
    "user_error": "status BETWEEN 400 AND 499",
}


async def by_endpoint(request: web.Request) -> web.Response:
    """`GET /v1/models/requests/by-endpoint`: what finished, for finding orphans (provider-protocol 7.2)."""
    emulator, endpoint_id = emulator_of(request), request.query.get("endpoint_id")
    status, order = request.query.get("status"), request.query.get("sort_by", "ended_at")
    if (refused := emulator.options.listing_status) != 200:
        return platform_refusal(refused, "authorization_error", "This endpoint is not for this key")
    if not endpoint_id:
        raise BadQuery("endpoint_id is required")
    if status is not None and status not in STATUS_FILTERS:
        raise BadQuery("status must be success, error or user_error")
    if order not in ("ended_at", "duration"):
        raise BadQuery("sort_by must be ended_at or duration")
    in_flight = emulator.options.list_in_flight
    listing = Listing.of(request, BY_LAST_NEWS if in_flight else BY_END, limit=LISTED, most=MOST_LISTED)
    listing.within(days=1)
    listing.add("endpoint_id = ?", endpoint_id)
    late = time.time() - emulator.options.listing_delay
    listing.add("(ended_at IS NULL OR ended_at <= ?)" if in_flight else "ended_at <= ?", late)
    if status:
        listing.add(STATUS_FILTERS[status])
    if order == "duration":
        listing.order = BY_DURATION
    listing.limit = min(listing.limit, emulator.options.listing_page)
    jobs, more = listing.jobs(emulator.ledger)
    markers = next((job.markers for job in jobs if job.markers), "")
    if spoilt := await disturbances.spoil_listing(emulator.faults.draw("listing", markers)):
        return spoilt
    payloads = "payloads" in several(request, "expand")
    return listing.reply(jobs, more, lambda job: _listed(emulator, job, payloads=payloads), "items")


def _listed(emulator: Emulator, job: Job, *, payloads: bool) -> dict[str, Any]:
    took = duration(job)
    item: dict[str, Any] = {
        "request_id": job.request_id,
        "endpoint_id": job.endpoint_id,
        "runner_id": "emulator",
        "sent_at": iso(job.submitted_at),
        "started_at": iso(job.started_at),
        "ended_at": iso(job.ended_at),
        "status_code": job.status,
        "duration": None if took is None else round(took, 3),
    }
    if payloads:  # only of requests whose payloads are stored
        stored = emulator.options.store_io and job.store_io
        item["json_input"] = _readable(emulator.ledger.input(job)) if stored else None
        item["json_output"] = _readable(emulator.ledger.output(job)) if stored else None
    return item


def _readable(body: bytes | None) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return None


async def delete_payloads(request: web.Request) -> web.Response:
    """`DELETE /v1/models/requests/{id}/payloads`: the JSON of both sides and the produced files; the charge stays."""
    emulator = emulator_of(request)
    job = emulator.find(request.match_info["request_id"])
    if job is None:
        return platform_refusal(404, "not_found", "Request not found")
    if job.ended_at is None:
        return platform_refusal(409, "conflict", "Request is still in progress")
    emulator.ledger.forget(job)
    urls = [image["url"] for image in json.loads(job.images) if not image["url"].startswith("data:")]
    results = [{"link": url, "exception": _delete_file(emulator, job, url)} for url in urls]
    await emulator.store.committed()
    return web.json_response({"cdn_delete_results": results})


def _delete_file(emulator: Emulator, job: Job, url: str) -> str | None:
    path = emulator.files.own_path(url, job.origin)
    return None if path and emulator.files.delete(path) else "File not found"
