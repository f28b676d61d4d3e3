"""The doctor's checks of the workers: who listens, and does anybody take what is due?

A process that is there proves nothing: after a reset of its broker a worker may live and take nothing. So each lane
is asked for what it would take next, by its own claim, which is rolled back. Due work that stays first in line while
we watch is work that nobody takes.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import redis
from sqlalchemy import Connection, Engine

from cli.batches.progress import duration
from cli.doctor.check_result import CheckResult, failure, ok, warning
from cli.output import plural
from cli.stack.readiness import QUESTION_TIMEOUT
from models.claims import claim_edits, claim_images, claim_polls, claim_unknown
from models.database_errors import DATABASE_ERRORS, reason
from models.pauses import MayClaim
from models.provider import price_per_image
from models.transitions import finishable_batches
from worker.broker import celery_client, redis_client
from worker.celery import LANES
from worker.download_claims import may_download
from worker.settings import WorkerSettings

SUSPICIOUS = 2.0
"""Seconds that something may be due before it is watched; a tick takes one."""
WATCHED_FOR = 12.0
"""Seconds; longer than a lane's turn, after which another one may begin."""
LOOK_EVERY = 0.5
ANSWER_WITHIN, ROUNDS = 1.5, 3
"""Seconds for the workers to say what they listen to, and how often they are asked."""
ADVICE = "Its workers are away, stuck, or far behind: see their logs, and start them again; killing one loses nothing."


class First(NamedTuple):
    """What a lane would take next, and for how many seconds it has been due."""

    id: str
    due: str
    seconds: float


Look = Callable[[Connection, WorkerSettings], First | None]


def workers(redis_url: str) -> CheckResult:
    """Whether every queue has somebody who listens to it."""
    missing = {*LANES, "intake"}
    app = celery_client(redis_url)
    hosts: set[str] = set()
    try:
        with app.connection_for_write(transport_options={"socket_timeout": QUESTION_TIMEOUT}) as connection:
            for _ in range(ROUNDS):
                answers = app.control.broadcast(
                    "active_queues", reply=True, timeout=ANSWER_WITHIN, connection=connection
                )
                told = {host: queues for answer in answers or () for host, queues in answer.items()}
                hosts |= set(told)
                missing -= {queue["name"] for queues in told.values() for queue in queues or ()}
                if not missing:
                    return ok("workers", f"{', '.join(sorted(hosts))} answer")
    except (redis.RedisError, OSError) as error:
        return warning("workers", f"They could not be asked: {error}.", "Try again.")
    sentence = f"No worker answers for {', '.join(sorted(missing))}."
    return failure("workers", sentence, "Start them (`darkroom up`); what is due waits and is not lost.")


def lanes(engine: Engine, settings: WorkerSettings, redis_url: str | None) -> Iterator[CheckResult]:
    """Per lane: messages in its queue, and whether somebody takes what is due."""
    try:
        first = {lane: _look(engine, look, settings) for lane, look in LOOKS.items()}
        stuck = _watched(engine, settings, {lane: one for lane, one in first.items() if one})
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


def _watched(engine: Engine, settings: WorkerSettings, first: dict[str, First]) -> dict[str, First]:
    """Those that are still first in line after a while."""
    stuck = {lane: one for lane, one in first.items() if one.seconds >= SUSPICIOUS}
    deadline = time.monotonic() + WATCHED_FOR
    while stuck and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY)
        for lane, before in list(stuck.items()):
            now = _look(engine, LOOKS[lane], settings)
            if now is None or (now.id, now.due) != (before.id, before.due):
                del stuck[lane]
    return stuck


def _look(engine: Engine, look: Look, settings: WorkerSettings) -> First | None:
    with engine.connect() as connection, connection.begin() as transaction:
        found = look(connection, settings)
        transaction.rollback()
    return found


def _submit(connection: Connection, settings: WorkerSettings) -> First | None:
    price = price_per_image(connection, settings.price_per_image)
    window, probe_after = settings.max_in_flight, settings.provider_retry_after
    ids = claim_edits(connection, limit=1, window=window, probe_after=probe_after, price=price)
    return _due(connection, "edits", ids)


def _poll(connection: Connection, _: WorkerSettings) -> First | None:
    with connection.begin_nested() as claim:
        rows = claim_polls(connection, limit=1, lease=1) or claim_unknown(connection, limit=1, lease=1)
        claim.rollback()
    return _due(connection, "submissions", [row.id for row in rows])


def _download(connection: Connection, settings: WorkerSettings) -> First | None:
    with connection.begin_nested() as claim:
        paused = may_download(connection, settings) is MayClaim.NONE
        rows = [] if paused else claim_images(connection, limit=1, lease=1)
        claim.rollback()
    return _due(connection, "images", [row.id for row in rows])


def _notify(connection: Connection, _: WorkerSettings) -> First | None:
    query = "SELECT id FROM notifications WHERE due_at <= now() ORDER BY due_at LIMIT 1"
    return _due(connection, "notifications", connection.exec_driver_sql(query).scalars().all())


def _settle(connection: Connection, _: WorkerSettings) -> First | None:
    ripe = finishable_batches(connection)
    if not ripe:
        return None
    row = connection.exec_driver_sql(
        """
        SELECT batch_id::text, max(finished_at)::text, extract(epoch FROM now() - max(finished_at))::float8
        FROM edits WHERE batch_id = %s GROUP BY batch_id
        """,
        (ripe[0].batch_id,),
    ).first()
    return First(*row) if row else None


def _due(connection: Connection, table: str, ids: Sequence[object]) -> First | None:
    if not ids:
        return None
    row = connection.exec_driver_sql(
        f"SELECT id::text, due_at::text, extract(epoch FROM now() - due_at)::float8 FROM {table} WHERE id = %s",  # noqa: S608
        (ids[0],),
    ).first()
    return First(*row) if row else None


LOOKS: dict[str, Look] = {
    "submit": _submit,
    "poll": _poll,
    "download": _download,
    "settle": _settle,
    "notify": _notify,
}


def _queue_lengths(redis_url: str | None) -> dict[str, int]:
    if redis_url is None:
        return {}
    try:
        with redis_client(redis_url, timeout=QUESTION_TIMEOUT) as client:
            return {lane: int(client.llen(lane)) for lane in LOOKS}
    except redis.RedisError:
        return {}
