"""What things cost and what was charged: prices, estimates, billing events, usage, the account's credit.

fal-protocol 6, 7.2 and 7.3. Every figure comes from the ledger, so all of them agree with each other.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from aiohttp import web

from .authentication import BadQuery, json_object
from .emulator import Emulator, emulator_of
from .job import Job
from .listing import BY_END, Listing, instant, iso, several
from .options import DAY

MOST_EVENTS = 10_000
NANO = 1_000_000_000
UNIT, CURRENCY = "image", "USD"
QUANTITIES = {"unit_price": "unit_quantity", "historical_api_price": "call_quantity"}
FLOORS: Mapping[str, Callable[[datetime], datetime]] = {
    "minute": lambda at: at.replace(second=0, microsecond=0),
    "hour": lambda at: at.replace(minute=0, second=0, microsecond=0),
    "day": lambda at: at.replace(hour=0, minute=0, second=0, microsecond=0),
    "week": lambda at: FLOORS["day"](at - timedelta(days=at.weekday())),
    "month": lambda at: FLOORS["day"](at.replace(day=1)),
}
"""The beginning of the bucket in which a moment lies."""
LONGEST = {"minute": DAY / 12, "hour": 2 * DAY, "day": 64 * DAY, "week": 183 * DAY}
"""Up to which window a bucket is chosen when none is named."""


async def pricing(request: web.Request) -> web.Response:
    """`GET /v1/models/pricing`: dollars per image."""
    emulator = emulator_of(request)
    prices = [
        {"endpoint_id": one, "unit_price": emulator.catalogue.price(one), "unit": UNIT, "currency": CURRENCY}
        for one in emulator.catalogue.chosen(several(request, "endpoint_id"))
    ]
    return web.json_response({"prices": prices, "next_cursor": None, "has_more": False})


async def estimate(request: web.Request) -> web.Response:
    """`POST /v1/models/pricing/estimate`: by units, or by calls at what calls have cost here so far."""
    emulator, given = emulator_of(request), await json_object(request)
    kind, endpoints = given.get("estimate_type"), given.get("endpoints")
    if kind not in QUANTITIES:
        raise BadQuery("estimate_type must be unit_price or historical_api_price")
    if not isinstance(endpoints, dict) or not endpoints:
        raise BadQuery("endpoints must name at least one endpoint")
    cost = sum(
        _quantity(asked, QUANTITIES[kind]) * _price(emulator, endpoint_id, kind)
        for endpoint_id, asked in endpoints.items()
    )
    return web.json_response({"estimate_type": kind, "total_cost": round(cost, 9), "currency": CURRENCY})


def _quantity(asked: Any, name: str) -> float:
    quantity = asked.get(name) if isinstance(asked, dict) else None
    if isinstance(quantity, bool) or not isinstance(quantity, int | float) or not 0 <= quantity < math.inf:
        raise BadQuery(f"each endpoint needs a {name} of at least 0")
    return quantity


def _price(emulator: Emulator, endpoint_id: str, kind: str) -> float:
    if endpoint_id not in emulator.catalogue.models:
        raise BadQuery(f"there is no endpoint {endpoint_id}")
    units = 1.0 if kind == "unit_price" else emulator.ledger.units_per_call(endpoint_id)
    return units * emulator.catalogue.price(endpoint_id)


async def events(request: web.Request) -> web.Response:
    """`GET /v1/models/billing-events`: the authority on what was charged."""
    emulator = emulator_of(request)
    listing = Listing.of(request, BY_END, limit=MOST_EVENTS, most=MOST_EVENTS)
    listing.within(days=90)
    listing.add("billed_units > 0")
    if endpoint_id := request.query.get("endpoint_id"):
        listing.add("endpoint_id = ?", endpoint_id)

    def show(job: Job) -> dict[str, Any]:
        price = emulator.catalogue.price(job.endpoint_id)
        return {
            "request_id": job.request_id,
            "endpoint_id": job.endpoint_id,
            "timestamp": iso(job.ended_at),
            "output_units": job.billed_units,
            "unit_price": price,
            "percent_discount": 0,
            "cost_total": round(job.billed_units * price, 9),
            "cost_estimate_nano_usd": round(job.billed_units * price * NANO),
        }

    return listing.page(emulator.ledger, show, "billing_events")


async def usage(request: web.Request) -> web.Response:
    """`GET /v1/models/usage`: the same charges in buckets of time (`time_series`), in sums (`summary`), or both."""
    emulator = emulator_of(request)
    expand = several(request, "expand") or ["time_series"]
    if not {"time_series", "summary"} & set(expand):
        raise BadQuery("expand must name time_series or summary")
    start, end = instant(request, "start", time.time() - DAY), instant(request, "end", time.time())
    floor, zone = _timeframe(request, end - start), _zone(request)
    bound = request.query.get("bound_to_timeframe", "true") != "false"
    first = floor(datetime.fromtimestamp(start, zone)).timestamp() if bound else start
    buckets: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    sums: dict[str, int] = defaultdict(int)
    wanted = several(request, "endpoint_id")
    for endpoint_id, ended_at, units in emulator.ledger.charges(first):
        bucket = floor(datetime.fromtimestamp(ended_at, zone))
        inside = bucket.timestamp() <= end if bound else ended_at < end
        if inside and (not wanted or endpoint_id in wanted):
            buckets[bucket.isoformat()][endpoint_id] += units
            sums[endpoint_id] += units
    content: dict[str, Any] = {"next_cursor": None, "has_more": False}
    if "time_series" in expand:
        content["time_series"] = [
            {"bucket": bucket, "results": _used(emulator, found)} for bucket, found in sorted(buckets.items())
        ]
    if "summary" in expand:
        content["summary"] = _used(emulator, sums)
    return web.json_response(content)


def _timeframe(request: web.Request, window: float) -> Callable[[datetime], datetime]:
    fitting = next((name for name, longest in LONGEST.items() if window < longest), "month")
    name = request.query.get("timeframe", fitting)
    if name not in FLOORS:
        raise BadQuery(f"timeframe must be one of: {', '.join(FLOORS)}")
    return FLOORS[name]


def _zone(request: web.Request) -> tzinfo:
    name = request.query.get("timezone", "UTC")
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (KeyError, OSError, ValueError) as error:
        raise BadQuery(f"there is no time zone {name}") from error


def _used(emulator: Emulator, units: Mapping[str, int]) -> list[dict[str, Any]]:
    return [_usage(endpoint_id, count, emulator.catalogue.price(endpoint_id)) for endpoint_id, count in units.items()]


def _usage(endpoint_id: str, quantity: int, price: float) -> dict[str, Any]:
    cost = round(quantity * price, 9)
    money = {"cost": cost, "cost_subtotal": cost, "cost_discount": 0, "cost_total": cost, "percent_discount": 0}
    return {
        "endpoint_id": endpoint_id,
        "unit": UNIT,
        "quantity": quantity,
        "unit_price": price,
        "currency": CURRENCY,
        **money,
    }


async def account(request: web.Request) -> web.Response:
    """`GET /v1/account/billing`: what is left of the option `credits`; below zero the account is locked."""
    emulator = emulator_of(request)
    content: dict[str, Any] = {"username": emulator.options.user_id}
    if "credits" in several(request, "expand"):
        content["credits"] = {"current_balance": round(emulator.balance, 9), "currency": CURRENCY}
    return web.json_response(content)
