"""The platform API under `/v1`: its routes in one place, and those that concern models and storage.

fal-protocol 7.2 and 7.3; the history of requests and all that is about money have modules of their own.
"""

from typing import Any

from aiohttp import web

from . import billing, history
from .authentication import BadQuery, json_object, with_admin_key, with_key
from .emulator import emulator_of
from .lifecycle import InvalidLifecycle
from .listing import several
from .openapi import document

WEBHOOK_RANGES = ["127.0.0.1/32", "::1/128"]  # a stand-in delivers from this machine


async def meta(_: web.Request) -> web.Response:
    """`GET /v1/meta`: where webhooks come from; needs no key."""
    return web.json_response({"webhook_ip_ranges": WEBHOOK_RANGES})


async def models(request: web.Request) -> web.Response:
    """`GET /v1/models?endpoint_id=&q=&expand=openapi-3.0`: the models and their documents; needs no key."""
    emulator, expanded = emulator_of(request), "openapi-3.0" in several(request, "expand")
    text = request.query.get("q", "").lower()
    found = []
    for one in emulator.catalogue.chosen(several(request, "endpoint_id")):
        model = emulator.catalogue.models[one]
        shown: dict[str, Any] = {
            "endpoint_id": one,
            "metadata": {"display_name": model.title, "category": model.category, "status": "active"},
        }
        if expanded:
            shown["openapi"] = document(one, model.title, emulator.options.max_side)
        if text in f"{one} {model.title} {model.category}".lower():
            found.append(shown)
    return web.json_response({"models": found, "next_cursor": None, "has_more": False})


async def openapi(request: web.Request) -> web.Response:
    """`GET /api/openapi/queue/openapi.json?endpoint_id=`: the same document, where fal's model pages link to it."""
    emulator, endpoint_id = emulator_of(request), request.query.get("endpoint_id", "")
    model = emulator.catalogue.models.get(endpoint_id)
    if model is None:
        raise web.HTTPNotFound(text=f"Model {endpoint_id} not found")
    return web.json_response(document(endpoint_id, model.title, emulator.options.max_side))


async def show_storage_settings(request: web.Request) -> web.Response:
    """`GET /v1/storage/settings`: the account's expiry and access for new files; null is the system's default."""
    return web.json_response(emulator_of(request).files.settings)


async def put_storage_settings(request: web.Request) -> web.Response:
    """`PUT /v1/storage/settings`: the whole new settings; what is omitted is cleared."""
    emulator, given = emulator_of(request), await json_object(request)
    try:
        emulator.files.keep_settings(given)
    except InvalidLifecycle as error:
        raise BadQuery(str(error)) from error
    await emulator.store.committed()
    return await show_storage_settings(request)


def add_routes(app: web.Application) -> None:
    """Hang the platform's routes up."""
    add = app.router
    add.add_get("/v1/meta", meta)
    add.add_get("/v1/models", models)
    add.add_get("/v1/models/pricing", with_key(billing.pricing))
    add.add_post("/v1/models/pricing/estimate", with_key(billing.estimate))
    add.add_get("/v1/models/usage", with_admin_key(billing.usage))
    add.add_get("/v1/models/billing-events", with_admin_key(billing.events))
    add.add_get("/v1/account/billing", with_admin_key(billing.account))
    add.add_get("/v1/models/requests/by-endpoint", with_key(history.by_endpoint))
    add.add_get("/v1/models/requests/search", with_key(history.search))
    add.add_delete("/v1/models/requests/{request_id}/payloads", with_admin_key(history.delete_payloads))
    add.add_get("/v1/storage/settings", with_key(show_storage_settings))
    add.add_put("/v1/storage/settings", with_key(put_storage_settings))
