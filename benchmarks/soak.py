"""`make soak`: run after run of chaos, each with a seed of its own, until a million callbacks were faulted and five
hundred processes killed, or until the time is over.

Each run is a process of its own and leaves one line in a file of JSON lines, written when its books were compared. That
file is the whole state: a soak that was stopped goes on behind its last line, and a run that did not end leaves none.
Prints a table for docs/reliability.md; exits 0 when every run so far is clean.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.faults import CALLBACK_FAULTS
from cli.output import screen

CALLBACKS, KILLS = 1_000_000, 500
RUN_MAX = 1500.0
"""Seconds that one run may take before it is stopped and counted as one that did not end."""
DELIVERIES = ("drop_webhook", "duplicate_webhook", "delay_webhook", "reorder_webhook")
"""Faults of a whole delivery; the others are of one attempt at it."""
FINDINGS = ("lost", "double_paid", "wrong_images", "missing_images", "unexplained")
Run = dict[str, Any]


def main() -> int:
    """Go on where the last soak ended."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".soak"), help="where runs.jsonl is kept")
    parser.add_argument("--hours", type=float, default=8.0, help="start no run after so long")
    parser.add_argument("--callbacks", type=int, default=CALLBACKS)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--edits", type=int, default=3000, help="in each run")
    parser.add_argument("--hammer", type=int, default=200, help="faulted callbacks a second beside those of the edits")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    arguments.folder.mkdir(parents=True, exist_ok=True)
    file = arguments.folder / "runs.jsonl"
    until = time.monotonic() + arguments.hours * 3600
    while not enough(read(file), arguments.callbacks, arguments.kills) and time.monotonic() < until:
        append(file, chaos(next_seed(read(file)), arguments.edits, arguments.hammer))
        screen.print(table(read(file)))
    runs = read(file)
    screen.print(table(runs))
    return 0 if runs and all(run["clean"] for run in runs) else 1


def read(file: Path) -> list[Run]:
    """The runs so far; half a line, of a soak that was killed while it wrote, is none."""
    runs = []
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            runs.append(json.loads(line))
        except ValueError:
            continue
    return runs


def append(file: Path, run: Run) -> None:
    """Add one run, durably."""
    with file.open("a+b") as lines:
        if lines.tell() and not file.read_bytes().endswith(b"\n"):
            lines.write(b"\n")
        lines.write(json.dumps(run).encode() + b"\n")
        lines.flush()
        os.fsync(lines.fileno())


def next_seed(runs: Sequence[Run]) -> int:
    """The seed of the next run: one more than the last, from 1001 on."""
    return max((run["seed"] for run in runs), default=1000) + 1


def faulted(run: Run) -> int:
    """Callbacks of a run that were lost, spoilt, late, out of order or sent again."""
    injected: dict[str, int] = run.get("injected", {})
    spoilt = sum(injected.get(kind, 0) for kind in CALLBACK_FAULTS if kind not in DELIVERIES)
    # one that was sent again may have been spoilt as well; it counts once
    return sum(injected.get(kind, 0) for kind in DELIVERIES) + max(spoilt, int(run.get("resent", 0)))


def killed(run: Run) -> int:
    """Processes of a run that were killed."""
    kills: dict[str, int] = run.get("kills", {})
    return sum(count for part, count in kills.items() if part != "flush")


def enough(runs: Sequence[Run], callbacks: int, kills: int) -> bool:
    """Whether both numbers are reached."""
    return sum(map(faulted, runs)) >= callbacks and sum(map(killed, runs)) >= kills


def chaos(seed: int, edits: int, hammer: int) -> Run:
    """One run in a process of its own; one that breaks or hangs is a run that is not clean, with its last words."""
    options = ["--seed", str(seed), "--edits", str(edits), "--hammer", str(hammer), "--json"]
    command = [sys.executable, "-m", "benchmarks.chaos", *options]
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        out, _ = process.communicate(timeout=RUN_MAX)
        found: Run = json.loads(out)
    except (subprocess.TimeoutExpired, ValueError) as error:
        found = {"seed": seed, "clean": False, "broke": str(error)[:300]}
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(120)
    return {"began": began, "asked_edits": edits, **found}


def table(runs: Sequence[Run]) -> Table:
    """All runs together."""
    kills: Counter[str] = Counter()
    for run in runs:
        kills.update(run.get("kills", {}))
    shown = Table(title=f"soak: {len(runs)} runs", show_header=False)
    rows = {
        "from, to": f"{runs[0]['began']}, {runs[-1]['began']}" if runs else "-",
        "seeds": f"{runs[0]['seed']} to {runs[-1]['seed']}" if runs else "-",
        "edits": str(sum(sum(run.get("edits", {}).values()) for run in runs)),
        "faulted callbacks": str(sum(map(faulted, runs))),
        "SIGKILLs": f"{sum(map(killed, runs))}: {', '.join(f'{n} {part}' for part, n in kills.most_common())}",
        "charges": str(sum(run.get("charges", 0) for run in runs)),
        "charged again, the first unknowable": str(sum(sum(run.get("charged_again", {}).values()) for run in runs)),
        **{kind: str(sum(len(run.get(kind, ())) for run in runs)) for kind in FINDINGS},
        "runs that are not clean": ", ".join(str(run["seed"]) for run in runs if not run["clean"]) or "none",
    }
    for name, value in rows.items():
        shown.add_row(name, value)
    return shown


if __name__ == "__main__":
    sys.exit(main())
