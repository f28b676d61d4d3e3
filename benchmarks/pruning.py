"""`python -m benchmarks.pruning [--edits N]`: what it costs to remove finished edits, and what it leaves behind.

Finished edits are made as they come about (`finished_edits.py`), audited and pruned by the lane's own steps, while
autovacuum is on as the migrations set it; then as many are made again in the room that they left.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine

from benchmarks.finished_edits import finish_edits
from benchmarks.intake import server
from cli.migrate import upgrade
from models.audits import audit_batch, unaudited_batches
from models.database import make_engine
from models.retention import prune_batches, prune_callback_bodies

TABLES = ("edits", "submissions", "images", "callbacks")
STANDING = """
    SELECT c.relname, pg_total_relation_size(c.oid), s.n_live_tup, s.n_dead_tup
    FROM pg_class c JOIN pg_stat_user_tables s ON s.relid = c.oid WHERE c.relname = ANY(%s)
"""
AT_ONCE = 0.0
"""Seconds for which anything is kept."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pruning", description=__doc__)
    parser.add_argument("--edits", type=int, default=100_000)
    edits = parser.parse_args().edits
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as folder, server(Path(folder)) as url:
        upgrade(url)
        engine = make_engine(url, application="darkroom bench", statement_timeout="600000")
        for name, step in _steps(engine, edits).items():
            began, written = time.perf_counter(), _read_log_size(engine)
            step()
            seconds = time.perf_counter() - began
            _report(engine, name, seconds, edits, (_read_log_size(engine) - written) / edits)
        engine.dispose()
    return 0


def _steps(engine: Engine, edits: int) -> dict[str, Callable[[], object]]:
    return {
        "made": lambda: finish_edits(engine, edits),
        "vacuumed": lambda: _vacuum(engine),
        "audited": lambda: _audit(engine),
        "bodies pruned": lambda: _repeat(engine, lambda connection: prune_callback_bodies(connection, AT_ONCE).more),
        "batches pruned": lambda: _repeat(engine, lambda connection: prune_batches(connection, AT_ONCE).more),
        "vacuumed again": lambda: _vacuum(engine),
        "made again": lambda: finish_edits(engine, edits),
    }


def _repeat(engine: Engine, step: Callable[..., bool]) -> None:
    more = True
    while more:
        with engine.begin() as connection:
            more = step(connection)


def _audit(engine: Engine) -> None:
    while True:
        with engine.connect() as connection:
            batches = unaudited_batches(connection, 100)
        if not batches:
            return
        for batch in batches:
            with engine.begin() as connection:
                assert audit_batch(connection, batch) is None


def _vacuum(engine: Engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")


def _read_log_size(engine: Engine) -> int:
    """Bytes of the write-ahead log so far."""
    with engine.connect() as connection:
        return int(connection.exec_driver_sql("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").scalar_one())


def _report(engine: Engine, name: str, seconds: float, edits: int, written: float) -> None:
    time.sleep(1)  # the server's statistics are written with a delay
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(STANDING, (list(TABLES),)).all()
    shown = "  ".join(f"{row[0]} {row[1] / 1e6:.0f} MB ({row[2]} live, {row[3]} dead)" for row in rows)
    total = sum(row[1] for row in rows) / 1e6
    each = f"{edits / seconds:>8.0f}/s {written:>6.0f} bytes of log an edit"
    print(f"{name:<15}{seconds:>7.1f} s {each} {total:>6.0f} MB  {shown}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
