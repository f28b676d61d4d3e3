"""The whole way of an edit, from the API to the stored image, with a provider that takes no time."""

import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import requests
from PIL import Image

from benchmarks.measuring import Column, Found, cpu_seconds, take_turns
from benchmarks.system import System

EDITS = 3_000
"""Of one turn."""
WITHIN = 300.0
"""Seconds for one turn."""
PARTS = ("postgres", "receiver", "submit", "download")
COLUMNS = (
    Column("rate", "edits/s"),
    Column("cpu_ms", "CPU, ms an edit", 2),
    *(Column(part, f"of it {part}", 2) for part in PARTS),
)
TEXT = f"""\
{EDITS} edits in one batch, from the request of the API until the batch is finished: written, submitted, called back,
their images of 64 x 64 pixels fetched, checked, stored and synced, settled. The provider takes no time
(`benchmarks/instant_provider.py`), and shares the two cores. Everything else is `darkroom up`, with a window of
200 edits."""


class InstantSystem(System):
    """The stack beside a provider that takes no time."""

    def _provider_command(self, port: str) -> list[str]:
        image = self.folder / "image.png"
        Image.new("RGB", (64, 64), (200, 60, 40)).save(image)
        return [sys.executable, "-m", "benchmarks.instant_provider", port, str(image)]


def measure(rounds: int) -> Found:
    """Start everything once, and send batch after batch."""
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as folder:
        system = InstantSystem(Path(folder), variables={"FAL_USER_ID": "github|12345"})
        try:
            system.start()
            turns = take_turns({"darkroom": partial(_send_batch, system)}, rounds)
        finally:
            system.stop()
    return Found("The whole way", TEXT, COLUMNS, turns, plotted="rate")


def _send_batch(system: InstantSystem) -> Mapping[str, float]:
    lines = ({"prompt": f"edit {n}", "image_urls": ["https://images.example/a.png"]} for n in range(EDITS))
    body = "{}\n" + "".join(json.dumps(line) + "\n" for line in lines)
    before, began = _cpu(system), time.perf_counter()
    headers = {"Content-Type": "application/x-ndjson"}
    answer = requests.Session().post(f"{system.intake}/v1/batches", data=body.encode(), headers=headers, timeout=60)
    answer.raise_for_status()
    _wait(system, answer.json()["batch_id"])
    seconds, after = time.perf_counter() - began, _cpu(system)
    used = {part: 1000 * (after[part] - before[part]) / EDITS for part in after}
    return {"rate": EDITS / seconds, "cpu_ms": sum(used.values()), **{part: used.get(part, 0.0) for part in PARTS}}


def _wait(system: InstantSystem, batch: str) -> None:
    deadline = time.monotonic() + WITHIN
    while time.monotonic() < deadline:
        state = requests.Session().get(f"{system.intake}/v1/batches/{batch}", timeout=10).json()
        if state["finished_at"]:
            if state["counts"]["stored"] != EDITS:
                raise RuntimeError(f"not every edit was stored: {state['counts']}")
            return
        time.sleep(0.1)
    raise RuntimeError(f"the batch was not finished in {WITHIN} s: {state['counts']}")


def _cpu(system: InstantSystem) -> dict[str, float]:
    """CPU seconds so far, by part; the provider's are not counted, PostgreSQL's with all that it started."""
    used: dict[str, float] = defaultdict(float)
    for part, process in system.processes():
        try:
            times = process.cpu_times()
            used[part] += cpu_seconds(process) if part == "postgres" else times.user + times.system
        except psutil.Error:
            continue
    return used
