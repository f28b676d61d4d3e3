"""The platform API under `/v1`, as far as its users need it: models, prices, the list of requests, storage settings.

provider-protocol 7.2 and 7.3; the list of requests has a module of its own. What was charged stands in the ledger.
"""

from aiohttp import web

from . import history
from .authentication import BadQuery, json_object, with_admin_key, with_key
from .emulator import emulator_of
from .lifecycle import InvalidLifecycle
from .listing import several

UNIT, CURRENCY = "image", "USD"
WEBHOOK_RANGES = ["127.0.0.1/32", "::1/128"]  # an emulator delivers from this machine


async def meta(_: web.Request) -> web.Response:
    """`GET /v1/meta`: where webhooks come from; needs no key."""
    return web.json_response({"webhook_ip_ranges": WEBHOOK_RANGES})


async def models(request: web.Request) -> web.Response:
    """`GET /v1/models?endpoint_id=&q=`: the models; needs no key."""
    emulator, text = emulator_of(request), request.query.get("q", "").lower()
    found = []
    for one in emulator.catalogue.chosen(several(request, "endpoint_id")):
        model = emulator.catalogue.models[one]
        metadata = {"display_name": model.title, "category": model.category, "status": "active"}
        if text in f"{one} {model.title} {model.category}".lower():
            found.append({"endpoint_id": one, "metadata": metadata})
    return web.json_response({"models": found, "next_cursor": None, "has_more": False})


async def pricing(request: web.Request) -> web.Response:
    """`GET /v1/models/pricing`: dollars per image."""
    emulator = emulator_of(request)
    prices = [
        {"endpoint_id": one, "unit_price": emulator.catalogue.price(one), "unit": UNIT, "currency": CURRENCY}
        for one in emulator.catalogue.chosen(several(request, "endpoint_id"))
    ]
    return web.json_response({"prices": prices, "next_cursor": None, "has_more": False})


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
    add.add_get("/v1/models/pricing", with_key(pricing))
    add.add_get("/v1/models/requests/by-endpoint", with_key(history.by_endpoint))
    add.add_delete("/v1/models/requests/{request_id}/payloads", with_admin_key(history.delete_payloads))
    add.add_get("/v1/storage/settings", with_key(show_storage_settings))
    add.add_put("/v1/storage/settings", with_key(put_storage_settings))
