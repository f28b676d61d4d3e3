"""The programs of darkroom and how each is started: the one place, for the local stack and for docker-compose.

Data only. Commands stand here as a person would type them; `supervision.py` finds the programs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from worker.lanes import LANES, UPKEEP, LaneProcess
from worker.turns import threads_for


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
"""Worker -> its queue, and how it is run: one for each lane, and one for the batches that come through the broker. So
containers run them."""
LOCAL_WORKERS: dict[str, tuple[str, ...]] = {
    **{name: (queue,) for name, (queue, _) in WORKERS.items() if name not in UPKEEP},
    "upkeep": UPKEEP,
}
"""Worker -> its queues, where all runs on one machine."""


def receiver(host: str, port: int) -> Process:
    """The Flask application that hears the provider's callbacks."""
    # connections that say nothing are cheap, but must not stay: the bound counts them too
    return Process("receiver", granian("webhook_receiver.app:create_server", host, port, requests=4096), Stage.HTTP)


def intake(host: str, port: int) -> Process:
    """The Flask application through which other services hand in batches."""
    return Process("intake", granian("intake.app:create_server", host, port, requests=512), Stage.HTTP)


def granian(target: str, host: str, port: int, *, requests: int) -> tuple[str, ...]:
    """How a Flask application behind its buffering server is served; `requests` at one time."""
    return ("buffering.serve", "--host", host, "--port", str(port), "--requests", str(requests), target)


def workers() -> tuple[Process, ...]:
    """The Celery workers, one per lane and one for the intake, and the clock that nudges them; so containers run."""
    return (*(worker(name, queue, run) for name, (queue, run) in WORKERS.items()), beat())


def local_workers() -> tuple[Process, ...]:
    """The same where all runs on one machine: some lanes share a worker."""
    alone = tuple(process for process in workers() if process.name not in UPKEEP)
    turns = threads_for([LANES[name].turns_at_once for name in UPKEEP])
    run = LaneProcess(max(LANES[name].stop_within for name in UPKEEP), turns)
    return (*alone, worker("upkeep", ",".join(UPKEEP), run))


def worker(name: str, queues: str, run: LaneProcess) -> Process:
    """The Celery worker of these queues."""
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "info")
    served = ("celery", "-A", "worker", "worker", "-n", f"{name}@%h", "-Q", queues, "-c", str(run.turns_at_once))
    return Process(name, (*served, *quiet), Stage.WORKERS, stop_within=run.stop_within)


def beat() -> Process:
    """Celery beat, which looks for due work."""
    command = ("celery", "-A", "worker", "beat", "--scheduler", "worker.beat_scheduler:BoundedScheduler")
    return Process("beat", (*command, "--loglevel", "warning"), Stage.WORKERS)


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


FOR_ALL = (
    *("cli.settings", "core.logs", "cli.stack.readiness", "http_client.sessions"),
    *("sqlalchemy.dialects.postgresql.psycopg", "models.database", "models.tables"),
)
"""Modules that all programs need, the one too that brings the database to its schema."""
FOR_WORKERS = (
    *("celery.bin.celery", "celery.apps.beat", "celery.apps.worker", "celery.backends.redis"),
    *("celery.concurrency.thread", "celery.worker.consumer", "kombu.transport.redis", "redis.connection"),
    *("cli.stack.broker_readiness", "worker.tasks"),
)
"""What the workers need besides; imported when receiver and intake have been started, which have no broker: a fork has
a copy of everything that was imported before it. None of all these opens anything, or starts a thread, when it is
imported."""
