"""An emulator in a thread, a receiver that records what is delivered, and the small things tests say with them."""

import asyncio
import io
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import requests
from aiohttp import web
from PIL import Image, ImageDraw

from fal_emulator.app import create_app
from fal_emulator.options import Options

EDIT = "fal-ai/bytedance/seedream/v4/edit"
KEY = "kid:ksecret"
FAST: dict[str, Any] = {"latency": 0.0, "jitter": 0.0, "image_mode": "plain", "concurrency": 8}


class RunningEmulator:
    """An emulator that runs in a thread, and the calls that tests make to it."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Key {KEY}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._runner = web.AppRunner(create_app(options), access_log=None, shutdown_timeout=0.2)
        self.port = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(60)
        self.url = f"http://127.0.0.1:{self.port}"

    async def _start(self) -> int:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return int(self._runner.addresses[0][1])

    def stop(self) -> None:
        self.session.close()
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    def call(self, method: str, path: str, **more: Any) -> requests.Response:
        url = path if path.startswith("http") else self.url + path
        return self.session.request(method, url, timeout=60, **more)

    def get(self, path: str, **more: Any) -> requests.Response:
        return self.call("GET", path, **more)

    def put(self, path: str, **more: Any) -> requests.Response:
        return self.call("PUT", path, **more)

    def post(self, path: str, **more: Any) -> requests.Response:
        return self.call("POST", path, **more)

    def submit_raw(self, webhook: str | None = None, endpoint: str = EDIT, **more: Any) -> requests.Response:
        params = {**more.pop("params", {}), **({"fal_webhook": webhook} if webhook else {})}
        return self.post(f"/{endpoint}", params=params, **more)

    def submit(self, webhook: str | None = None, headers: dict[str, str] | None = None, **body: Any) -> dict[str, Any]:
        given = {"prompt": "a test", "image_urls": ["http://127.0.0.1:9/x.png"], **body}
        reply = self.submit_raw(webhook, json=given, headers=headers)
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    def status(self, job: dict[str, Any], **params: Any) -> requests.Response:
        return self.get(job["status_url"], params=params)

    def finish(self, job: dict[str, Any]) -> requests.Response:
        """The result, once there is one."""
        wait_for(lambda: self.status(job).status_code == 200)
        return self.get(job["response_url"])

    def run(self, **body: Any) -> requests.Response:
        return self.finish(self.submit(**body))

    def ledger(self) -> list[dict[str, Any]]:
        return list(self.get("/_emulator/ledger").json()["rows"])

    def row(self, job: dict[str, Any]) -> dict[str, Any]:
        return next(row for row in self.ledger() if row["request_id"] == job["request_id"])

    def injected(self) -> dict[str, int]:
        return dict(self.get("/_emulator/faults").json()["injected"])


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true value of the condition."""
    end, pause = time.monotonic() + seconds, 0.005
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(pause)
        pause = min(1.5 * pause, 0.05)
    raise AssertionError("it did not happen in time")


@dataclass
class Receiver:
    """A webhook receiver. `answers` are used up one by one, the last one stays; a float is slept first."""

    url: str = ""
    answers: list[int | float] = field(default_factory=lambda: [200])
    deliveries: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def next_answer(self) -> int | float:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def wait(self, count: int = 1, seconds: float = 60.0) -> list[tuple[str, dict[str, str], bytes]]:
        wait_for(lambda: len(self.deliveries) >= count, seconds)
        return self.deliveries


def image_bytes(encoding: str = "PNG", size: tuple[int, int] = (320, 240), seed: int = 0) -> bytes:
    """A small drawing."""
    image = Image.linear_gradient("L").resize(size).convert("RGB")
    pen = ImageDraw.Draw(image)
    pen.ellipse((size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2), fill=(200, 30 + seed % 200, 40))
    target = io.BytesIO()
    image.save(target, encoding)
    return target.getvalue()
