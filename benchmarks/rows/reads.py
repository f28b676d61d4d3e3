"""What callers and operators look at, at a million edits, beside counting the same rows."""

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
import requests

from benchmarks.intake import database, intake
from benchmarks.large_tables import EDITS_EACH, fill_tables, large_batch
from benchmarks.measuring import Column, Found, take_turns
from cli.stack.embedded import free_port
from models.queries import batches, health

EDITS, LARGE = 1_000_000, 100_000
COLUMNS = (Column("ms", "ms", 1),)
TEXT = f"""\
Milliseconds of what is looked at all the time, at {EDITS} edits in batches of {EDITS_EACH} and one batch of {LARGE},
beside a count over the same rows. Each figure is the median of twenty in its turn; pages are whole, without images."""
COUNTED = "SELECT state, count(*) FROM edits WHERE batch_id = %(batch)s GROUP BY state"


def measure(rounds: int) -> Found:
    """Fill the tables, serve the API, and let them take turns."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="darkroom-bench-")))
        url, port = stack.enter_context(database(folder)), free_port()
        connection = stack.enter_context(psycopg.connect(url, autocommit=True))
        fill_tables(connection, batches=EDITS // EDITS_EACH)
        batch = large_batch(connection, LARGE)
        stack.enter_context(intake(url, port))
        session, large = stack.enter_context(requests.Session()), {"batch": batch}
        ask, get = partial(_ask, connection), partial(_get, session, f"http://127.0.0.1:{port}")
        contestants: dict[str, Callable[[], object]] = {
            f"GET /v1/batches/…, {LARGE} edits": partial(get, f"/v1/batches/{batch}"),
            "page: batches": partial(get, "/"),
            f"page: batch of {LARGE} edits": partial(get, f"/batches/{batch}"),
            f"page: its failed edits, of {LARGE}": partial(get, f"/batches/{batch}?state=failed"),
            "page: one edit": partial(get, f"/batches/{batch}/edits/{LARGE // 2}"),
            "page: system": partial(get, "/system"),
            "GET /metrics": partial(get, "/metrics"),
            "GET /healthz": partial(get, "/healthz"),
            f"batch_progress of {LARGE} edits": partial(ask, batches.PROGRESS_OF_BATCH, (batch,)),
            f"states of {LARGE} edits, counted": partial(ask, COUNTED, large),
            "batch_progress of all batches": partial(ask, "SELECT * FROM batch_progress"),
            "accounting": partial(ask, health.ACCOUNTS),
            "states of all edits, counted": partial(ask, "SELECT state, count(*) FROM edits GROUP BY state"),
        }
        turns = {name: partial(_measure, query) for name, query in contestants.items()}
        return Found("Looking", TEXT, COLUMNS, take_turns(turns, rounds), plotted="ms")


def _ask(connection: psycopg.Connection[Any], statement: str, parameters: Any = None) -> None:
    connection.execute(statement, parameters).fetchall()


def _get(session: requests.Session, server: str, path: str) -> None:
    answer = session.get(server + path, timeout=60)
    if answer.status_code not in (200, 503):  # 503: nobody ticks here, as `/healthz` says
        answer.raise_for_status()


def _measure(query: Callable[[], object]) -> Mapping[str, float]:
    took = []
    for _ in range(20):
        began = time.perf_counter()
        query()
        took.append(time.perf_counter() - began)
    return {"ms": 1000 * median(took)}
