"""`GET /files/…`: the CDN's reading side, and what can go wrong with a download."""

import asyncio

from aiohttp import web

from .authentication import origin, refusal
from .emulator import Emulator, emulator_of
from .fault_plan import Injection
from .files import StoredFile
from .parts import send_part

LONG_CACHE = "public, max-age=5184000, immutable"  # as seen on the live CDN (provider-protocol 6)
CHUNK = 64 * 1024
DROPS = 20  # pieces of a slow download
INTACT = ("cdn_slow", "cdn_wrong_type")  # faults that leave the bytes as they are
UNSPOILT = "unspoilt"  # in the query: the file as it is, whatever the plan says
PAGE = "<!doctype html><title>Just a moment</title><p>This is an HTML page, not an image.</p>"


async def download(request: web.Request) -> web.StreamResponse:
    """`GET /files/{path}`: one file, to anybody who knows its address."""
    emulator = emulator_of(request)
    found = emulator.files.find(request.match_info["path"])
    if found is None or found.acl == "hide":
        return refusal(404, "File not found")
    if found.acl == "forbid":
        return refusal(403, "Access denied")
    # an upload is never spoilt, and neither is what a redirect leads to
    spoilable = found.request_id is not None and UNSPOILT not in request.query
    fault = emulator.faults.draw("cdn", found.markers) if spoilable else None
    if found.request_id and (fault is None or fault.kind != "cdn_redirect"):  # what it leads to is counted instead
        emulator.reads.count(found.request_id, found.path, intact=fault is None or fault.kind in INTACT)
    if fault:
        return await _spoilt(request, emulator, found, fault)
    if "Range" in request.headers:
        return await send_part(request, emulator.files.on_disk(found.path), found.content_type)
    headers = {"Content-Type": found.content_type, "Cache-Control": LONG_CACHE}
    return web.FileResponse(emulator.files.on_disk(found.path), headers=headers, chunk_size=CHUNK)


async def _spoilt(request: web.Request, emulator: Emulator, found: StoredFile, fault: Injection) -> web.StreamResponse:
    match fault.kind:
        case "cdn_404":
            return refusal(404, "File not found")
        case "cdn_403":
            return refusal(403, "Access denied")
        case "cdn_html":
            return web.Response(text=PAGE, content_type="text/html")
        case "cdn_redirect":
            url = emulator.files.url(origin(request), found.path)
            return web.Response(status=302, headers={"Location": f"{url}?{UNSPOILT}=1"})
        case "cdn_cut":
            return await send_part(request, emulator.files.on_disk(found.path), found.content_type, cut=True)
    data = await asyncio.to_thread(emulator.files.on_disk(found.path).read_bytes)
    match fault.kind:
        case "cdn_wrong_type":
            return web.Response(body=data, content_type="text/plain")
        case "cdn_corrupt":
            middle = len(data) // 3
            return web.Response(body=data[:middle] + bytes(len(data) - middle), content_type=found.content_type)
        case "cdn_slow":
            return await _in_drops(request, found, data, pause=fault.value / DROPS)
        case "cdn_oversized":
            return await _padded(request, found, data, int(fault.value))
    return await _cut(request, found, data)


def _reply(found: StoredFile, length: int) -> web.StreamResponse:
    return web.StreamResponse(headers={"Content-Type": found.content_type, "Content-Length": str(length)})


async def _in_drops(request: web.Request, found: StoredFile, data: bytes, *, pause: float) -> web.StreamResponse:
    reply = _reply(found, len(data))
    await reply.prepare(request)
    step = len(data) // DROPS + 1
    for start in range(0, len(data), step):
        await asyncio.sleep(pause)
        await reply.write(data[start : start + step])
    return reply


async def _padded(request: web.Request, found: StoredFile, data: bytes, padding: int) -> web.StreamResponse:
    reply = _reply(found, len(data) + padding)
    await reply.prepare(request)
    await reply.write(data)
    for start in range(0, padding, CHUNK):
        await reply.write(bytes(min(CHUNK, padding - start)))
    return reply


async def _cut(request: web.Request, found: StoredFile, data: bytes) -> web.StreamResponse:
    """Declare the whole length, send half, hang up."""
    reply = _reply(found, len(data))
    await reply.prepare(request)
    await reply.write(data[: len(data) // 2])
    if request.transport is not None:
        request.transport.close()  # after what is buffered, unlike a reset
    return reply
