"""The ways in for files: token, small upload, multipart, and the fallback that is dead on the live service.

fal-protocol 8.1 to 8.3. Parts lie on disk until the upload is completed and are put together in a thread.
"""

import asyncio
import hashlib
import json
import shutil
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

from aiohttp import web

from . import lifecycle
from .emulator import emulator_of
from .endpoints import media_base
from .gate import complaint, origin, refusal, upload_token, upload_token_is_valid

MOST_PARTS = 10_000
COPY_CHUNK = 2**20


async def token(request: web.Request) -> web.Response:
    """`POST /storage/auth/token`: a bearer token for the CDN, in exchange for the key."""
    if problem := complaint(request, "storage"):
        return refusal(401, problem)
    text, expires = upload_token(emulator_of(request).secret)
    return web.json_response(
        {
            "token": text,
            "token_type": "Bearer",
            "base_url": media_base(origin(request)),
            "expires_at": datetime.fromtimestamp(expires, UTC).isoformat(),
        }
    )


def _stranger(request: web.Request) -> web.Response | None:
    if upload_token_is_valid(emulator_of(request).secret, request.headers.get("Authorization", "")):
        return None
    return refusal(401, "invalid token")


def _lifecycle(request: web.Request) -> str | None:
    """Both spellings of the header are sent on uploads."""
    headers = request.headers
    text = headers.get("X-Fal-Object-Lifecycle-Preference") or headers.get("X-Fal-Object-Lifecycle")
    lifecycle.parse(text)
    return text


def _file_name(request: web.Request) -> str:
    return unquote(request.headers.get("X-Fal-File-Name", "")) or "file"


async def small(request: web.Request) -> web.Response:
    """`POST /files/upload`: the whole file in one body."""
    if problem := _stranger(request):
        return problem
    try:
        life = lifecycle.parse(_lifecycle(request))
    except lifecycle.InvalidLifecycle as error:
        return refusal(400, str(error))
    emulator = emulator_of(request)
    data = await request.read()
    path = emulator.files.path_for(uuid.uuid4().hex, _file_name(request))
    sha256 = await asyncio.to_thread(emulator.files.write, path, data)
    emulator.files.register(path, _content_type(request), len(data), sha256, life)
    await emulator.store.committed()
    return web.json_response({"access_url": emulator.files.url(origin(request), path), "uploaded": True})


def _content_type(request: web.Request) -> str:
    return request.headers.get("Content-Type", "application/octet-stream")


async def multipart_begin(request: web.Request) -> web.Response:
    """`POST /files/upload/multipart`: an address and an upload id."""
    if problem := _stranger(request):
        return problem
    try:
        life = _lifecycle(request)
    except lifecycle.InvalidLifecycle as error:
        return refusal(400, str(error))
    emulator = emulator_of(request)
    upload_id = uuid.uuid4().hex
    path = emulator.files.path_for(upload_id, _file_name(request))
    values = (upload_id, path, _content_type(request), life, time.time())
    emulator.store.write("INSERT INTO uploads VALUES (?, ?, ?, ?, ?)", values)
    await emulator.store.committed()
    return web.json_response({"access_url": emulator.files.url(origin(request), path), "uploadId": upload_id})


def _upload(request: web.Request) -> tuple[str, str, str | None] | None:
    """Address, type and lifecycle of a begun upload."""
    row = emulator_of(request).store.one(
        "SELECT path, content_type, lifecycle FROM uploads WHERE upload_id = ? AND path = ?",
        (request.match_info["upload_id"], request.match_info["path"]),
    )
    return (row[0], row[1], row[2]) if row else None


async def multipart_part(request: web.Request) -> web.Response:
    """`PUT {access_url}/multipart/{uploadId}/{n}`: parts come in any order; the etag is a header."""
    if problem := _stranger(request):
        return problem
    number = int(request.match_info["number"])
    if _upload(request) is None or not 1 <= number <= MOST_PARTS:
        return refusal(404, "Upload not found")
    emulator = emulator_of(request)
    data = await request.read()
    part = emulator.files.parts(request.match_info["upload_id"]) / str(number)
    sha256 = await asyncio.to_thread(emulator.files.place, part, data)
    return web.json_response({"partNumber": number, "etag": sha256}, headers={"ETag": sha256})


