"""The account's line of waiting requests. A long line costs no more than a short one: places are found by bisection."""

import bisect
from collections import Counter

from .job import Job


class WaitingQueue:
    """Who waits: normal priority before low, each first in, first out (provider-protocol 3.1)."""

    def __init__(self) -> None:
        self._lanes: tuple[list[int], list[int]] = ([], [])
        self._jobs: dict[int, Job] = {}
        self._per_endpoint: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._jobs)

    def push(self, job: Job) -> None:
        """Join at the end of the lane."""
        bisect.insort(self._lanes[job.low_priority], job.seq)
        self._jobs[job.seq] = job
        self._per_endpoint[job.endpoint_id] += 1

    def pop(self) -> Job | None:
        """The next to run."""
        lane = self._lanes[0] or self._lanes[1]
        if not lane:
            return None
        job = self._jobs[lane[0]]
        self.remove(job)
        return job

    def remove(self, job: Job) -> bool:
        """Leave the line; False when the job does not stand in it."""
        if self._jobs.pop(job.seq, None) is None:
            return False
        lane = self._lanes[job.low_priority]
        del lane[bisect.bisect_left(lane, job.seq)]
        self._per_endpoint[job.endpoint_id] -= 1
        if not self._per_endpoint[job.endpoint_id]:
            del self._per_endpoint[job.endpoint_id]
        return True

    def position(self, job: Job) -> int:
        """How many stand in front of it."""
        ahead = bisect.bisect_left(self._lanes[job.low_priority], job.seq)
        return ahead + (len(self._lanes[0]) if job.low_priority else 0)

    def length(self, endpoint_id: str) -> int:
        """How many wait for this endpoint."""
        return self._per_endpoint[endpoint_id]
