"""The stack at rest: how soon it is there, and what it costs while nothing is due."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from benchmarks.measuring import Column, Found, cpu_seconds, take_turns
from cli.settings import environment
from cli.stack.embedded import free_port

SETTLED_AFTER, WATCHED_FOR = 10.0, 30.0
"""Seconds from ready until memory is counted, and for which the CPU is counted."""
READY_WITHIN = 120.0
MB = 2**20
COLUMNS = (
    Column("first", "first start, s", 1),
    Column("again", "start again, s", 1),
    Column("processes", "processes"),
    Column("rss", "RSS summed, MB"),
    Column("pss", "PSS summed, MB"),
    Column("cpu", "CPU at rest, % of a core", 2),
)
TEXT = """\
`darkroom up --emulator` with nothing to do: seconds until it is ready, on an empty folder and on what that left; then
all that runs below it, PostgreSQL, the broker and the emulator too. RSS counts a page in each process that has it, PSS
counts it once."""


def measure(rounds: int) -> Found:
    """A fresh folder for each turn."""
    return Found("At rest", TEXT, COLUMNS, take_turns({"darkroom up": _start_and_watch}, rounds), plotted="rss")


def _start_and_watch() -> Mapping[str, float]:
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as folder:
        with _started(Path(folder)) as (_, first):
            pass
        with _started(Path(folder)) as (up, again):
            time.sleep(SETTLED_AFTER)
            below = psutil.Process(up.pid).children(recursive=True)
            memory = [process.memory_full_info() for process in below]
            used = cpu_seconds(psutil.Process(up.pid))
            time.sleep(WATCHED_FOR)
            used = cpu_seconds(psutil.Process(up.pid)) - used
    rss, pss = (sum(getattr(one, name) for one in memory) / MB for name in ("rss", "pss"))
    cpu = 100 * used / WATCHED_FOR
    return {"first": first, "again": again, "processes": len(below), "rss": rss, "pss": pss, "cpu": cpu}


@contextmanager
def _started(folder: Path) -> Iterator[tuple["subprocess.Popen[bytes]", float]]:
    """The stack of this folder, and the seconds until it was ready."""
    ports = {name: str(free_port()) for name in ("RECEIVER_PORT", "INTAKE_PORT")}
    command = (sys.executable, "-m", "cli.main", "up", "--emulator", "--emulator-port", str(free_port()))
    variables = {**environment(), "DARKROOM_HOME": str(folder / "home"), **ports}
    log, began = folder / "up.log", time.monotonic()
    with log.open("w") as file, subprocess.Popen(command, env=variables, stdout=file, stderr=file) as process:
        try:
            while "ready:" not in log.read_text():
                if process.poll() is not None or time.monotonic() - began > READY_WITHIN:
                    raise RuntimeError(f"the stack did not start: {log.read_text()[-2000:]}")
                time.sleep(0.02)
            yield process, time.monotonic() - began
        finally:
            process.terminate()
