"""Puts the routes together: by fal's host names when the Host header carries one, else everything by path."""

from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.typedefs import Handler

from . import SERVER, admin, cdn, direct, pages, platform, queue, submit, uploads
from .emulator import EMULATOR, emulator_of, running
from .options import Options


async def jwks(request: web.Request) -> web.Response:
    """`GET /.well-known/jwks.json`: the keys that sign webhooks; may be gzip encoded, as live."""
    reply = web.json_response(emulator_of(request).keys.jwks())
    reply.enable_compression()
    return reply


def _queue(app: web.Application) -> None:
    one = "/{endpoint:.+}/requests/{request_id}"
    app.router.add_get(f"{one}/status", queue.status)
    app.router.add_get(f"{one}/status/stream", queue.stream)
    app.router.add_put(f"{one}/cancel", queue.cancel)
    app.router.add_get(f"{one}/response", queue.result)
    app.router.add_get(one, queue.result)
    app.router.add_post("/{endpoint:.+}", submit.submit)


def _run(app: web.Application, prefix: str = "") -> None:
    app.router.add_post(f"{prefix}/{{endpoint:.+}}/stream", direct.stream)
    app.router.add_post(f"{prefix}/{{endpoint:.+}}", direct.run)


def _rest(app: web.Application) -> None:
    app.router.add_get("/.well-known/jwks.json", jwks)
    app.router.add_post("/storage/auth/token", uploads.token)
    app.router.add_post("/storage/upload/initiate", uploads.initiate)
    app.router.add_post("/storage/upload/initiate-multipart", uploads.initiate_multipart)


def _media(app: web.Application) -> None:
    app.router.add_post("/files/upload", uploads.small)
    app.router.add_post("/files/upload/multipart", uploads.multipart_begin)
    parts = "/files/{path:.+}/multipart/{upload_id:[0-9a-f]+}"
    app.router.add_put(parts + r"/{number:\d{1,5}}", uploads.multipart_part)
    app.router.add_post(f"{parts}/complete", uploads.multipart_complete)
    app.router.add_put("/files/{path:.+}", uploads.put_initiated)
    app.router.add_get("/files/{path:.+}", cdn.download)


def everything(app: web.Application) -> None:
    """One base URL for all: a POST to an endpoint is a submit, and the run host lies under `/run`."""
    pages.add_routes(app)
    for add in (admin.add_routes, platform.add_routes, _rest, _media):
        add(app)
    _run(app, "/run")
    app.router.add_post("/{endpoint:.+}/stream", direct.stream)
    _queue(app)


# A mask, unlike a plain name, matches with any port behind it; nothing else begins like these names.
HOSTS = {
    "queue.fal.run*": _queue,
    "queue.falrun.com*": _queue,
    "fal.run*": _run,
    "falrun.com*": _run,
    "rest.fal.ai*": _rest,
    "rest.alpha.fal.ai*": _rest,
    "v3.fal.media*": _media,
    "v3b.fal.media*": _media,
    "api.fal.ai*": platform.add_routes,
    "*": everything,
}


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """No HTML of our own: every refusal of the framework has fal's shape."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return web.json_response({"detail": (error.text or error.reason).strip()}, status=error.status)


async def say_what_this_is(_: web.Request, reply: web.StreamResponse) -> None:
    """Every reply names the emulator."""
    reply.headers["Server"] = SERVER


def create_app(options: Options) -> web.Application:
    """The emulator as an aiohttp application."""
    app = web.Application(middlewares=[errors_as_json], client_max_size=options.max_body)
    for host, add in HOSTS.items():
        part = web.Application()
        add(part)
        app.add_domain(host, part)

    async def life(root: web.Application) -> AsyncIterator[None]:
        async with running(options) as emulator:
            root[EMULATOR] = emulator
            yield

    app.cleanup_ctx.append(life)
    app.on_response_prepare.append(say_what_this_is)
    return app
