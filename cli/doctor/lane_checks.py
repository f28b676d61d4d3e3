"""The doctor's checks of the workers: who listens, and does anybody take what is due?

A process that is there proves nothing: after a reset of its broker a worker may live and take nothing. So each lane
is asked for what it would take next, by its own claim, which is rolled back. Due work that stays first in line while
we watch is work that nobody takes.
"""

import time
from collections.abc import Iterator

import redis
from sqlalchemy import Engine

from cli.batches.progress import duration
from cli.doctor.check_result import CheckResult, failure, ok, warning
from cli.output import plural
from cli.stack.processes import WORKERS
from cli.stack.readiness import QUESTION_TIMEOUT
from models.database_errors import DATABASE_ERRORS, reason
from models.due_work import FirstDue
from worker.broker import celery_client, redis_client
from worker.lane import load_lane
from worker.lanes import LANES
from worker.settings import WorkerSettings

SUSPICIOUS = 2.0
"""Seconds that something may be due before it is watched; a tick takes one."""
WATCHED_FOR = 12.0
"""Seconds; longer than a lane's turn, after which another one may begin."""
LOOK_EVERY = 0.5
ANSWER_WITHIN, ROUNDS = 1.5, 3
"""Seconds for the workers to say what they listen to, and how often they are asked."""
ADVICE = "Its workers are away, stuck, or far behind: see their logs, and start them again; killing one loses nothing."


def workers(redis_url: str) -> CheckResult:
    """Whether every queue has somebody who listens to it."""
    missing = {queue for queue, _ in WORKERS.values()}
    app = celery_client(redis_url)
    hosts: set[str] = set()
    try:
        with app.connection_for_write(transport_options={"socket_timeout": QUESTION_TIMEOUT}) as connection:
            for _ in range(ROUNDS):
                answers = app.control.broadcast(
                    "active_queues", reply=True, timeout=ANSWER_WITHIN, connection=connection
                )
                served_by = {host: served for answer in answers or () for host, served in answer.items()}
                hosts |= set(served_by)
                missing -= {queue["name"] for served in served_by.values() for queue in served or ()}
                if not missing:
                    return ok("workers", f"{', '.join(sorted(hosts))} answer")
    except (redis.RedisError, OSError) as error:
        return warning("workers", f"They could not be asked: {error}.", "Try again.")
    sentence = f"No worker answers for {', '.join(sorted(missing))}."
    return failure("workers", sentence, "Start them (`darkroom up`); what is due waits and is not lost.")


def lanes(engine: Engine, settings: WorkerSettings, redis_url: str | None) -> Iterator[CheckResult]:
    """Per lane: messages in its queue, and whether somebody takes what is due."""
    try:
        first = {lane: _find_first(engine, lane, settings) for lane in LANES}
        stuck = _watch(engine, settings, {lane: one for lane, one in first.items() if one})
    except DATABASE_ERRORS as error:
        yield warning("lanes", f"The database did not answer this question: {reason(error)}.", "Try again later.")
        return
    lengths = _queue_lengths(redis_url)
    for lane, one in first.items():
        queue = f", {plural(lengths[lane], 'message')} in its queue" if lane in lengths else ""
        if lane in stuck:
            waiting = duration(stuck[lane].seconds)
            yield failure(lane, f"Work has been due for {waiting} and no worker takes it{queue}.", ADVICE)
        else:
            yield ok(lane, f"{'takes what is due' if one else 'nothing to take'}{queue}")


def _watch(engine: Engine, settings: WorkerSettings, first: dict[str, FirstDue]) -> dict[str, FirstDue]:
    """Those that are still first in line after a while."""
    stuck = {lane: one for lane, one in first.items() if one.seconds >= SUSPICIOUS}
    deadline = time.monotonic() + WATCHED_FOR
    while stuck and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY)
        for lane, before in list(stuck.items()):
            now = _find_first(engine, lane, settings)
            if now is None or (now.id, now.due) != (before.id, before.due):
                del stuck[lane]
    return stuck


def _find_first(engine: Engine, lane: str, settings: WorkerSettings) -> FirstDue | None:
    """What the lane would take next; nothing is changed."""
    with engine.connect() as connection, connection.begin() as transaction:
        first = load_lane(lane).find_first_due(connection, settings)
        transaction.rollback()
    return first


def _queue_lengths(redis_url: str | None) -> dict[str, int]:
    if redis_url is None:
        return {}
    try:
        with redis_client(redis_url, timeout=QUESTION_TIMEOUT) as client:
            return {lane: int(client.llen(lane)) for lane in LANES}
    except redis.RedisError:
        return {}
