"""A large batch through the intake API, beside a COPY of the same rows."""

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from benchmarks.intake import bare_copy, database, hand_in, intake, manifest
from benchmarks.measuring import Column, Found, take_turns
from cli.stack.embedded import free_port

EDITS = 100_000
COLUMNS = (Column("seconds", "s", 2), Column("rate", "edits/s"), Column("peak_mb", "most memory, MB"))
TEXT = f"""\
One request with {EDITS} edits as lines, until it is answered: read, checked, written and committed. COPY puts the
same rows into the same table, with its triggers and indexes, and checks nothing."""


def measure(rounds: int) -> Found:
    """Let both write by turns."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="darkroom-bench-")))
        url, port = stack.enter_context(database(folder)), free_port()
        process, body = stack.enter_context(intake(url, port)), manifest(EDITS)
        contestants = {
            "POST /v1/batches": partial(_accept, port, body, process),
            "COPY of the same rows": partial(_copy, url),
        }
        return Found("Intake", TEXT, COLUMNS, take_turns(contestants, rounds), plotted="rate")


def _accept(port: int, body: bytes, process: psutil.Process) -> Mapping[str, float]:
    seconds, peak = hand_in(port, body, process)
    return {"seconds": seconds, "rate": EDITS / seconds, "peak_mb": peak / 1e6}


def _copy(url: str) -> Mapping[str, float]:
    seconds = bare_copy(url)
    return {"seconds": seconds, "rate": EDITS / seconds}
