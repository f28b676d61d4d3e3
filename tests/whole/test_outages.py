"""What a night may bring: the broker emptied or gone, the database restarted, beat dead or doubled, no callbacks."""

import os
import signal
import subprocess
import sys
import time

import pytest
import redis

from benchmarks.system import System
from cli.settings import environment
from tests.whole.conftest import Start, finish, half_way, hand_in


@pytest.fixture(scope="module")
def system(start: Start) -> System:
    """One system for the whole night."""
    return start()


def kill(system: System, part: str) -> None:
    """SIGKILL every process of a part, once it is there."""
    deadline = time.monotonic() + 20
    while not (found := [process for name, process in system.processes() if name == part]):
        assert time.monotonic() < deadline, part
        time.sleep(0.1)
    for process in found:
        os.kill(process.pid, signal.SIGKILL)


def test_redis_emptied_in_mid_run(system: System) -> None:
    """Redis holds no truth: whatever lay in it may vanish at any time, several times."""
    hand_in(system, 60)
    half_way(system)
    for _ in range(3):
        with redis.Redis.from_url(system.redis_url()) as client:
            client.flushall()
        time.sleep(0.3)
    finish(system)


def test_redis_gone_for_a_while(system: System) -> None:
    """Without a broker nothing is nudged; when it is back everything goes on."""
    hand_in(system, 40)
    half_way(system)
    for _ in range(3):
        kill(system, "redis")
        time.sleep(1)
    finish(system)


def test_postgres_killed(system: System) -> None:
    """The database dies in mid-run and recovers by itself; replies that came meanwhile are not lost."""
    hand_in(system, 60)
    half_way(system)
    kill(system, "postgres")
    found = finish(system)
    assert found.doubled_recorded == 0


def test_receiver_and_beat_killed(system: System) -> None:
    """The receiver's callbacks come again, the clock ticks again."""
    hand_in(system, 40)
    half_way(system)
    kill(system, "receiver")
    kill(system, "beat")
    finish(system)


def test_two_beats_at_once(system: System) -> None:
    """A second clock only nudges more often; no message piles up."""
    variables = {"REDIS_URL": system.redis_url()}
    command = [sys.executable, "-m", "celery", "-A", "worker", "beat", "--scheduler", "worker.clock:Clock"]
    with subprocess.Popen(command, env={**environment(), **variables}, stderr=subprocess.DEVNULL) as second:
        try:
            hand_in(system, 40)
            finish(system)
            with redis.Redis.from_url(system.redis_url()) as client:
                lanes = ("submit", "poll", "download", "settle", "tick")
                assert max(client.llen(lane) for lane in lanes) <= 6
        finally:
            second.terminate()


def test_nothing_piles_up_while_workers_are_away(system: System) -> None:
    """With every worker stopped, each queue holds a few messages at most, however long it takes."""
    workers = [process for name, process in system.processes() if name in ("submit", "poll", "download", "settle")]
    for process in workers:
        process.suspend()
    try:
        hand_in(system, 10)
        time.sleep(6)
        with redis.Redis.from_url(system.redis_url()) as client:
            assert client.llen("tick") <= 3
    finally:
        for process in workers:
            process.resume()
    finish(system)
