"""Delivers webhooks: signed, retried with growing pauses, at least once, never in anybody's way (fal-protocol 4).

Each owed webhook is its own task, so a slow receiver delays nobody else's. The body is built again for every
attempt from the ledger; nothing large waits in memory. Redirects are never followed.
"""

import asyncio
import ipaddress
import json
import logging
import socket
import time
import uuid
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from nacl.signing import SigningKey

from .faults import FaultPlan, Injection
from .job import Job
from .keys import Keys
from .ledger import Ledger
from .options import Options
from .signing import sign
from .store import Store

log = logging.getLogger(__name__)

LARGE_RESULT = 10 * 1024  # bytes; from here on the short retention applies (fal-protocol 2.4)
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
        keys: Keys,
        faults: FaultPlan,
        options: Callable[[], Options],
    ) -> None:
        self._session = session
        self._ledger = ledger
        self._store = store
        self._keys = keys
        self._faults = faults
        self._options = options
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots: dict[str, asyncio.Semaphore] = {}
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
        self._spawn(self._again(job))

    async def _again(self, job: Job) -> None:
        await self._attempt(job)
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
        self._note_attempt(job)
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
        """Attempt after attempt: until a 2xx, a 3xx, the last retry or the result's expiry (fal-protocol 4.3)."""
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
        body, headers = self._letter(job, fault)
        job.webhook_tries += 1
        job.webhook_status = None
        try:
            async with (
                self._slots.setdefault(urlsplit(job.webhook_url or "").netloc, asyncio.Semaphore(MOST_AT_ONCE)),
                self._session.post(
                    job.webhook_url or "",
                    data=body,
                    headers=headers,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=seconds),
                ) as reply,
            ):
                job.webhook_status = reply.status
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            log.info("webhook of %s: %s", job.request_id, error or type(error).__name__)
        async with self._overtaking:
            self._overtaking.notify_all()
        return job.webhook_status

    def _letter(self, job: Job, fault: Injection | None) -> tuple[bytes, dict[str, str]]:
        """Body and headers of one attempt, spoilt as the fault wants it."""
        kind = fault.kind if fault else ""
        content = self._content(job, kind)
        request_id, user_id, key = job.request_id, self._options().user_id, self._key(kind)
        if kind in ("foreign_id", "mismatched_id"):
            content["request_id"] = content["gateway_request_id"] = str(uuid.uuid4())
        if kind == "foreign_id":
            request_id = str(content["request_id"])
        if kind == "other_user":
            user_id = "github|99999999"
        if fault and kind == "huge_body":
            content["padding"] = "x" * int(fault.value)
        body = json.dumps(content, sort_keys=True).encode()
        stale = int(fault.value) if fault and kind == "stale_timestamp" else 0
        headers = sign(key, request_id, user_id, self._timestamp(job) - stale, body)
        if kind == "tampered_body":
            body = body.replace(b'"status": "', b'"tampered": 1, "status": "', 1)
        return body, {"Content-Type": "application/json", **headers}

    def _key(self, kind: str) -> SigningKey:
        if kind == "wrong_key":
            return SigningKey.generate()
        if kind == "rotated_key":
            self._keys.rotate(keep_old=False)
        return self._keys.current

    def _timestamp(self, job: Job) -> int:
        """Now, or the moment of the first attempt: it is unknown whether fal signs retries afresh."""
        if job.webhook_signed_at is None or self._options().webhook_fresh_timestamps:
            job.webhook_signed_at = int(time.time())
        return job.webhook_signed_at

    def _content(self, job: Job, kind: str) -> dict[str, object]:
        """The fields of the delivery (fal-protocol 4.1)."""
        payload = json.loads(self._ledger.output(job) or b"null")
        content: dict[str, object] = {
            "error": None,
            "gateway_request_id": job.gateway_request_id,
            "payload": payload,
            "request_id": job.request_id,
            "status": "OK",
        }
        if job.status != 200:
            # both spellings were seen live; neither is a contract
            word = "Unexpected" if job.status == 404 else "Invalid"
            content.update(error=f"{word} status code: {job.status}", status="ERROR")
        too_large = 0 < self._options().webhook_max_body < job.result_bytes
        if kind == "payload_error" or too_large:
            content.update(payload=None, payload_error="Response payload is not JSON serializable. Fetch the result.")
        elif kind == "null_payload":
            content.update(payload=None)
        elif kind == "null_error":
            content.update(payload=None, error="Internal server error", status="ERROR")
        return content

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
