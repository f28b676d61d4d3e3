"""What a night may bring: callbacks that never come or cannot be believed, the broker emptied or gone, the database
restarted, beat dead or doubled."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests

from benchmarks.system import System
from cli.settings import environment
from cli.stack.broker_readiness import WorkersAnswer
from tests.whole.conftest import Start, count, finish, half_way, hand_in, heard_too_late, suspended, wait_for
from worker.beat_scheduler import MESSAGES_MAX, TICK
from worker.broker import redis_client
from worker.lanes import LANES

WINDOW = 16


@pytest.fixture(scope="module")
def system(start: Start) -> System:
    """One system for the whole night; its window is small, so that work is under way for a while. The provider may be
    silent for longer than it is here, also on a busy machine."""
    return start(MAX_IN_FLIGHT=str(WINDOW), SUBMIT_START_TIMEOUT="30")


def kill(system: System, part: str) -> None:
    """SIGKILL every process of a part, once it is there."""
    wait_for(lambda: any(name == part for name, _ in system.processes()), part)
    for name, process in system.processes():
        if name == part:
            os.kill(process.pid, signal.SIGKILL)


@contextmanager
def beside(system: System, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """One more process of Celery, as on another machine."""
    command = [sys.executable, "-m", "celery", "-A", "worker", *arguments]
    variables, nowhere = {**environment(), **system.variables()}, subprocess.DEVNULL
    with subprocess.Popen(command, env=variables, stdout=nowhere, stderr=nowhere) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()


def wait_for_edits(system: System, state: str, number: int) -> None:
    """Return once so many edits are in a state."""
    query = f"SELECT count(*) FROM edits WHERE state = '{state}'"
    wait_for(lambda: count(system, query) == number, f"there are not {number} edits {state}")


def wait_for_receiver(system: System) -> None:
    """Return once the receiver answers."""

    def responds() -> bool:
        try:
            return requests.get(f"{system.receiver}/livez", timeout=10).ok
        except requests.RequestException:
            return False

    wait_for(responds, "the receiver does not answer")


def test_receiver_never_reached(system: System) -> None:
    """Every callback is lost: every image is in storage all the same, before its result expired."""
    system.inject(drop_webhook=1)
    hand_in(system, 30)
    found = finish(system)
    assert found.callbacks == {}


def test_clocks_ten_minutes_apart(system: System) -> None:
    """Every callback looks like a replay: kept as stale, its body not believed, the result asked for at once."""
    system.inject(stale_timestamp=1)
    hand_in(system, 30)
    found = finish(system)
    system.inject()
    assert found.callbacks.get("stale")
    assert not found.callbacks.get("applied")


def test_redis_emptied_in_mid_run(system: System) -> None:
    """Redis holds no truth: whatever lay in it may vanish at any time, every nudge for work that is due included."""
    with redis_client(system.redis_url(), timeout=30) as client:
        with suspended(system, "download"):
            time.sleep(1.5)  # Redis hands the next message to whoever asked, and that was for a second
            hand_in(system, 10)
            wait_for_edits(system, "ready", 10)
            wait_for(lambda: client.llen("download"), "nobody nudges")
            client.flushall()
        finish(system)

        hand_in(system, 60)
        half_way(system)
        for _ in range(3):
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
    """The database dies while POSTs are under way, and again in mid-run: each reply is recorded once it is back.

    No callback comes, so a reply is all that is ever heard of a request before its deadline.
    """
    system.inject(drop_webhook=1)
    with suspended(system, "emulator"):
        hand_in(system, 60)
        wait_for_edits(system, "submitting", WINDOW)
        time.sleep(0.3)
        kill(system, "postgres")
    half_way(system)
    system.inject()
    kill(system, "postgres")
    found = finish(system)
    assert found.doubled_recorded == 0
    assert heard_too_late(system) == 0


def test_receiver_and_beat_killed(system: System) -> None:
    """The receiver's callbacks come again, the clock ticks again."""
    hand_in(system, 40)
    half_way(system)
    kill(system, "receiver")
    kill(system, "beat")
    finish(system)
    wait_for_receiver(system)
    by_callback = """
        SELECT count(*) FROM submissions s JOIN edits e ON e.id = s.edit_id
        WHERE learned_by = 'callback' AND e.arguments ->> 'prompt' LIKE 'heard%%'
    """
    with suspended(system, "poll"):
        hand_in(system, 10, "heard")
        wait_for(lambda: count(system, by_callback), "no callback comes")
    finish(system)


def test_two_beats_at_once(system: System) -> None:
    """A second clock only nudges more often; no message piles up. Nor does a second submit worker pay twice."""
    worker = ("worker", "-n", "second@%h", "-Q", "submit", "-c", "1")
    with (
        beside(system, *worker) as second,
        beside(system, "beat", "--scheduler", "worker.beat_scheduler:BoundedScheduler"),
    ):
        wait_for(WorkersAnswer(system.redis_url(), ("second",)), "the second worker does not answer", 60)
        with (
            suspended(system, "poll", "download"),
            redis_client(system.redis_url(), timeout=30) as client,
        ):
            with suspended(system, "submit"):
                second.send_signal(signal.SIGSTOP)
                hand_in(system, 100)
                time.sleep(1.5 * TICK)  # so that each finds a nudge when it goes on
                second.send_signal(signal.SIGCONT)
            time.sleep(3 * TICK)
            # two ticks that run at the same time may both find room for one more
            assert max(client.llen(lane) for lane in LANES) <= MESSAGES_MAX + 1
        finish(system)


def test_nothing_piles_up_while_workers_are_away(system: System) -> None:
    """With every worker stopped, each queue holds a few messages at most, however long it takes."""
    with (
        suspended(system, "submit", "poll", "download", "settle"),
        redis_client(system.redis_url(), timeout=30) as client,
    ):
        hand_in(system, 10)
        wait_for(lambda: max(client.llen(lane) for lane in LANES), "nobody nudges")
        time.sleep(5 * TICK)
        assert 0 < max(client.llen(lane) for lane in LANES) <= MESSAGES_MAX
    finish(system)
