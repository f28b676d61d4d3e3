"""The lanes at work: an emulator provider in a process of its own, and threads that do what Celery's tasks do."""

import hashlib
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

import requests
from sqlalchemy import Engine
from werkzeug.serving import make_server

from intake.batches import BatchHeader, create
from intake.manifest import read_jsonl
from models.database import make_engine
from models.database_errors import is_away
from provider.queue_api import QueueAPI
from tests.support.factories import states
from tests.support.receiving import rows, running_app
from webhook_receiver.settings import ReceiverSettings
from worker.dependencies import Dependencies
from worker.lane import load_lane
from worker.settings import WorkerSettings

KEY = "key-id:key-secret"
ACCOUNT = "github|10000001"
"""What the emulator calls us, unless told otherwise."""
LONG = 60.0
"""Seconds that anything in these tests may take, on a busy machine."""


@dataclass
class Emulator:
    """A running emulator; `rows` are those of the ledger since `mark`."""

    url: str
    session: requests.Session = field(default_factory=requests.Session)
    seen: int = 0

    def ask(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        reply = self.session.request(method, f"{self.url}/_emulator/{path}", json=content or None, timeout=LONG)
        reply.raise_for_status()
        return dict(reply.json())

    def mark(self, **options: object) -> None:
        """From here on: no faults, these options, a ledger that looks empty."""
        self.session.put(f"{self.url}/_emulator/faults", json={}, timeout=LONG).raise_for_status()
        listing = {"listing_status": 200, "listing_page": 100}
        self.ask("PUT", "options", **{"latency": 0.03, "concurrency": 8, **listing, **options})
        self.seen = max([row["seq"] for row in self.ask("GET", "ledger?limit=10000")["rows"]], default=0)

    def faults(self, **rules: object) -> None:
        self.ask("PUT", "faults", **rules)

    @property
    def rows(self) -> list[dict[str, Any]]:
        return list(self.ask("GET", f"ledger?after={self.seen}&limit=10000")["rows"])

    @property
    def in_flight(self) -> int:
        counts = self.ask("GET", "state")["counts"]
        return int(counts["in_queue"] + counts["in_progress"])


@contextmanager
def emulating(folder: Path) -> Iterator[Emulator]:
    """The emulator as a process."""
    options = ("--port", "0", "--state-dir", str(folder), "--jitter", "0", "--image-mode", "plain")
    command = [sys.executable, "-m", "fal_emulator", *options, "--webhook-backoff", "0.1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        found = next(match for line in process.stdout if (match := re.search(r"ready at (\S+)", line)))
        with requests.Session() as session:
            session.trust_env = False
            yield Emulator(found[1], session)
    finally:
        process.terminate()
        process.wait(LONG)
        process.stdout.close()


@contextmanager
def receiving(database_url: str, emulator: Emulator, *, retry_after: float) -> Iterator[str]:
    """The receiver on a port of its own; yields its public URL."""
    settings = ReceiverSettings(
        database_url=database_url,
        fal_jwks_url=f"{emulator.url}/.well-known/jwks.json",
        fal_user_id=ACCOUNT,
        provider_retry_after=retry_after,
    )
    with running_app(settings) as app:
        server = make_server("127.0.0.1", 0, app, threaded=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


@dataclass
class LaneRunner:
    """The lanes of one machine, over one database, against one provider."""

    engine: Engine
    settings: WorkerSettings
    folder: Path

    @property
    def queue(self) -> QueueAPI:
        timeout = {"start_timeout": self.settings.submit_start_timeout, "submit_timeout": 30.0}
        return QueueAPI(self.settings.fal_queue_url, KEY, **timeout, preferences=self.settings.preferences)

    def lane(self, name: str) -> Callable[[Engine, Callable[[], bool]], int]:
        """One lane's run, with a client of its own, as each worker process has."""
        dependencies = Dependencies()
        dependencies.settings, dependencies.queue = self.settings, self.queue

        def take_turn(engine: Engine, should_continue: Callable[[], bool]) -> int:
            dependencies.engine = engine
            return load_lane(name)(dependencies).take_turn(should_continue)

        return take_turn

    def work_until(self, done: Callable[[], bool], lanes: Sequence[str] = ("submit", "poll", "download")) -> None:
        """Run the lanes, a name twice for two workers, until `done`; as the tick does, again and again."""
        stop, errors = threading.Event(), []

        def work(name: str) -> None:
            engine = make_engine(self.settings.database_url, application="darkroom test", pool_size=2)
            run = self.lane(name)
            while not stop.is_set():
                try:
                    run(engine, lambda: not stop.is_set())
                except Exception as error:
                    if not is_away(error):  # else the tick would start the lane again
                        errors.append(error)
                stop.wait(0.05)
            engine.dispose()

        threads = [threading.Thread(target=work, args=(name,)) for name in lanes]
        for thread in threads:
            thread.start()
        try:
            wait_for(lambda: done() or errors)
        finally:
            stop.set()
            for thread in threads:
                thread.join(LONG)
        assert errors == []


@contextmanager
def lane_runner(
    engine: Engine, emulator: Emulator, folder: Path, *, without_callbacks: bool = False, **changes: Any
) -> Iterator[LaneRunner]:
    """Workers whose clocks are shrunk; `without_callbacks`: without a public URL, so that no callback can come."""
    url = engine.url.render_as_string(hide_password=False)
    with ExitStack() as stack:
        retry_after = changes.get("provider_retry_after", 0.2)
        public = None if without_callbacks else stack.enter_context(receiving(url, emulator, retry_after=retry_after))
        given = {
            "database_url": url,
            "redis_url": "redis://127.0.0.1:1/0",
            "public_url": public,
            "fal_media_hosts": ("127.0.0.1",),
            "storage_url": folder.as_uri(),
            "poll_after": 0.05 if without_callbacks else 30,
            "poll_every": 0.05,
            "retry_delay": 0.05,
            "provider_retry_after": 0.2,
            "fal_key": KEY,
        }
        places = dict.fromkeys(("fal_queue_url", "fal_rest_url", "fal_cdn_url", "fal_api_url"), emulator.url)
        yield LaneRunner(engine, WorkerSettings(**{**given, **places, **changes}), folder)


def make_edits(engine: Engine, prompts: Sequence[str], **header: Any) -> UUID:
    """A batch of one edit for each prompt."""
    lines = [json.dumps({"prompt": prompt, "image_urls": ["https://example.com/a.png"]}) for prompt in prompts]
    with engine.begin() as connection:
        return create(connection, BatchHeader(**header), read_jsonl(BytesIO("\n".join(lines).encode()))).batch_id


def wait_for(condition: Callable[[], object]) -> None:
    """Look until it is so."""
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.05)


@contextmanager
def sampling(look: Callable[[], Any]) -> Iterator[list[Any]]:
    """What `look` found, again and again while the block ran."""
    found: list[Any] = []
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            found.append(look())
            stop.wait(0.01)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def stand(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return states(connection)


def all_are(engine: Engine, **expected: int) -> Callable[[], bool]:
    """Whether the edits stand like this."""
    return lambda: stand(engine) == expected


def assert_stored_as_made(engine: Engine, emulator: Emulator, folder: Path) -> None:
    """Every stored image is, byte for byte, the one that the provider made for this very request."""
    made = {row["request_id"]: row["sha256"] for row in emulator.rows}
    stored = rows(
        engine,
        """
        SELECT s.request_id, i.index, i.sha256, i.storage_key, i.stored_bytes
        FROM images i JOIN submissions s ON s.id = i.submission_id WHERE i.state = 'stored'
        """,
    )
    assert stored
    for request_id, index, digest, key, size in stored:
        assert digest == made[request_id][index]
        assert sha256(folder / key) == digest
        assert (folder / key).stat().st_size == size


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
