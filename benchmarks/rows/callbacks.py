"""Callbacks recorded a second: 64 connections that each deliver one signed success after the other."""

import base64
import hashlib
import http.server
import json
import pickle
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil  # type: ignore[import-untyped]
from nacl.signing import SigningKey
from sqlalchemy import Engine

from benchmarks.intake import database
from benchmarks.measuring import Column, Found, cpu_seconds, served, take_turns
from benchmarks.peers import KEY_VARIABLE
from cli.stack import processes
from cli.stack.embedded import free_port
from intake.batches import BatchHeader, create
from intake.manifest import read_jsonl
from models.claims import claim_edits
from models.database import make_engine
from models.provider import LIST_PRICE
from models.transitions import record_accepted, start_submissions

CONNECTIONS = 64
CALLBACKS = 3_000
"""Of one turn."""
ACCOUNT = "github|12345"
KEY = SigningKey(bytes(range(32)))
COLUMNS = (
    Column("rate", "callbacks/s"),
    Column("p50_ms", "p50, ms", 1),
    Column("p99_ms", "p99, ms", 1),
    Column("receiver_ms", "CPU in the receiver, ms each", 2),
    Column("postgres_ms", "CPU in PostgreSQL, ms each", 2),
)
TEXT = f"""\
Callbacks recorded over {CONNECTIONS} kept connections: each is a signed success with one image, answered after
the commit that holds it. Receiver, PostgreSQL (fsync and synchronous_commit on) and the sender share the machine. The
ordinary receiver is `benchmarks/peers.py`: Flask and SQLAlchemy's ORM, one transaction for each callback, 8 threads.
The raw writes are pgbench with 8 clients: the same four writes and nothing else."""
PGBENCH = r"""
\set n random({first}, {last})
BEGIN;
UPDATE submissions SET due_at = now() WHERE edit_id = :n;
UPDATE edits SET due_at = now() WHERE id = :n;
INSERT INTO images (submission_id, index, state, due_at, url)
    SELECT id, 1000000 * random(), 'waiting', now(), 'https://v3b.fal.media/files/b/x/y.png' FROM submissions
    WHERE edit_id = :n ON CONFLICT DO NOTHING;
INSERT INTO callbacks (effect, token, request_id, signed_at, headers, body, sha256)
    VALUES ('orphan', 'x', 'x', now(), '{{}}', repeat('x', 400)::bytea, repeat('0', 64));
COMMIT;
"""

Turn = Callable[[], Mapping[str, float]]


