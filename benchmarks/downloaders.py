"""`python -m benchmarks.downloaders NAME PORT COUNT FOLDER`: fetch, check and store images, as darkroom or plainly.

Prints one JSON object: files a second, and milliseconds of CPU for each. Every file is the same, so it is asked for
under another name each time.
"""

import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from unittest import mock

import requests
from PIL import Image

from core import image_files
from core.settings import load
from http_client.fetch import Fetcher
from models.claims import DueImage
from models.transitions import StoredImage
from storage.store import Storage
from worker.lanes.download import store
from worker.settings import WorkerSettings

PROCESSES = 2


def with_darkroom(url: str, count: int, folder: Path) -> None:
    """What the download lane does for each image, in as many threads."""
    settings = load(WorkerSettings)
    fetcher = Fetcher(["127.0.0.1"], max_bytes=settings.picture_max_bytes)
    storage = Storage(folder.as_uri())

    def one(number: int) -> bool:
        due = DueImage(number, f"{url}/{number}.png", None, 2048, 2048, 1, f"batch/{number}/0", "127.0.0.1")
        return isinstance(store(fetcher, storage, due, settings), StoredImage)

    with ThreadPoolExecutor(settings.download_threads) as pool:
        if not all(pool.map(one, range(count))):
            raise RuntimeError("not every image was stored")


def with_darkroom_decoding(url: str, count: int, folder: Path) -> None:
    """The same, where Pillow decodes every file."""
    with mock.patch.object(image_files, "has_every_row", return_value=False):
        with_darkroom(url, count, folder)


def plainly(url: str, count: int, folder: Path) -> None:
    """A few lines: `requests`, SHA-256, Pillow and a file, in two processes; nothing is synced, no limit is kept."""
    with ProcessPoolExecutor(PROCESSES) as pool:
        if len(list(pool.map(partial(_one, url, folder), range(count), chunksize=4))) != count:
            raise RuntimeError("not every image was stored")


_session = requests.Session()


def _one(url: str, folder: Path, number: int) -> str:
    content = _session.get(f"{url}/{number}.png", timeout=30).content
    Image.open(BytesIO(content)).load()
    (folder / f"{number}.png").write_bytes(content)
    return hashlib.sha256(content).hexdigest()


DOWNLOADERS: Mapping[str, Callable[[str, int, Path], None]] = {
    "darkroom": with_darkroom,
    "decoding": with_darkroom_decoding,
    "plain": plainly,
}


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main(name: str, port: str, count: str, folder: str) -> None:
    """Fetch so many into a folder that exists."""
    began, cpu = time.perf_counter(), _cpu()
    DOWNLOADERS[name](f"http://127.0.0.1:{port}", int(count), Path(folder))
    seconds, cpu = time.perf_counter() - began, _cpu() - cpu
    print(json.dumps({"rate": int(count) / seconds, "cpu_ms": 1000 * cpu / int(count)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
