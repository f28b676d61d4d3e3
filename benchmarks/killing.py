"""Kill processes of a running system at random, and empty its Redis; nothing of it is announced."""

import os
import random
import signal
import time
from collections import Counter

import redis

from benchmarks.faults import Plan
from benchmarks.system import System
from worker.broker import redis_client


class Killer:
    """One killer; `count` says who died how often."""

    def __init__(self, system: System, plan: Plan) -> None:
        self._system, self._plan = system, plan
        self.count: Counter[str] = Counter()

    @property
    def kills(self) -> int:
        """SIGKILLs sent."""
        return sum(count for part, count in self.count.items() if part != "flush")

    def strike(self) -> None:
        """Wait as the plan says, then kill whom it says, if it runs."""
        time.sleep(self._plan.pause())
        victim = self._plan.victim()
        if victim == "flush":
            self._flush()
            return
        running = [process for part, process in self._system.processes() if part == victim]
        if running:
            # a master or one of its children: both must be survived
            os.kill(random.choice(running).pid, signal.SIGKILL)
            self.count[victim] += 1

    def _flush(self) -> None:
        try:
            with redis_client(self._system.redis_url(), timeout=30) as client:
                client.flushall()
            self.count["flush"] += 1
        except redis.RedisError:
            return  # it is dead at the moment