def measure(rounds: int, more: Mapping[str, Mapping[str, str]] | None = None) -> Found:
    """Let the receivers run by turns. `more`: further darkroom receivers, each with variables of its own."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="darkroom-bench-")))
        url = stack.enter_context(database(folder))
        engine = make_engine(url, application="darkroom bench", statement_timeout="600000")
        stack.callback(engine.dispose)
        keys = stack.enter_context(_key_server())
        turn = partial(_receiver_turn, engine, folder)
        ours = {"DATABASE_URL": url, "FAL_JWKS_URL": keys}
        contestants: dict[str, Turn] = {
            "darkroom's receiver": partial(turn, _ours, ours),
            **{name: partial(turn, _ours, {**ours, **variables}) for name, variables in (more or {}).items()},
            "ordinary ORM receiver": partial(
                turn, partial(_peer, "ordinary"), {"DATABASE_URL": url, KEY_VARIABLE: bytes(KEY.verify_key).hex()}
            ),
            "bare Flask on granian": partial(turn, partial(_peer, "bare"), {}),
        }
        if program := shutil.which("pgbench"):
            contestants["pgbench, the writes alone"] = partial(_raw_turn, program, engine, folder, url)
        return Found("Callbacks", TEXT, COLUMNS, take_turns(contestants, rounds), plotted="rate")


def _ours(port: int) -> tuple[str, ...]:
    return processes.receiver("127.0.0.1", port).command


def _peer(name: str, port: int) -> tuple[str, ...]:
    listen = ("--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--blocking-threads", "8")
    return (
        "granian",
        *listen,
        "--log-level",
        "warning",
        "--interface",
        "wsgi",
        "--factory",
        f"benchmarks.peers:{name}",
    )


def _receiver_turn(
    engine: Engine, folder: Path, command: Callable[[int], tuple[str, ...]], variables: Mapping[str, str]
) -> dict[str, float]:
    submissions = make_submissions(engine, CALLBACKS)
    file, port = folder / "requests", free_port()
    with served(command(port), port, **variables) as receiver:
        warm, rest = submissions[:200], submissions[200:]
        _send(file, [delivery(*one) for one in warm], port)
        postmaster = _postmaster(folder)
        before = cpu_seconds(receiver), cpu_seconds(postmaster)
        said = _send(file, [delivery(*one) for one in rest], port)
        after = cpu_seconds(receiver), cpu_seconds(postmaster)
    if said["statuses"] != {"200": len(rest)}:
        raise RuntimeError(f"not every callback was taken: {said}")
    each = [1000 * (now - then) / len(rest) for now, then in zip(after, before, strict=True)]
    figures = {"rate": len(rest) / said["seconds"], "p50_ms": said["p50_ms"], "p99_ms": said["p99_ms"]}
    return {**figures, "receiver_ms": each[0], **({"postgres_ms": each[1]} if "DATABASE_URL" in variables else {})}


def _raw_turn(program: str, engine: Engine, folder: Path, url: str) -> dict[str, float]:
    make_submissions(engine, CALLBACKS)
    with engine.connect() as connection:
        last = connection.exec_driver_sql("SELECT max(id) FROM edits").scalar_one()
    script, postmaster = folder / "writes.sql", _postmaster(folder)
    script.write_text(PGBENCH.format(first=last - CALLBACKS + 1, last=last))
    each = CALLBACKS // 8
    before = cpu_seconds(postmaster)
    command = (program, "-n", "-M", "prepared", "-c", "8", "-j", "1", "-t", str(each), "-f", str(script), url)
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    cpu = cpu_seconds(postmaster) - before
    rate = next(line for line in said.splitlines() if line.startswith("tps")).split()[2]
    return {"rate": float(rate), "postgres_ms": 1000 * cpu / (8 * each)}


def _send(file: Path, requests: list[bytes], port: int) -> dict[str, Any]:
    file.write_bytes(pickle.dumps(requests))
    command = (sys.executable, "-m", "benchmarks.load_generator", str(file), str(port), str(CONNECTIONS))
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def _postmaster(folder: Path) -> psutil.Process:
    return psutil.Process(int((folder / "pg" / "postmaster.pid").read_text().split()[0]))


def make_submissions(engine: Engine, count: int) -> list[tuple[UUID, str]]:
    """Ids and request ids of so many POSTs that the provider has accepted, by the product's own code."""
    lines = [{"prompt": f"edit {n}", "image_urls": ["https://images.example/a.png"]} for n in range(count)]
    with engine.begin() as connection:
        create(connection, BatchHeader(), read_jsonl(BytesIO("\n".join(map(json.dumps, lines)).encode())))
    with engine.begin() as connection:
        ids = claim_edits(connection, limit=count, window=10_000_000, probe_after=60, price=LIST_PRICE)
        made = [one.id for one in start_submissions(connection, ids, unknown_deadline=3600, price=LIST_PRICE)]
        accepted = [(one, f"request-{one}") for one in made]
        record_accepted(connection, accepted, poll_after=3600, unknown_deadline=3600)
    if len(accepted) != count:
        raise RuntimeError(f"{len(accepted)} of {count} edits were claimed")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    return accepted


def delivery(token: UUID, request_id: str) -> bytes:
    """One signed delivery, as it goes over the wire."""
    image = {"content_type": "image/png", "file_name": "y.png", "file_size": 1234, "height": 2048, "width": 2048}
    payload = {"images": [{**image, "url": f"https://v3b.fal.media/files/b/{token}/y.png"}], "seed": 7}
    content = {"error": None, "gateway_request_id": request_id, "payload": payload, "request_id": request_id}
    body = json.dumps({**content, "status": "OK"}).encode()
    timestamp = str(int(time.time()))
    message = "\n".join((request_id, ACCOUNT, timestamp, hashlib.sha256(body).hexdigest())).encode()
    headers = {
        "Host": "127.0.0.1",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "X-Fal-Webhook-Request-Id": request_id,
        "X-Fal-Webhook-User-Id": ACCOUNT,
        "X-Fal-Webhook-Timestamp": timestamp,
        "X-Fal-Webhook-Signature": KEY.sign(message).signature.hex(),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST /webhooks/fal/{token} HTTP/1.1\r\n{head}\r\n".encode() + body


@contextmanager
def _key_server() -> Iterator[str]:
    """The URL of a key set that holds our key."""
    x = base64.urlsafe_b64encode(bytes(KEY.verify_key)).decode()
    document = json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x}]}).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(document)))
            self.end_headers()
            self.wfile.write(document)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/keys"
        finally:
            server.shutdown()
