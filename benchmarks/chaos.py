"""`make chaos`: thousands of edits through the real system while everything breaks; then the books are compared.

Real processes, real HTTP, real pictures; the provider is the emulator with every kind of fault on at a high
rate, and processes are killed at random. The seed decides the emulator's faults and who is killed in which
order; what is going on at that moment is the machine's. Prints a table and exits 1 if anything is unexplained.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

from sqlalchemy import Engine

from benchmarks.audit import Audit, audit
from benchmarks.faults import FAULTS, Plan, make_plan
from benchmarks.killing import Killer
from benchmarks.system import System
from cli.output import screen
from intake.batches import BatchHeader, create
from intake.manifest import read_jsonl

BATCH = 500
"""Edits in one batch; several batches run beside each other."""
SETTLE_WITHIN = 240.0
"""Seconds after the last fault within which everything must have come to its end."""


def main() -> int:
    """Run, compare, print."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--edits", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=900.0, help="the longest the edits may take")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a stopped run stops what it started
    with tempfile.TemporaryDirectory(prefix="darkroom-chaos-") as folder:
        os.chmod(folder, 0o755)
        found = run(Path(folder), make_plan(arguments.seed), arguments.edits, arguments.kills, arguments.seconds)
    if arguments.json:
        print(json.dumps(found.as_dict()))
    else:
        screen.print(found.table(arguments.seed))
    return 0 if found.clean else 1


def run(folder: Path, plan: Plan, edits: int, kills: int, seconds: float) -> Audit:
    """One run in an empty folder; everything is stopped at the end."""
    system = System(folder, faults=FAULTS, seed=plan.seed)
    try:
        system.start()
        started = time.monotonic()
        hand_in(system.engine, plan, edits)
        killer = Killer(system, plan)
        while unfinished(system.engine) and time.monotonic() - started < seconds:
            if killer.kills < kills:
                killer.strike()
            else:
                time.sleep(1.0)
        took = time.monotonic() - started
        settled = wait_until_finished(system.engine, SETTLE_WITHIN)
        return audit(system, kills=killer.count, seconds=took, settled=settled)
    finally:
        system.stop()


def hand_in(engine: Engine, plan: Plan, edits: int) -> None:
    """Hand the batches in, each edit telling by its prompt which one it is."""
    picture = plan.picture()
    for first in range(0, edits, BATCH):
        lines = [
            json.dumps(
                {
                    "custom_id": f"edit-{number}",
                    "prompt": f"edit {number} of seed {plan.seed}",
                    "image_urls": [picture],
                    "image_size": {"width": 960, "height": 960},
                    "num_images": plan.images(number),
                }
            )
            for number in range(first, min(first + BATCH, edits))
        ]
        with engine.begin() as connection:
            create(connection, BatchHeader(name=f"chaos {first}"), read_jsonl(BytesIO("\n".join(lines).encode())))


def unfinished(engine: Engine) -> int:
    """Batches that are not finished; -1 while the database does not answer."""
    try:
        with engine.connect() as connection:
            return int(
                connection.exec_driver_sql("SELECT count(*) FROM batches WHERE finished_at IS NULL").scalar_one()
            )
    except Exception:  # PostgreSQL is among those that are killed
        return -1


def wait_until_finished(engine: Engine, timeout: float) -> bool:
    """Whether every batch came to its end in time."""
    deadline = time.monotonic() + timeout
    while unfinished(engine):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


if __name__ == "__main__":
    sys.exit(main())
