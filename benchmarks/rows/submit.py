"""POSTs a second to a provider that is 100 ms away: darkroom's client, and what others would send with."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from tempfile import NamedTemporaryFile

from benchmarks.measuring import Column, Found, served, take_turns
from cli.stack.embedded import free_port

LATENCY = 0.1
"""Seconds."""
POSTS = 4_000
"""Of one turn."""
WIDTHS = (128, 64)
COLUMNS = (Column("rate", "POSTs/s"), Column("cpu_ms", "CPU, ms each", 2))
TEXT = f"""\
POSTs of one edit each over kept connections to a server that answers after {LATENCY * 1000:.0f} ms; the number beside
a name says how many are under way at one time ({WIDTHS[1]} are darkroom's default, `SUBMIT_THREADS`). Without any work
of the sender's {WIDTHS[0]} would be {WIDTHS[0] / LATENCY:.0f} a second. darkroom and `requests` send from threads,
aiohttp from one."""


def measure(rounds: int) -> Found:
    """Let the senders run by turns."""
    with distant(LATENCY, b"") as port:
        contestants = {
            f"{title}, {width}": partial(_measure, name, port, width)
            for width in WIDTHS
            for name, title in (("darkroom", "darkroom"), ("aiohttp", "aiohttp"), ("requests", "a session of requests"))
        }
        return Found("Submit", TEXT, COLUMNS, take_turns(contestants, rounds), plotted="rate")


@contextmanager
def distant(latency: float, image: bytes) -> Iterator[int]:
    """The port of a server that answers so many seconds late; GET brings the image."""
    port = free_port()
    with NamedTemporaryFile(suffix=".png") as file:
        file.write(image)
        file.flush()
        with served(("benchmarks.distant_server", str(port), str(latency), file.name), port):
            yield port


def _measure(name: str, port: int, width: int) -> dict[str, float]:
    command = (sys.executable, "-m", "benchmarks.senders", name, str(port), str(POSTS), str(width))
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return dict(json.loads(said))
