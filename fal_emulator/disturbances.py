"""What a client sees when a fault hits its submit, its status or its result request."""

import asyncio
import socket
import struct
import time

from aiohttp import web

from .authentication import platform_refusal, refusal
from .emulator import Emulator
from .fault_plan import Injection
from .job import Job

NGINX_502 = (
    "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n"
    "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)
LOCKED = "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."
LOOK_EVERY = 0.5  # seconds between two looks at whether a hanging client is still there


def nginx_502() -> web.Response:
    """The page of a proxy in front: HTML, no x-fal-request-id."""
    return web.Response(status=502, text=NGINX_502, content_type="text/html")


def too_many(text: str, retry_after: int) -> web.Response:
    """429; fal promises no Retry-After, so it is a knob."""
    headers = {"Retry-After": str(retry_after)} if retry_after else {}
    return refusal(429, text, **headers)


def reset(request: web.Request) -> web.Response:
    """Cut the connection with a TCP reset; the reply that is returned goes nowhere."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response(status=500)


async def hang(request: web.Request, seconds: float) -> web.Response:
    """Say nothing until the client leaves or the time is over, then cut."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and request.transport is not None and not request.transport.is_closing():
        await asyncio.sleep(min(LOOK_EVERY, max(0.0, end - time.monotonic())))
    return reset(request)


def refuse(request: web.Request, fault: Injection, retry_after: int) -> web.Response:
    """Answer a submit that is not accepted."""
    match fault.kind:
        case "refuse_500":
            return refusal(500, "Internal Server Error")
        case "nginx_502_before":
            return nginx_502()
        case "busy_429":
            return too_many("Too many requests", retry_after)
        case "bad_key_401":
            return refusal(401, "invalid key credentials")
        case "locked_403":
            return refusal(403, LOCKED)
    return reset(request)


async def spoil_reply(
    request: web.Request, emulator: Emulator, job: Job, reply: web.Response, fault: Injection
) -> web.Response:
    """Answer a submit that was accepted, in a way that leaves the client in doubt."""
    match fault.kind:
        case "reset_after_accept":
            return reset(request)
        case "hang_after_accept":
            return await hang(request, fault.value)
        case "nginx_502_after":
            return nginx_502()
        case "broken_json":
            return web.Response(body=(reply.body or b"")[:40], content_type="application/json")  # type: ignore[index]
        case "missing_fields":
            return web.json_response({"status": "IN_QUEUE", "queue_position": 0})
        case "webhook_before_reply":
            await emulator.webhooks.first_attempt(job, fault.value)
        case "slow_submit":
            await asyncio.sleep(fault.value)
    return reply


async def spoil_reading(fault: Injection | None) -> web.Response | None:
    """Answer a status or result request wrongly, or only late (None)."""
    match fault.kind if fault else "":
        case "status_500" | "result_500":
            return refusal(500, "Internal Server Error")
        case "status_404":
            return web.json_response({"status": "NOT_FOUND"}, status=404)
        case "result_404":
            return refusal(404, "Request not found")
        case "slow_status" | "slow_result":
            await asyncio.sleep(fault.value if fault else 0)
    return None


LISTING_REFUSALS = {
    "listing_401": (401, "authorization_error", "Invalid API key"),
    "listing_403": (403, "authorization_error", "Access denied"),
    "listing_404": (404, "not_found", "Not found"),
    "listing_500": (500, "server_error", "Internal server error"),
}


async def spoil_listing(fault: Injection | None) -> web.Response | None:
    """Answer a page of by-endpoint wrongly, or only late (None)."""
    if fault is None:
        return None
    if fault.kind in LISTING_REFUSALS:
        return platform_refusal(*LISTING_REFUSALS[fault.kind])
    await asyncio.sleep(fault.value)
    return None
