"""Who may come in and what a refusal looks like (provider-protocol 1.2, 5.4); also where a client came from."""

import base64
import functools
import hashlib
import hmac
import time
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from .emulator import emulator_of
from .endpoints import REAL

FAL_HOSTS = frozenset(
    {
        *("queue.fal.run", "queue.falrun.com", "fal.run", "falrun.com"),
        *("rest.fal.ai", "rest.alpha.fal.ai", "v3.fal.media", "v3b.fal.media", "api.fal.ai", "fal.ai"),
    }
)
TOKEN_LIFETIME = 30 * 86_400


class BadQuery(ValueError):
    """A question to the platform API that makes no sense."""


def refusal(status: int, detail: str, **headers: str) -> web.Response:
    """A gateway error: `{"detail": "<string>"}`."""
    return web.json_response({"detail": detail}, status=status, headers=headers)


def platform_refusal(status: int, kind: str, message: str) -> web.Response:
    """An error of the platform API, which has its own envelope."""
    return web.json_response({"error": {"type": kind, "message": message}}, status=status)


def with_key(handler: Handler) -> Handler:
    """A route of the platform API: for any accepted key, with the platform's envelope for questions without sense."""

    @functools.wraps(handler)
    async def guarded(request: web.Request) -> web.StreamResponse:
        if problem := auth_error(request, "platform"):
            return platform_refusal(401, "authorization_error", problem)
        try:
            return await handler(request)
        except BadQuery as error:
            return platform_refusal(400, "validation_error", str(error))

    return guarded


def with_admin_key(handler: Handler) -> Handler:
    """The same for routes that fal keeps for administrators."""

    @functools.wraps(handler)
    async def guarded(request: web.Request) -> web.StreamResponse:
        admin_key = emulator_of(request).options.admin_key
        if admin_key is not None and request.headers.get("Authorization") != f"Key {admin_key}":
            return platform_refusal(403, "authorization_error", "This endpoint requires an admin API key")
        return await handler(request)

    return with_key(guarded)


def origin(request: web.Request) -> str:
    """fal's own world for a fal Host header, else the base URL that this client used."""
    if request.host.partition(":")[0].lower() in FAL_HOSTS:
        return REAL
    return (emulator_of(request).options.public_url or f"{request.scheme}://{request.host}").rstrip("/")


def auth_error(request: web.Request, app_id: str) -> str | None:
    """Why the key of this request is not accepted, or None."""
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    if not secret:
        return f'Cannot access application "{app_id}". Authentication is required to access this application.'
    if scheme.lower() == "bearer":
        return "JWT decode error: Not enough segments"  # a key is no JWT (provider-protocol 1.2)
    if scheme.lower() != "key" or not _accepted(secret.strip(), emulator_of(request).options.key):
        return "invalid key credentials"
    return None


def _accepted(key: str, only: str | None) -> bool:
    if only is not None:
        return key == only
    key_id, colon, secret = key.partition(":")
    return bool(key_id and colon and secret)


def upload_token(secret: bytes) -> tuple[str, float]:
    """A CDN token and the moment of its end; it needs no memory, so it survives a restart."""
    expires = int(time.time()) + TOKEN_LIFETIME
    return f"{expires}.{seal(secret, str(expires))}", float(expires)


def upload_token_is_valid(secret: bytes, authorization: str) -> bool:
    """Whether an upload may go on: the CDN takes its own token, never the key (provider-protocol 8.1)."""
    scheme, _, token = authorization.partition(" ")
    expires, _, given = token.partition(".")
    if scheme.lower() != "bearer" or not expires.isdigit():
        return False
    return int(expires) > time.time() and is_sealed(secret, expires, given)


def seal(secret: bytes, subject: str) -> str:
    """What only this emulator can have written under `subject`: the end of a token, or the id of an upload."""
    digest = hmac.new(secret, f"upload {subject}".encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def is_sealed(secret: bytes, subject: str, given: str) -> bool:
    """Whether the seal is ours."""
    return hmac.compare_digest(given.encode(), seal(secret, subject).encode())


async def json_object(request: web.Request) -> dict[str, Any]:
    """The JSON object in an administrative request, or a 400 with a sentence."""
    try:
        given = await request.json()
    except ValueError as error:
        raise web.HTTPBadRequest(text=f"the body is not JSON: {error}\n") from error
    if not isinstance(given, dict):
        raise web.HTTPBadRequest(text="the body must be a JSON object\n")
    return given
