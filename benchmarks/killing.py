"""Kill processes of a running system at random, and empty its Redis; nothing of it is announced."""

import os
import random
import signal
import threading
import traceback
from collections import Counter

import psutil  # type: ignore[import-untyped]
import redis

from benchmarks.faults import VICTIMS, Plan
from benchmarks.system import System
from worker.broker import redis_client

SPARED = ("emulator",)
"""The provider is not ours to kill."""
RARE = ("supervisor",)
"""Takes everything down with it for some seconds; killed once, by a killer that has time for it."""
RARE_FROM = 20
"""Kills from which on there is time."""


class Killer:
    """Kills in a thread of its own until it has killed so often or is stopped; `count` says who died how often.

    First every part once, in an order of the seed's; then as the plan says.
    """

    def __init__(self, system: System, plan: Plan, kills: int) -> None:
        self._system, self._plan, self._most = system, plan, kills
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._once = [part for part in VICTIMS if kills >= RARE_FROM or part not in RARE]
        plan.random.shuffle(self._once)
        self.count: Counter[str] = Counter()

    @property
    def kills(self) -> int:
        """SIGKILLs sent."""
        return sum(count for part, count in self.count.items() if part != "flush")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Kill no more."""
        self._over.set()
        self._thread.join(30)

    def _run(self) -> None:
        while self.kills < self._most and not self._over.wait(self._plan.pause()):
            try:
                self.strike(self._once[-1] if self._once else self._plan.victim())
            except (OSError, psutil.Error):
                traceback.print_exc()  # whom it looked at was gone already

    def strike(self, victim: str) -> None:
        """Kill one process of this part, if it runs; `flush` empties Redis instead."""
        struck = self._flush() if victim == "flush" else self._kill(victim)
        if struck:
            self.count[victim] += 1
            if victim in self._once:
                self._once.remove(victim)
        elif self._once and self._once[-1] == victim:
            self._once.insert(0, self._once.pop())  # it is not there at the moment

    def _kill(self, victim: str) -> bool:
        running = [process for part, process in self._system.processes() if part == victim and part not in SPARED]
        if not running:
            return False
        # a master or one of its children: both must be survived
        os.kill(random.choice(running).pid, signal.SIGKILL)
        return True

    def _flush(self) -> bool:
        try:
            with redis_client(self._system.redis_url(), timeout=30) as client:
                client.flushall()
        except (redis.RedisError, OSError):
            return False  # it is dead at the moment
        return True
