"""What stands between granian and Flask: bodies are gathered without a thread, within a deadline and a bound.

In WSGI mode granian reads a body inside a Python thread and without a deadline, so a few senders that stop in
the middle would make the receiver deaf. Here the event loop gathers each body; only a whole one gets a thread.
It judges nothing: what is too long goes to Flask one byte too long, and is answered and counted there.
"""

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote_to_bytes

from flask import Flask
from werkzeug.test import run_wsgi_app

BODY_WITHIN = 15.0
"""Seconds for a whole body; the provider gives its first attempt no longer (fal-protocol 4.3)."""
HELD_MAX = 256 * 1024 * 1024
"""Bytes of bodies in memory at one time; above it the provider is asked to come again."""

Answer = tuple[int, list[tuple[str, str]], bytes]


class Busy(Exception):
    """Too many bytes are in hand already."""


class Front:
    """An RSGI application around a Flask one."""

    def __init__(self, app: Flask, *, threads: int, body_max: int) -> None:
        self._app, self._body_max = app, body_max
        self._pool = ThreadPoolExecutor(threads)
        self._held = 0

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """One request."""
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(BODY_WITHIN):
                await self._gather(protocol, parts)
            loop = asyncio.get_running_loop()
            status, headers, body = await loop.run_in_executor(self._pool, self._call, scope, b"".join(parts))
        except TimeoutError:
            protocol.response_empty(408, [("connection", "close")])
        except Busy:
            protocol.response_empty(503, [("connection", "close")])
        else:
            protocol.response_bytes(status, headers, body)
        finally:
            self._held -= sum(map(len, parts))

    async def _gather(self, protocol: Any, parts: list[bytes]) -> None:
        left = self._body_max + 1
        async for chunk in protocol:
            part = bytes(chunk[:left])
            parts.append(part)
            self._held += len(part)
            left -= len(part)
            if not left:
                return
            if self._held > HELD_MAX:
                raise Busy

    def _call(self, scope: Any, body: bytes) -> Answer:
        content, status, headers = run_wsgi_app(self._app, environ(scope, body), buffered=True)
        return int(status.split()[0]), list(headers.items()), b"".join(content)


def environ(scope: Any, body: bytes) -> dict[str, Any]:
    """The request as PEP 3333 wants it."""
    host, _, port = scope.server.rpartition(":")
    found: dict[str, Any] = {
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(scope.path).decode("latin-1"),
        "QUERY_STRING": scope.query_string,
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "REMOTE_ADDR": scope.client.rpartition(":")[0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in scope.headers.items():
        key = name.upper().replace("-", "_")
        key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
        found[key] = f"{found[key]},{value}" if key in found else value
    found["CONTENT_LENGTH"] = str(len(body))
    found.pop("HTTP_TRANSFER_ENCODING", None)
    return found
