"""Another program on the same account: it submits the same inputs and similar ones, straight to the provider."""

import random
import threading
import time
from collections.abc import Sequence

import requests

from benchmarks.books import OTHER_PROGRAM
from benchmarks.manifests import SIZE, EditLine, image

ENDPOINT = "fal-ai/bytedance/seedream/v4/edit"
FLOOD_THREADS = 8
FLOOD_CONCURRENCY = 400
FLOOD_PAUSE = 0.2
"""Seconds between two looks at how far the flood has come."""


class OtherProgram:
    """Submits now and then until it is stopped; a flood at one time makes the account's listing long."""

    def __init__(self, provider: str, dice: random.Random, every: float) -> None:
        self._url, self._provider = f"{provider}/{ENDPOINT}", provider
        self._dice, self._every = dice, every
        self._lines: Sequence[EditLine] = ()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.posts = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def look_at(self, lines: Sequence[EditLine]) -> None:
        """From now on it works on the same images as these edits do."""
        self._lines = [line for line in lines if "[[fault:" not in line["prompt"]]

    def _run(self) -> None:
        with _session() as session:
            while not self._over.wait(self._every):
                if self._lines:
                    self._submit(session, self._similar(self._dice.choice(self._lines)))

    def _similar(self, line: EditLine) -> EditLine:
        given = {name: value for name, value in line.items() if name != "custom_id"}
        if self._dice.random() < 0.5:
            return given
        return {**given, "image_urls": [image(self._dice.randrange(2**24))]}

    def _submit(self, session: requests.Session, body: EditLine) -> None:
        self.posts += 1
        try:
            session.post(self._url, json=body, timeout=10).close()
        except requests.RequestException:
            return  # the provider is no kinder to this program than to us

    def flood(self, count: int) -> None:
        """So many requests as fast as they are taken; returns once they have ended."""
        before = self._totals()["completed"]
        self._set(concurrency=FLOOD_CONCURRENCY)
        threads = [
            threading.Thread(target=self._pour, args=(number, count // FLOOD_THREADS))
            for number in range(FLOOD_THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        deadline = time.monotonic() + 60
        while self._totals()["completed"] - before < count * 0.9 and time.monotonic() < deadline:
            time.sleep(FLOOD_PAUSE)

    def _pour(self, number: int, count: int) -> None:
        with _session() as session:
            for place in range(count):
                body = {"prompt": "another shop's hat", "seed": place, "image_urls": [f"data:,{number}"]}
                self._submit(session, {**body, "image_size": SIZE})

    def _totals(self) -> dict[str, int]:
        with _session() as session:
            counts: dict[str, int] = session.get(f"{self._provider}/_emulator/state", timeout=30).json()["counts"]
        return counts

    def _set(self, **options: float) -> None:
        with _session() as session:
            session.put(f"{self._provider}/_emulator/options", json=options, timeout=30).raise_for_status()

    def stop(self) -> None:
        """End it."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(30)


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.headers.update({"User-Agent": f"{OTHER_PROGRAM}/1", "Authorization": "Key chaos:chaos"})
    return session
