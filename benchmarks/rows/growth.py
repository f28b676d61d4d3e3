"""What each polled query and each claim takes as the tables grow: it should not matter how much is over and done."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import Connection, Engine, make_url

from benchmarks.intake import server
from benchmarks.large_tables import EDITS_EACH, RUNNING, fill_tables
from benchmarks.measuring import Column, Found
from cli.migrate import upgrade
from models import due_work
from models.claims import claim_edits, claim_images, claim_polls, claim_unknown
from models.criteria import limited_batches
from models.database import make_engine
from models.notifications import claim_notifications
from models.provider import LIST_PRICE
from models.queries import batches, edits, health, overview
from models.queries import page as page_queries
from models.queries.metrics import METRICS
from models.transitions import finishable_batches

SIZES = (10_000, 100_000, 1_000_000)
FLAT = 1.5
"""How many times its figure at the smallest size a query may take."""
UNNOTICED = 0.2
"""Milliseconds more that make none of them grow: nothing here is measured as finely."""
REPEATED = 15
"""Runs of a query in one turn, of which the quickest counts."""
DAYS = 60
"""For which each database looks as if it had been in use: what is asked for a day has a whole day in all of them."""
CLIENTS = 2
"""So few that each has work of nearly every day in the smallest database too: what has a row for each client and day
has as many in all of them."""
TEXT = f"""\
Milliseconds of each polled query and each claim, by the number of edits in the tables. They stand in batches of
{EDITS_EACH} of {CLIENTS} clients, and {RUNNING} of them run; all others ended in the last {DAYS} days, with their
submissions, callbacks and images. What has a row for each batch is given for a hundred of them. A row that takes more
than {FLAT} times what it takes at 10 000 edits says so in front."""

Step = Callable[[Connection], Any]


def asking(statement: str, parameters: Any = None) -> Step:
    """A step that reads all rows."""
    return lambda connection: connection.exec_driver_sql(statement, parameters).all()


def steps(connection: Connection) -> dict[str, Step]:
    """By name, with a finished and a running batch of this database."""
    old, running = (
        connection.exec_driver_sql(f"SELECT id FROM batches WHERE finished_at {which} LIMIT 1").scalar_one()
        for which in ("IS NOT NULL", "IS NULL")
    )
    page = dict.fromkeys(("state", "name", "after", "until", "field", "value", "before", "batch"))
    lines = {"batch": old, "after": -1, "edits": 500, "bytes": 4 * 2**20, "link": "file:///images/", "by_key": True}
    listed = {**page, "client": None, "limit": 26, "looked": 20_000}
    tiles = {"batch": old, "after": -1, "until": 20_000, "state": "failed", "error_type": None, "limit": 25}
    some = {"batch": running, "after": -1, "state": "ready", "custom_id": None, "error_type": None, "limit": 51}
    return {
        "tick: edits due": asking(due_work.EDITS_DUE),
        "tick: submissions due": asking(due_work.SUBMISSIONS_DUE),
        "tick: images due": asking(due_work.IMAGES_DUE),
        "tick: batches unfinished": asking(due_work.BATCHES_UNFINISHED),
        "tick: notifications due": asking(due_work.NOTIFICATIONS_DUE),
        "settle: finishable batches": finishable_batches,
        "settle: batches with limits": limited_batches,
        "claim edits": lambda c: claim_edits(c, limit=100, window=10_000, probe_after=60, price=LIST_PRICE),
        "claim polls": lambda c: claim_polls(c, limit=100, lease=60),
        "claim unknown": lambda c: claim_unknown(c, limit=100, lease=60),
        "claim images": lambda c: claim_images(c, limit=100, lease=60),
        "claim notifications": lambda c: claim_notifications(c, limit=100, lease=60, clients=None),
        "progress of one batch": asking(batches.PROGRESS_OF_BATCH, (old,)),
        "progress of the newest 20": asking(batches.PROGRESS_OF_NEWEST, (20,)),
        "GET batch": asking(batches.BATCH_DETAIL, {"batch": old}),
        "GET batches": asking(batches.BATCH_PAGE, {**page, "client": "client-1", "limit": 21, "bytes": 2**20}),
        "GET edits": asking(edits.EDIT_PAGE, some),
        "errors of a batch": asking(batches.ERRORS_BY_TYPE, (old, 10)),
        "a page of results": asking(edits.RESULTS_PAGE, lines),
        "page: batches": asking(page_queries.BATCH_LIST, listed),
        "page: edits": asking(page_queries.EDITS_OF_BATCH, {**tiles, "state": None}),
        "page: failed edits": asking(page_queries.EDITS_OF_BATCH, tiles),
        "page: plots": asking(page_queries.SAMPLE_OF_BATCH, {"batch": old, "positions": list(range(EDITS_EACH))}),
        "overdue": asking(health.OVERDUE_BY_STATE),
        "accounting": asking(health.ACCOUNTS),
        **_views(connection, old),
    }


def _views(connection: Connection, batch: UUID) -> dict[str, Step]:
    """What dashboards poll (`docs/monitoring.md`), with a finished batch."""
    edit = connection.exec_driver_sql("SELECT id FROM edits WHERE batch_id = %s LIMIT 1", (batch,)).scalar_one()
    whole = (
        *("in_flight", "lane_status", "pauses", "account_status", "latency_histogram", "event_totals"),
        "client_costs",
    )
    return {
        "timeline of an edit": asking(edits.TIMELINE_OF_EDIT, (edit, 1000)),
        "throughput of an hour": asking(page_queries.MINUTES_OF_AN_HOUR),
        "latency of a day": asking("SELECT * FROM latency WHERE hour > now() - interval '1 day'"),
        "open batches": asking(overview.RUNNING_BATCHES, (20,)),
        "batch_costs of one batch": asking(page_queries.MONEY_OF_BATCH, (batch,)),
        "callback_ledger of a day": asking("SELECT * FROM callback_ledger WHERE hour > now() - interval '1 day'"),
        "cost_ledger of a week": asking("SELECT * FROM cost_ledger WHERE day > current_date - 7"),
        "storage_usage of a week": asking("SELECT * FROM storage_usage WHERE day > current_date - 7"),
        "metrics": lambda c: [c.exec_driver_sql(question).all() for question in METRICS.values()],
        **{name: asking(f"SELECT * FROM {name}") for name in whole},
    }


EACH_BATCH = {"batch_progress": "SELECT * FROM batch_progress", "batch_costs": "SELECT * FROM batch_costs"}
"""Asked for all batches."""


def measure(rounds: int, largest: int = SIZES[-1]) -> Found:
    """Fill a database of each size up to `largest` edits, and let the sizes take turns."""
    sizes = sorted({*(size for size in SIZES if size < largest), largest})
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="darkroom-bench-")))
        url = stack.enter_context(server(folder))
        engines = {size: stack.enter_context(_filled(url, size)) for size in sizes}
        turns: dict[str, dict[int, list[float]]] = {}
        for number in range(rounds):
            for size, engine in engines.items():
                for name, took in _time_queries(engine).items():
                    turns.setdefault(name, {}).setdefault(size, []).append(took)
                print(f"round {number + 1}: {size} edits measured", flush=True)
    columns = [*(Column(str(size), f"{size:,} edits".replace(",", " "), 2) for size in sizes), Column("growth", "x", 1)]
    found = dict(_judge(name, by_size, sizes) for name, by_size in turns.items())
    return Found("Growth", TEXT, columns, found, plotted="growth")


@contextmanager
def _filled(url: str, size: int) -> Iterator[Engine]:
    name = f"edits_{size}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    address = make_url(url).set(database=name).render_as_string(hide_password=False)
    upgrade(address)
    with psycopg.connect(address, autocommit=True) as connection:
        fill_tables(connection, batches=size // EDITS_EACH, days=DAYS, clients=CLIENTS)
    engine = make_engine(address, application="darkroom bench", statement_timeout="600000")
    print(f"{size} edits filled in", flush=True)
    try:
        yield engine
    finally:
        engine.dispose()


def _time_queries(engine: Engine) -> dict[str, float]:
    """Step -> milliseconds; whatever it changes is taken back."""
    with engine.connect() as connection:
        found = {name: _least(connection, step) for name, step in steps(connection).items()}
        batches = connection.exec_driver_sql("SELECT count(*) FROM batches").scalar_one()
        for name, statement in EACH_BATCH.items():
            found[f"{name} of all, for 100 batches"] = 100 * _least(connection, asking(statement)) / batches
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM")  # what was taken back
    return found


def _least(connection: Connection, step: Step) -> float:
    return min(_timed(connection, step) for _ in range(REPEATED))


def _timed(connection: Connection, step: Step) -> float:
    began = time.perf_counter()
    step(connection)
    took = time.perf_counter() - began
    connection.rollback()
    return 1000 * took


def _judge(name: str, by_size: Mapping[int, list[float]], sizes: list[int]) -> tuple[str, list[Mapping[str, float]]]:
    """The row's name, which tells whether it grew, and its figures by turn."""
    first, *others = (median(by_size[size]) for size in sizes)
    grown = any(other > FLAT * first and other - first > UNNOTICED for other in others)
    last = max(others, default=first)
    turns: list[Mapping[str, float]] = [
        {**{str(size): by_size[size][turn] for size in sizes}, "growth": last / first}
        for turn in range(len(by_size[sizes[0]]))
    ]
    return (f"**NOT FLAT:** {name}" if grown else name), turns