async def multipart_complete(request: web.Request) -> web.Response:
    """`POST …/complete` with the parts in the order in which they were finished, not in theirs."""
    if problem := _stranger(request):
        return problem
    found, emulator = _upload(request), emulator_of(request)
    if found is None:
        return refusal(404, "Upload not found")
    try:
        parts = (await request.json())["parts"]
        numbers = sorted(int(part["partNumber"]) for part in parts)
    except (ValueError, KeyError, TypeError) as error:
        return refusal(400, f"parts cannot be read: {error!r}")
    path, content_type, life = found
    folder = emulator.files.parts(request.match_info["upload_id"])
    sources = [folder / str(number) for number in numbers]
    if not sources or not all(source.exists() for source in sources):
        return refusal(400, "a part is missing")
    size, sha256 = await asyncio.to_thread(_join, sources, emulator.files.on_disk(path))
    emulator.files.register(path, content_type, size, sha256, lifecycle.parse(life))
    emulator.store.write("DELETE FROM uploads WHERE upload_id = ?", (request.match_info["upload_id"],))
    await emulator.store.committed()
    return web.json_response({"access_url": emulator.files.url(origin(request), path), "uploaded": True})


def _join(sources: list[Path], target: Path) -> tuple[int, str]:
    """Put the parts behind each other; runs in a thread."""
    digest, size = hashlib.sha256(), 0
    part = target.with_name(f"{target.name}.joined.part")
    target.parent.mkdir(exist_ok=True)
    with part.open("wb") as out:
        for source in sources:
            with source.open("rb") as piece:
                while chunk := piece.read(COPY_CHUNK):
                    digest.update(chunk)
                    size += out.write(chunk)
    part.replace(target)
    shutil.rmtree(sources[0].parent)
    return size, digest.hexdigest()


async def initiate(request: web.Request) -> web.Response:
    """`POST /storage/upload/initiate`: `gcs` is refused, as live; `fal-cdn-v3` is what the JS client uses."""
    if problem := complaint(request, "storage"):
        return refusal(401, problem)
    if request.query.get("storage_type") != "fal-cdn-v3":
        return refusal(400, "Invalid storage type")
    try:
        given = json.loads(await request.read() or b"{}")
        name, content_type = str(given.get("file_name") or "file"), str(given.get("content_type") or "")
    except (ValueError, AttributeError) as error:
        return refusal(422, f"the body cannot be read: {error}")
    emulator = emulator_of(request)
    upload_id = uuid.uuid4().hex
    path = emulator.files.path_for(upload_id, name)
    values = (upload_id, path, content_type or "application/octet-stream", None, time.time())
    emulator.store.write("INSERT INTO uploads VALUES (?, ?, ?, ?, ?)", values)
    await emulator.store.committed()
    url = emulator.files.url(origin(request), path)
    return web.json_response({"upload_url": f"{url}?upload={upload_id}", "file_url": url})


async def put_initiated(request: web.Request) -> web.Response:
    """`PUT {upload_url}` of an initiated upload; the unguessable URL is the permission."""
    emulator, path = emulator_of(request), request.match_info["path"]
    upload_id = request.query.get("upload", "")
    row = emulator.store.one("SELECT content_type FROM uploads WHERE upload_id = ? AND path = ?", (upload_id, path))
    if row is None:
        return refusal(404, "Upload not found")
    data = await request.read()
    sha256 = await asyncio.to_thread(emulator.files.write, path, data)
    emulator.files.register(path, row[0], len(data), sha256, lifecycle.parse(None))
    emulator.store.write("DELETE FROM uploads WHERE upload_id = ?", (upload_id,))
    await emulator.store.committed()
    return web.Response()
