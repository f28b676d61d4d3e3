"""The ways in for files: token, small upload, multipart, and the JS client's two, which begin with a URL.

provider-protocol 8.1 to 8.3. Parts lie on disk until the upload is completed and are put together in a thread.
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
from .authentication import auth_error, is_sealed, origin, refusal, seal, upload_token, upload_token_is_valid
from .emulator import emulator_of
from .endpoints import media_base

MOST_PARTS = 10_000
COPY_CHUNK = 2**20


async def token(request: web.Request) -> web.Response:
    """`POST /storage/auth/token`: a bearer token for the CDN, in exchange for the key."""
    if problem := auth_error(request, "storage"):
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
    """The refusal for a call that has neither the CDN's token nor, for the JS client's parts, the sealed URL."""
    secret, upload_id = emulator_of(request).secret, request.match_info.get("upload_id")
    if upload_id and is_sealed(secret, upload_id, request.query.get("seal", "")):
        return None
    if upload_token_is_valid(secret, request.headers.get("Authorization", "")):
        return None
    return refusal(401, "invalid token")


def _lifecycle(request: web.Request) -> str | None:
    """Both spellings of the header are sent on uploads. Raises a 400 with a sentence."""
    headers = request.headers
    text = headers.get("X-Fal-Object-Lifecycle-Preference") or headers.get("X-Fal-Object-Lifecycle")
    try:
        lifecycle.parse(text)
    except lifecycle.InvalidLifecycle as error:
        raise web.HTTPBadRequest(text=str(error)) from error
    return text


def _file_name(request: web.Request) -> str:
    return unquote(request.headers.get("X-Fal-File-Name", "")) or "file"


async def _begin(request: web.Request, name: str, content_type: str) -> tuple[str, str]:
    """Note an upload that comes in further calls; its id, and the URL that the file will have."""
    life, emulator = _lifecycle(request), emulator_of(request)
    upload_id = uuid.uuid4().hex
    path = emulator.files.path_for(upload_id, name)
    values = (upload_id, path, content_type, life, time.time())
    emulator.store.write("INSERT INTO uploads VALUES (?, ?, ?, ?, ?)", values)
    await emulator.store.committed()
    return upload_id, emulator.files.url(origin(request), path)


async def small(request: web.Request) -> web.Response:
    """`POST /files/upload`: the whole file in one body."""
    if problem := _stranger(request):
        return problem
    life, emulator = lifecycle.parse(_lifecycle(request)), emulator_of(request)
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
    upload_id, url = await _begin(request, _file_name(request), _content_type(request))
    return web.json_response({"access_url": url, "uploadId": upload_id})


def _upload(request: web.Request, upload_id: str) -> tuple[str, str, str | None] | None:
    """Address, type and lifecycle of a begun upload."""
    row = emulator_of(request).store.one(
        "SELECT path, content_type, lifecycle FROM uploads WHERE upload_id = ? AND path = ?",
        (upload_id, request.match_info["path"]),
    )
    return (row[0], row[1], row[2]) if row else None


async def multipart_part(request: web.Request) -> web.Response:
    """`PUT {access_url}/multipart/{uploadId}/{n}`: parts come in any order; the etag is a header."""
    if problem := _stranger(request):
        return problem
    number, upload_id = int(request.match_info["number"]), request.match_info["upload_id"]
    if _upload(request, upload_id) is None or not 1 <= number <= MOST_PARTS:
        return refusal(404, "Upload not found")
    emulator = emulator_of(request)
    data = await request.read()
    part = emulator.files.parts(upload_id) / str(number)
    sha256 = await asyncio.to_thread(emulator.files.place, part, data)
    return web.json_response({"partNumber": number, "etag": sha256}, headers={"ETag": sha256})


async def multipart_complete(request: web.Request) -> web.Response:
    """`POST …/complete`: the list of parts, in whatever order they were finished."""
    if problem := _stranger(request):
        return problem
    emulator, upload_id = emulator_of(request), request.match_info["upload_id"]
    found = _upload(request, upload_id)
    if found is None:
        return refusal(404, "Upload not found")
    try:
        parts = (await request.json())["parts"]
        numbers = sorted(int(part["partNumber"]) for part in parts)
    except (ValueError, KeyError, TypeError) as error:
        return refusal(400, f"parts cannot be read: {error!r}")
    path, content_type, life = found
    folder = emulator.files.parts(upload_id)
    sources = [folder / str(number) for number in numbers]
    if not sources or not all(source.exists() for source in sources):
        return refusal(400, "a part is missing")
    size, sha256 = await asyncio.to_thread(_join, sources, emulator.files.on_disk(path))
    emulator.files.register(path, content_type, size, sha256, lifecycle.parse(life))
    emulator.store.write("DELETE FROM uploads WHERE upload_id = ?", (upload_id,))
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
    upload_id, url = await _initiated(request)
    return web.json_response({"upload_url": f"{url}?upload={upload_id}", "file_url": url})


async def initiate_multipart(request: web.Request) -> web.Response:
    """`POST /storage/upload/initiate-multipart`: the JS client puts `/{n}` and `/complete` before the query."""
    upload_id, url = await _initiated(request)
    sealed = f"{url}/multipart/{upload_id}?seal={seal(emulator_of(request).secret, upload_id)}"
    return web.json_response({"upload_url": sealed, "file_url": url})


async def _initiated(request: web.Request) -> tuple[str, str]:
    """Begin an upload for whoever has the key; from then on its unguessable URL is the permission."""
    if problem := auth_error(request, "storage"):
        raise web.HTTPUnauthorized(text=problem)
    if request.query.get("storage_type") != "fal-cdn-v3":
        raise web.HTTPBadRequest(text="Invalid storage type")
    try:
        given = json.loads(await request.read() or b"{}")
        name, content_type = str(given.get("file_name") or "file"), str(given.get("content_type") or "")
    except (ValueError, AttributeError) as error:
        raise web.HTTPUnprocessableEntity(text=f"the body cannot be read: {error}") from error
    return await _begin(request, name, content_type or "application/octet-stream")


async def put_initiated(request: web.Request) -> web.Response:
    """`PUT {upload_url}`: the file of an initiated upload."""
    emulator, path = emulator_of(request), request.match_info["path"]
    upload_id = request.query.get("upload", "")
    found = _upload(request, upload_id)
    if found is None:
        return refusal(404, "Upload not found")
    data = await request.read()
    sha256 = await asyncio.to_thread(emulator.files.write, path, data)
    emulator.files.register(path, found[1], len(data), sha256, lifecycle.parse(found[2]))
    emulator.store.write("DELETE FROM uploads WHERE upload_id = ?", (upload_id,))
    await emulator.store.committed()
    return web.Response()
