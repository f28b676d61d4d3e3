"""`make bench`: measure rows of docs/performance.md, each beside its peers in one run, and write them there."""

import argparse
import datetime
import os
import platform
import sys
from collections.abc import Callable, Mapping
from functools import partial

from benchmarks.measuring import Found, table, write_section
from benchmarks.rows import accepting, callbacks, command, download, growth, reads, rest, results, submit, whole

ROWS: Mapping[str, Callable[[int], Found]] = {
    "callbacks": callbacks.measure,
    "submit": submit.measure,
    "download": download.measure,
    "intake": accepting.measure,
    "whole": whole.measure,
    "reads": reads.measure,
    "results": results.measure,
    "command": command.measure,
    "rest": rest.measure,
    "growth": growth.measure,
}
"""Name, as in `make bench ROW=…`, -> what measures it, given the number of rounds."""


def main() -> int:
    """Measure one row, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument("row", nargs="?", choices=[*ROWS, "all"], default="all")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant; the page shows medians")
    parser.add_argument("--largest", type=int, default=growth.SIZES[-1], help="edits of the largest table of growth")
    options = parser.parse_args()
    rows: Mapping[str, Callable[[int], Found]] = {**ROWS, "growth": partial(growth.measure, largest=options.largest)}
    for name in rows if options.row == "all" else [options.row]:
        found = rows[name](options.rounds)
        write_section(name, found, _about(options.rounds))
        print(table(found))
    return 0


def _about(rounds: int) -> str:
    today = datetime.datetime.now(datetime.UTC).date()
    return f"Medians of {rounds} turns each, {today}, {os.cpu_count()} cores, Python {platform.python_version()}."


if __name__ == "__main__":
    sys.exit(main())
