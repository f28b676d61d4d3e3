"""The results of a large batch over HTTP: the first byte, and the rate from there on."""

import http.client
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import psycopg

from benchmarks.intake import database, intake
from benchmarks.large_tables import large_batch
from benchmarks.measuring import Column, Found, cpu_seconds, take_turns
from cli.stack.embedded import free_port

EDITS = 100_000
COLUMNS = (
    Column("first_ms", "first byte, ms", 1),
    Column("rate", "MB/s", 1),
    Column("whole_s", "whole answer, s", 1),
    Column("megabytes", "MB"),
    Column("cpu_s", "CPU of the server, s", 1),
)
TEXT = f"""\
The results of {EDITS} stored edits over HTTP. The same over
HTTP/1.0 is written down whole first. COPY sends the same edits without their images, submissions and addresses."""
COPY = """
    COPY (SELECT row_to_json(e) FROM (
        SELECT position, custom_id, state, seed, errors, arguments FROM edits
        WHERE batch_id = '{batch}' ORDER BY position
    ) e) TO STDOUT
"""


def measure(rounds: int) -> Found:
    """Serve one batch, and let the ways of reading it take turns."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="darkroom-bench-")))
        url, port = stack.enter_context(database(folder)), free_port()
        connection = stack.enter_context(psycopg.connect(url, autocommit=True))
        batch = large_batch(connection, EDITS)
        process = stack.enter_context(intake(url, port))
        ask = partial(_ask, port, f"/v1/batches/{batch}/results", process)
        contestants = {
            "GET …/results": partial(ask, 11),
            "GET …/results over HTTP/1.0": partial(ask, 10),
            "COPY of the edits alone": partial(_copy, connection, COPY.format(batch=batch)),
        }
        return Found("Results", TEXT, COLUMNS, take_turns(contestants, rounds), plotted="rate")


def _ask(port: int, path: str, process: psutil.Process, version: int) -> Mapping[str, float]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection._http_vsn, connection._http_vsn_str = version, f"HTTP/1.{version % 10}"  # type: ignore[attr-defined]
    before, began = cpu_seconds(process), time.perf_counter()
    connection.request("GET", path)
    response = connection.getresponse()
    size, first = len(response.read(1)), time.perf_counter() - began
    while part := response.read(1 << 16):
        size += len(part)
    whole = time.perf_counter() - began
    connection.close()
    return {**_figures(first, whole, size), "cpu_s": cpu_seconds(process) - before}


def _copy(connection: psycopg.Connection[Any], statement: str) -> Mapping[str, float]:
    began, first, size = time.perf_counter(), 0.0, 0
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for part in copy:
            first = first or time.perf_counter() - began
            size += len(part)
    return _figures(first, time.perf_counter() - began, size)


def _figures(first: float, whole: float, size: int) -> dict[str, float]:
    rate = size / 1e6 / (whole - first)
    return {"first_ms": 1000 * first, "whole_s": whole, "rate": rate, "megabytes": size / 1e6}
