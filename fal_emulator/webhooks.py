"""Delivers webhooks: signed, retried with growing pauses, at least once, never in anybody's way (provider-protocol 4).

Each owed webhook is its own task, so a slow receiver delays nobody else's. Redirects are never
followed.
"""

import asyncio
import io
import ipaddress
import logging
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from .fault_plan import FaultPlan, Injection
from .job import Job
from .ledger import Ledger
from .options import Options
from .store import Store
from .webhook_payloads import WebhookPayloads

log = logging.getLogger(__name__)

LARGE_RESULT = 10 * 1024  # bytes; from here on the short retention applies (provider-protocol 2.4)
MOST_AT_ONCE = 200  # open connections to one receiver; a slow one takes nobody else's


def expires_at(job: Job, options: Options) -> float:
    """When the stored result goes, and with it the last reason to deliver."""
    nominal = options.large_result_retention if job.result_bytes >= LARGE_RESULT else options.result_retention
    return (job.ended_at or time.time()) + options.scaled(nominal)


class Webhooks:
    """The delivery department."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        ledger: Ledger,
        store: Store,
        payloads: WebhookPayloads,
        faults: FaultPlan,
        options: Callable[[], Options],
    ) -> None:
        self._session = session
        self._ledger = ledger
        self._store = store
        self._payloads = payloads
        self._faults = faults
        self._options = options
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._under_way: dict[str, Job] = {}
        self._attempted: dict[str, asyncio.Event] = {}
        self._overtaking = asyncio.Condition()

    @property
    def owed(self) -> int:
        """Deliveries under way or waiting for their next attempt."""
        return len(self._tasks)

    def resume(self) -> None:
        """Take up what an earlier process still owed."""
        for job in self._ledger.undelivered():
            self.start(job)

    def start(self, job: Job) -> None:
        """Deliver in the background if the request asked for it."""
        if job.webhook_state == "pending":
            self._spawn(self._deliver(job))
        else:
            self._note_attempt(job)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def redeliver(self, job: Job) -> None:
        """Send the webhook once more, as if fal had not seen the first answer."""
        self._spawn(self._again(self._under_way.get(job.request_id, job)))

    async def _again(self, job: Job) -> None:
        status = await self._attempt(job)
        if job.delivered_at is None and status is not None and 200 <= status < 300:
            job.webhook_state, job.delivered_at = "delivered", time.time()
        await self._record(job)

    async def first_attempt(self, job: Job, seconds: float) -> None:
        """Return when the first delivery was tried, for `webhook_before_reply`."""
        event = self._attempted.setdefault(job.request_id, asyncio.Event())
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            log.warning("no webhook attempt for %s within %s s", job.request_id, seconds)
        finally:
            self._attempted.pop(job.request_id, None)

    def _note_attempt(self, job: Job) -> None:
        if event := self._attempted.get(job.request_id):
            event.set()

    async def _deliver(self, job: Job) -> None:
        self._under_way[job.request_id] = job
        try:
            await self._see_through(job)
        finally:
            del self._under_way[job.request_id]
            self._note_attempt(job)

    async def _see_through(self, job: Job) -> None:
        fault = self._faults.draw("delivery", job.markers) if job.webhook_tries == 0 else None
        if fault:
            job.note_fault(fault.kind)
        if fault and fault.kind == "drop_webhook":
            job.webhook_state = "dropped"
        elif not await self._may_reach(job):
            job.webhook_state = "refused"
        else:
            await self._hold_back(fault)
            await self._until_taken(job)
            if fault and fault.kind == "duplicate_webhook":
                await self._attempt(job)
        await self._record(job)

    async def _hold_back(self, fault: Injection | None) -> None:
        if fault and fault.kind == "delay_webhook":
            await asyncio.sleep(fault.value)
        elif fault and fault.kind == "reorder_webhook":
            async with self._overtaking:
                try:
                    await asyncio.wait_for(self._overtaking.wait(), fault.value)
                except TimeoutError:
                    log.info("no other webhook came along to overtake")

    async def _until_taken(self, job: Job) -> None:
        """Attempt after attempt: until a 2xx, a 3xx, the last retry or the result's expiry (provider-protocol 4.3)."""
        options = self._options()
        while True:
            status = await self._attempt(job)
            self._note_attempt(job)
            if status is not None and 200 <= status < 300:
                job.webhook_state = "delivered"
                job.delivered_at = time.time()
                return
            permanent = status is not None and 300 <= status < 400
            if permanent or job.webhook_tries > options.webhook_max_retries:
                job.webhook_state = "failed"
                return
            pause = options.scaled(options.webhook_backoff * options.webhook_backoff_factor ** (job.webhook_tries - 1))
            if time.time() + pause > expires_at(job, options):
                job.webhook_state = "expired"
                return
            await self._record(job)
            await asyncio.sleep(pause)

    async def _record(self, job: Job) -> None:
        self._ledger.webhook(job)
        await self._store.committed()

    async def _attempt(self, job: Job) -> int | None:
        """One POST; the receiver's status, or None when there was no answer."""
        options = self._options()
        seconds = options.webhook_first_timeout if job.webhook_tries == 0 else options.webhook_retry_timeout
        fault = self._faults.draw("attempt", job.markers)
        if fault:
            job.note_fault(fault.kind)
        job.webhook_tries += 1
        job.webhook_status = None
        url = job.webhook_url or ""
        try:
            async with self._slots.setdefault(urlsplit(url).netloc, asyncio.Semaphore(MOST_AT_ONCE)):
                body, headers = self._payloads.write(job, fault)  # signed only now, so the wait makes no stamp stale
                job.webhook_status = await self._post(url, body, headers, seconds)
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            log.info("webhook of %s: %s", job.request_id, error or type(error).__name__)
        async with self._overtaking:
            self._overtaking.notify_all()
        return job.webhook_status

    async def _post(self, url: str, body: bytes, headers: dict[str, str], seconds: float) -> int:
        timeout = aiohttp.ClientTimeout(total=seconds)
        content = io.BytesIO(body)  # sent in pieces, so a huge body does not hold the loop up
        async with self._session.post(
            url, data=content, headers=headers, allow_redirects=False, timeout=timeout
        ) as reply:
            return reply.status

    async def _may_reach(self, job: Job) -> bool:
        """The real fal drops loopback and private targets without any request."""
        if self._options().allow_private_webhooks:
            return True
        host = urlsplit(job.webhook_url or "").hostname or ""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError:
            return True  # a name that does not resolve is an ordinary failed attempt, and retried
        return all(ipaddress.ip_address(str(entry[4][0])).is_global for entry in found)

    async def stop(self) -> None:
        """Stop; what was not taken stays owed in the ledger."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
