"""Moves requests IN_QUEUE -> IN_PROGRESS -> COMPLETED: one line for the account, a cap on what runs at once.

Only unfinished requests live in memory. A request is out of here once its end is committed; from then on the
ledger answers for it.
"""

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from .job import Job, Verdict
from .ledger import Ledger
from .options import Options
from .store import Store
from .verdicts import request_error
from .waiting_queue import WaitingQueue

log = logging.getLogger(__name__)


class Cancelled(Exception):
    """The client cancelled the run."""


class Run:
    """What a model sees of its run: the request, and pauses that a cancellation ends."""

    def __init__(self, job: Job, body: bytes, options: Options) -> None:
        self.job = job
        self.body = body
        self.options = options
        self.ignores_cancel = False
        self.clock = time.monotonic
        self._cancelled = asyncio.Event()

    def cancel(self) -> None:
        """Ask the run to end at its next pause."""
        self._cancelled.set()

    def begin_again(self) -> None:
        """The queue's own retry: another gateway id, the same request id (provider-protocol 5.5)."""
        self.job.attempts += 1
        self.job.gateway_request_id = str(uuid.uuid4())

    async def infer(self) -> None:
        """Let the time of one inference pass."""
        spread = self.options.jitter * random.uniform(-1, 1)
        await self.pause(self.options.latency * (1 + spread))

    async def pause(self, seconds: float) -> None:
        """Wait, or raise Cancelled."""
        if self.ignores_cancel:
            await asyncio.sleep(seconds)
            return
        try:
            await asyncio.wait_for(self._cancelled.wait(), seconds)
        except TimeoutError:
            return
        raise Cancelled


class Runner:
    """The queue's worker."""

    def __init__(
        self,
        ledger: Ledger,
        store: Store,
        options: Callable[[], Options],
        work: Callable[[Run], Awaitable[Verdict]],
        finished: Callable[[Job], None],
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._options = options
        self._work = work
        self._finished = finished
        self.line = WaitingQueue()
        self.live: dict[str, Job] = {}
        self._runs: dict[str, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._deadlines: dict[str, asyncio.TimerHandle] = {}
        self._ends: dict[str, asyncio.Event] = {}
        self._stopping = False

    @property
    def running(self) -> int:
        """How many are IN_PROGRESS."""
        return len(self._runs)

    def enqueue(self, job: Job) -> None:
        """Let a committed request wait for its turn."""
        self.live[job.request_id] = job
        self.line.push(job)
        if job.start_by is not None and not job.attempts:  # one that had begun before a restart did start in time
            wait = job.start_by - time.time()
            if wait <= 0:
                self._expire(job)
                return
            loop = asyncio.get_running_loop()
            self._deadlines[job.request_id] = loop.call_later(wait, self._expire, job)
        self.fill()

    def resume(self) -> None:
        """Take up what an earlier process left; a run that had begun begins again as another attempt."""
        for job in self._ledger.unfinished():
            job.started_at = None
            self.enqueue(job)

    def fill(self) -> None:
        """Start as many as the cap allows."""
        while not self._stopping and self.running < self._options().concurrency and (job := self.line.pop()):
            self.start(job)

    def start(self, job: Job) -> None:
        """Begin a run, past the line."""
        self.live[job.request_id] = job
        if timer := self._deadlines.pop(job.request_id, None):
            timer.cancel()
        job.started_at = time.time()
        run = self._runs[job.request_id] = Run(job, self._ledger.input(job), self._options())
        if job.attempts:  # begun before a restart
            run.begin_again()
        else:
            job.attempts = 1
        self._ledger.start(job)
        if job.cancelled_at is not None:  # asked before a restart
            run.cancel()
        self._spawn(self._carry_out(run))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, run: Run) -> None:
        try:
            verdict = await self._work(run)
        except Cancelled:
            verdict = request_error("client_cancelled")
        except Exception:
            log.exception("run of %s broke", run.job.request_id)
            verdict = request_error("internal_error")
        await self._end(run.job, verdict)

    async def _end(self, job: Job, verdict: Verdict) -> None:
        """Write the end down, then let everybody know."""
        try:
            ended_at = time.time()
            if job.webhook_url and (verdict.error_type != "client_cancelled" or self._options().webhook_on_cancel):
                job.webhook_state = "pending"
            for kind in verdict.injected:
                job.note_fault(kind)
            self._ledger.finish(job, verdict, ended_at)
            await self._store.committed()
            job.ended_at = ended_at  # only now may anybody hear of it
        finally:
            self._runs.pop(job.request_id, None)
            self.live.pop(job.request_id, None)
            self.fill()
        if ended := self._ends.pop(job.request_id, None):
            ended.set()
        self._finished(job)

    def _expire(self, job: Job) -> None:
        """The start deadline passed in the queue (provider-protocol 3.1)."""
        self._deadlines.pop(job.request_id, None)
        if self.line.remove(job):
            self._spawn(self._end(job, request_error("startup_timeout", timeout_type="user")))

    def cancel(self, job: Job) -> bool:
        """Take the request out of the line (True), or ask its run to stop (False)."""
        job.cancelled_at = time.time()
        self._ledger.record_cancel_request(job)
        if self.line.remove(job):
            if timer := self._deadlines.pop(job.request_id, None):
                timer.cancel()
            self._spawn(self._end(job, request_error("client_cancelled")))
            return True
        if run := self._runs.get(job.request_id):
            run.cancel()
        return False

    async def wait(self, job: Job) -> None:
        """Return when the request has ended."""
        if job.request_id in self.live:
            await self._ends.setdefault(job.request_id, asyncio.Event()).wait()

    async def stop(self) -> None:
        """Drop what runs; nothing of it is written, so a restart finds it unfinished."""
        self._stopping = True
        for timer in self._deadlines.values():
            timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
