"""The clock: it looks for due work itself, and nothing that is away or busy stops it."""

from collections.abc import Iterator

import pytest
from celery import Celery
from sqlalchemy import Engine

from cli.stack import processes
from cli.stack.broker_readiness import redis_answers
from cli.stack.readiness import until
from tests.http.conftest import Away
from tests.support.factories import make_batch
from tests.support.running_stack import broker_process
from worker.beat_scheduler import MESSAGES_MAX, TICK, BoundedScheduler
from worker.broker import redis_client
from worker.lanes import LANES, UPKEEP


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """A broker to which no worker listens."""
    with broker_process() as (url, process):
        assert until(lambda: redis_answers(url), timeout=60)
        yield url
        process.terminate()


@pytest.fixture
def scheduler(engine: Engine, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[BoundedScheduler]:
    """Over an empty database and a broker of its own."""
    monkeypatch.setenv("DATABASE_URL", engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("REDIS_URL", redis_url)
    app = Celery(broker=redis_url)
    app.conf.task_routes = {f"darkroom.{lane}": {"queue": lane} for lane in LANES}
    with redis_client(redis_url, timeout=60) as client:
        client.flushall()
    scheduler = BoundedScheduler(app=app)
    yield scheduler
    scheduler.engine.dispose()
    app.close()


def messages(redis_url: str) -> dict[str, int]:
    with redis_client(redis_url, timeout=60) as client:
        return {lane: int(client.llen(lane)) for lane in LANES if client.llen(lane)}


def test_tick_starts_lanes_that_have_work_and_no_more(
    scheduler: BoundedScheduler, engine: Engine, redis_url: str
) -> None:
    """Nothing due, nothing sent; a new batch starts two lanes; however often it ticks, few messages lie there."""
    assert scheduler.tick() == TICK
    assert messages(redis_url) == {}
    with engine.begin() as connection:
        make_batch(connection)
    scheduler.tick()
    assert messages(redis_url) == {"submit": 1, "settle": 1}
    for _ in range(2 * MESSAGES_MAX):
        scheduler.tick()
    assert messages(redis_url) == {"submit": MESSAGES_MAX, "settle": MESSAGES_MAX}


def test_scheduler_outlives_its_database(
    scheduler: BoundedScheduler,
    engine: Engine,
    redis_url: str,
    database_away: Away,
) -> None:
    """While it is away nothing is sent and nothing is raised; then it goes on."""
    with engine.begin() as connection:
        make_batch(connection)
    with database_away():
        assert scheduler.tick() == TICK
    assert messages(redis_url) == {}
    scheduler.tick()
    assert messages(redis_url) == {"submit": 1, "settle": 1}


def test_nothing_stands_behind_what_takes_long() -> None:
    """Every lane, and the queue of batches, has a worker; none has the tick among what it does.

    Only lanes that keep threads of their own (`tests/unit/worker/test_turns.py`) share one.
    """
    apart = [queue for queue, _ in processes.WORKERS.values()]
    local = [queue for queues in processes.LOCAL_WORKERS.values() for queue in queues]
    assert sorted(apart) == sorted(local) == sorted([*LANES, "intake"])
    assert [queues for queues in processes.LOCAL_WORKERS.values() if len(queues) > 1] == [UPKEEP]
