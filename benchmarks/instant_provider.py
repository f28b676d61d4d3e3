"""`python -m benchmarks.instant_provider PORT FILE`: a provider that takes no time, so that all the rest is measured.

Every POST is accepted, and its signed success delivered at once; every other GET is answered with FILE.
It prints `ready`.
"""

import asyncio
import base64
import hashlib
import json
import sys
import time
from pathlib import Path
from uuid import uuid4

from aiohttp import ClientSession, TCPConnector, web

from benchmarks.rows.callbacks import ACCOUNT, KEY

DELIVERIES = 64
"""Under way at one time."""


class Provider:
    """What it remembers: nothing but its connections."""

    def __init__(self, port: int, file: bytes) -> None:
        self._image_url, self._file = f"http://127.0.0.1:{port}/image.png", file
        self._places = asyncio.Semaphore(DELIVERIES)
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self, request: web.Request) -> web.Response:
        """Take an edit, and have its callback sent."""
        await request.read()
        request_id = str(uuid4())
        task = asyncio.create_task(self._deliver(request.query["fal_webhook"], request_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return web.json_response({"status": "IN_QUEUE", "request_id": request_id, "queue_position": 0})

    async def show(self, request: web.Request) -> web.Response:
        """The key set, or the image."""
        if "jwks" not in request.path:
            return web.Response(body=self._file, content_type="image/png")
        x = base64.urlsafe_b64encode(bytes(KEY.verify_key)).decode()
        return web.json_response({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x}]})

    async def _deliver(self, url: str, request_id: str) -> None:
        payload = {"images": [{"url": self._image_url, "content_type": "image/png"}], "seed": 7}
        content = {"error": None, "gateway_request_id": request_id, "payload": payload, "request_id": request_id}
        body = json.dumps({**content, "status": "OK"}).encode()
        timestamp = str(int(time.time()))
        message = "\n".join((request_id, ACCOUNT, timestamp, hashlib.sha256(body).hexdigest())).encode()
        headers = {
            "Content-Type": "application/json",
            "X-Fal-Webhook-Request-Id": request_id,
            "X-Fal-Webhook-User-Id": ACCOUNT,
            "X-Fal-Webhook-Timestamp": timestamp,
            "X-Fal-Webhook-Signature": KEY.sign(message).signature.hex(),
        }
        async with self._places, self._session.post(url, data=body, headers=headers) as answer:
            await answer.read()

    async def open(self, _: web.Application) -> None:
        """Connections are made in the loop that serves."""
        self._session = ClientSession(connector=TCPConnector(limit=DELIVERIES))


def main(port: str, file: str) -> None:
    """Serve until ended."""
    app = web.Application()
    provider = Provider(int(port), Path(file).read_bytes())
    app.on_startup.append(provider.open)
    app.router.add_post("/{path:.*}", provider.accept)
    app.router.add_get("/{path:.*}", provider.show)
    web.run_app(app, host="127.0.0.1", port=int(port), print=lambda _: print("ready", flush=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
