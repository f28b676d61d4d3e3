"""The programs of darkroom and how each is started: the one place, for the local stack and for docker-compose.

Data only. Commands stand here as a person would type them; `supervision.py` finds the programs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from worker.lanes import LANES, LaneProcess


class Stage(IntEnum):
    """What starts before what; stopping goes the other way."""

    SERVERS = 1
    HTTP = 2
    WORKERS = 3
    STARTING = 4


@dataclass(frozen=True, slots=True)
class Process:
    """One program. `user` is whom it runs as where we are root; `once`: it does its work and ends.

    `stop_signal` asks it to end; after `stop_within` seconds it is killed.
    """

    name: str
    command: tuple[str, ...]
    stage: Stage
    stop_signal: str = "TERM"
    stop_within: int = 5
    user: str | None = None
    once: bool = False


WORKERS: dict[str, tuple[str, LaneProcess]] = {
    **{lane: (lane, run) for lane, run in LANES.items()},
    "intake_worker": ("intake", LaneProcess(stop_within=190)),
}
"""Worker -> its queue, and how it is run: one for each lane, and one for the batches that come through the broker."""


def receiver(host: str, port: int) -> Process:
    """The Flask application that hears the provider's callbacks."""
    # connections that say nothing are cheap, but must not stay: the bound counts them too
    return Process("receiver", granian("webhook_receiver.app:create_server", host, port, requests=4096), Stage.HTTP)


def intake(host: str, port: int) -> Process:
    """The Flask application through which other services hand in batches."""
    return Process("intake", granian("intake.app:create_server", host, port, requests=512), Stage.HTTP)


def granian(target: str, host: str, port: int, *, requests: int) -> tuple[str, ...]:
    """How a Flask application behind its buffering server is served; `requests` at one time."""
    listen = ("--host", host, "--port", str(port))
    shape = ("--workers", "1", "--backlog", "4096", "--backpressure", str(requests), "--no-ws")
    manners = ("--respawn-failed-workers", "--workers-kill-timeout", "5", "--log-level", "warning")
    return ("granian", *listen, *shape, *manners, "--interface", "rsgi", "--factory", target)


def workers() -> tuple[Process, ...]:
    """The Celery workers, one per lane and one for the intake, and the clock that nudges them."""
    clock = ("celery", "-A", "worker", "beat", "--scheduler", "worker.beat_scheduler:BoundedScheduler")
    return (
        *(worker(name, queue, run) for name, (queue, run) in WORKERS.items()),
        Process("beat", (*clock, "--loglevel", "warning"), Stage.WORKERS),
    )


def worker(name: str, queue: str, run: LaneProcess) -> Process:
    """The Celery worker of one queue."""
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "info")
    served = ("celery", "-A", "worker", "worker", "-n", f"{name}@%h", "-Q", queue, "-c", str(run.turns_at_once))
    return Process(name, (*served, *quiet), Stage.WORKERS, stop_within=run.stop_within)


def emulator(port: int, folder: Path, options: tuple[str, ...]) -> Process:
    """The emulator of the provider."""
    command = ("fal_emulator", "--port", str(port), "--state-dir", str(folder), *options)
    return Process("emulator", command, Stage.SERVERS)


def schema(*, embedded: bool) -> Process:
    """What waits for the servers and brings the database to its schema."""
    command = ("cli.stack.start_programs", "schema", *(("--make-database",) if embedded else ()))
    return Process("schema", command, Stage.STARTING, once=True)


def wait_until_ready(urls: Mapping[str, str]) -> Process:
    """What waits until these parts, each at its URL, and all workers answer."""
    parts = tuple(f"{name}={url}" for name, url in urls.items())
    return Process("ready", ("cli.stack.start_programs", "ready", *parts), Stage.STARTING, once=True)


ASKING = (
    "cli.settings",
    "cli.stack.readiness",
    "sqlalchemy.dialects.postgresql.psycopg",
    "models.database",
    "models.tables",
)
"""Modules that the first of the forks needs, which brings the database to its schema; imported before the others."""
SHARED = (
    *ASKING,
    *("celery.bin.celery", "celery.apps.beat", "celery.apps.worker", "celery.backends.redis"),
    *("celery.concurrency.thread", "celery.worker.consumer", "kombu.transport.redis", "redis.connection"),
    *("worker.beat_scheduler", "worker.tasks", "webhook_receiver.app", "intake.app", "granian.cli"),
)
"""Modules that several programs import. None of them opens anything, or starts a thread, when it is imported."""
