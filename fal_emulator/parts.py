"""A part of a file, asked for by `Range` and `If-Range` (RFC 9110, 13.1.5 and 14).

aiohttp's own answer knows `If-Range` as a date only, and would send the rest of a changed file to who names an ETag.
"""

import asyncio
from pathlib import Path

from aiohttp import web


async def send_part(request: web.Request, path: Path, content_type: str, *, cut: bool = False) -> web.StreamResponse:
    """The part that is asked for, or all of the file; `cut`: declared whole, and broken off in its middle."""
    data, etag = await asyncio.to_thread(_read, path)
    start, end = _find_part(request, etag, len(data))
    headers = {"Content-Type": content_type, "Accept-Ranges": "bytes", "ETag": etag}
    if start >= end:
        return web.Response(status=416, headers={**headers, "Content-Range": f"bytes */{len(data)}"})
    headers["Content-Length"] = str(end - start)
    whole = (start, end) == (0, len(data))
    if not whole:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
    reply = web.StreamResponse(status=200 if whole else 206, headers=headers)
    await reply.prepare(request)
    await reply.write(data[start : start + (end - start) // 2 if cut else end])
    if cut and request.transport is not None:
        request.transport.close()  # after what is buffered, unlike a reset
    return reply


def _read(path: Path) -> tuple[bytes, str]:
    """The bytes, and the ETag that aiohttp gives the file."""
    found = path.stat()
    return path.read_bytes(), f'"{found.st_mtime_ns:x}-{found.st_size:x}"'


def _find_part(request: web.Request, etag: str, size: int) -> tuple[int, int]:
    """First and last byte, the last excluded; all of them where the condition does not hold or the range is none."""
    if request.headers.get("If-Range", etag) != etag:
        return 0, size
    try:
        start, end, _ = request.http_range.indices(size)
    except ValueError:
        return 0, size
    return start, end
