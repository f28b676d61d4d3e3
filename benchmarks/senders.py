"""`python -m benchmarks.senders NAME PORT COUNT WIDTH`: send POSTs as darkroom does, or as others do.

Prints one JSON object: POSTs a second, and milliseconds of CPU for each.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import aiohttp
import requests

from models.seedream import ENDPOINT
from provider.queue_api import QueueAPI

ARGUMENTS = {"prompt": "a darkroom print, toned in sepia", "image_urls": ["https://images.example/a.png"], "seed": 7}
WEBHOOK = "https://public.example/webhooks/fal/6a3e5e3c-0000-4000-8000-000000000001"
HEADERS = {"Authorization": "Key id:secret", "Content-Type": "application/json"}


def with_darkroom(url: str, count: int, width: int) -> None:
    """The client of the submit lane, in threads as there."""
    api = QueueAPI(url, "id:secret", start_timeout=600)
    _in_threads(lambda _: api.submit(ENDPOINT, ARGUMENTS, webhook_url=WEBHOOK), count, width)


def with_requests(url: str, count: int, width: int) -> None:
    """A session of `requests`, in threads."""
    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=width))

    def post(_: int) -> str:
        answer = session.post(
            f"{url}/{ENDPOINT}", params={"fal_webhook": WEBHOOK}, json=ARGUMENTS, headers=HEADERS, timeout=30
        )
        return str(answer.json()["request_id"])

    _in_threads(post, count, width)


def _in_threads(post: Callable[[int], str], count: int, width: int) -> None:
    with ThreadPoolExecutor(width) as pool:
        if not all(pool.map(post, range(count))):
            raise RuntimeError("a POST without a request id")


def with_aiohttp(url: str, count: int, width: int) -> None:
    """aiohttp, in one thread."""
    asyncio.run(_with_aiohttp(f"{url}/{ENDPOINT}?{urlencode({'fal_webhook': WEBHOOK})}", count, width))


async def _with_aiohttp(url: str, count: int, width: int) -> None:
    numbers = iter(range(count))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=width)) as session:

        async def post() -> None:
            for _ in numbers:
                async with session.post(url, json=ARGUMENTS, headers=HEADERS) as answer:
                    (await answer.json())["request_id"]

        await asyncio.gather(*(post() for _ in range(width)))


SENDERS: Mapping[str, Callable[[str, int, int], None]] = {
    "darkroom": with_darkroom,
    "requests": with_requests,
    "aiohttp": with_aiohttp,
}


def main(name: str, port: str, count: str, width: str) -> None:
    """Send so many, so many at one time."""
    began, cpu = time.perf_counter(), time.process_time()
    SENDERS[name](f"http://127.0.0.1:{port}", int(count), int(width))
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(json.dumps({"rate": int(count) / seconds, "cpu_ms": 1000 * cpu / int(count)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
