"""The provider's queue over HTTP: bytes in, values out, and errors whose class says what to do next.

The paid POST is made exactly once per call: there is no idempotency key (fal-protocol 7.1), so nothing here
ever repeats it. URLs are built from the settings and a request id, never taken from a reply, so that the key
goes to no host but the configured ones (fal-protocol 10.3).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import requests

from models.errors import AccountPaused, Gone, Refused, TryLater, UnknownOutcome, Unsent
from models.verdict import Verdict, read_result
from worker.connections import NotConnected, ThreadSessions, exchange

SUBMIT_TIMEOUT = 30.0
"""Seconds until a reply to the paid POST begins, at most; later it is unknown and the callback will tell."""
ASK_TIMEOUT = 15.0
"""Seconds until a reply to a question begins."""
REPLY_MAX_BYTES = 1 * 1024 * 1024
PAUSES = {401: "invalid_key", 403: "locked", 429: "rate_limited"}
RESULT_MAX_BYTES = 64 * 1024 * 1024
"""A result may carry pictures as data URIs (`sync_mode`)."""


@dataclass(frozen=True, slots=True)
class Status:
    """What the queue says about a request; failed and cancelled requests are COMPLETED too (fal-protocol 2.2)."""

    status: str
    queue_position: int | None
    inference_time: float | None
    failed: bool = False
    logs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def completed(self) -> bool:
        return self.status == "COMPLETED"


class QueueAPI:
    """A client for one account. Safe for threads: each has its own session."""

    def __init__(self, queue_url: str, key: str, *, start_timeout: float, submit_timeout: float | None = None) -> None:
        self._queue_url = queue_url
        self._submit_timeout = submit_timeout or SUBMIT_TIMEOUT
        self._sessions = ThreadSessions()
        self._authorization = {"Authorization": f"Key {key}", "User-Agent": "darkroom"}
        self._submit_headers = {
            **self._authorization,
            "Content-Type": "application/json",
            # the deadline that makes an unheard-of submit provably dead one day (fal-protocol 3.1)
            "X-Fal-Request-Timeout": f"{start_timeout:g}",
            # another model's picture would be a wrong picture
            "x-app-fal-disable-fallback": "1",
        }

    def submit(self, endpoint: str, arguments: Mapping[str, object], *, webhook_url: str | None) -> str:
        """POST one edit, once; returns the request id.

        Raises:
            Unsent: no connection came about.
            AccountPaused: 401, 403, 429: the account, not the request, was refused.
            Refused: any other 4xx: this request was certainly not accepted.
            UnknownOutcome: everything else, including every 5xx and every unreadable 2xx.
        """
        url = f"{self._queue_url}/{endpoint}"
        if webhook_url:
            url += "?" + urlencode({"fal_webhook": webhook_url})
        body = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        try:
            status, reply, headers = self._send("POST", url, self._submit_headers, body, timeout=self._submit_timeout)
        except NotConnected as error:
            raise Unsent(str(error)) from error
        except (requests.RequestException, ValueError) as error:
            raise UnknownOutcome(f"no whole reply: {type(error).__name__}") from error
        return _read_submit_reply(status, reply, headers)

    def status(self, endpoint: str, request_id: str, *, logs: bool = False) -> Status:
        """Ask how far a request is.

        Raises:
            Gone: the queue does not know it (any more).
            AccountPaused: the key was refused.
            TryLater: no usable answer came.
        """
        url = f"{self._request_url(endpoint, request_id)}/status?logs={int(logs)}"
        status, reply, _ = self._ask("GET", url, limit=RESULT_MAX_BYTES)
        _raise_for_question(status, reply)
        if status not in (200, 202):
            raise TryLater(f"status {status}")
        return _read_status(reply)

    def result(self, endpoint: str, request_id: str, *, failed: bool = False) -> Verdict:
        """Fetch the outcome of a COMPLETED request; a 4xx or 5xx is the job's own verdict (fal-protocol 2.4).

        A 5xx without `x-fal-request-id` may be a gateway's trouble (fal-protocol 14.7). Taken for the job's, it
        would have a success paid for again; so it is believed only where the status said `failed` too. A 401, 403
        or 429 is about our key or our pace, unless the queue's own answer names an error type: gateways name none
        (fal-protocol 5.4), and a job that ended so would be asked about until its result expires.

        Raises:
            Gone: 404, expired; it never means "did not run" (fal-protocol 14.8).
            AccountPaused: the key was refused.
            TryLater: not completed after all, or the answer is not the queue's own.
        """
        status, reply, headers = self._ask("GET", self._request_url(endpoint, request_id), limit=RESULT_MAX_BYTES)
        verdict = read_result(status, reply, headers.get("X-Fal-Error-Type"))
        the_queues_own = failed or "x-fal-request-id" in headers
        if not (status in PAUSES and the_queues_own and verdict.error_type):
            _raise_for_question(status, reply)
        if status == 400 and b"still in progress" in reply:
            raise TryLater("still in progress")
        if status >= 500 and not the_queues_own:
            raise TryLater(f"a gateway answered {status}")
        return verdict

    def cancel(self, endpoint: str, request_id: str) -> bool:
        """Ask the provider to cancel; True if it took the wish (the request may still finish and be charged).

        Raises:
            TryLater, AccountPaused: as for `status`.
        """
        status, reply, _ = self._ask("PUT", f"{self._request_url(endpoint, request_id)}/cancel", limit=REPLY_MAX_BYTES)
        if status in (400, 404):
            return False  # already completed, or unknown to the queue: the poll lane learns which
        _raise_for_question(status, reply)
        if not 200 <= status < 300:
            raise TryLater(f"the cancel was answered {status}")
        return True

    def _request_url(self, endpoint: str, request_id: str) -> str:
        """Status, result and cancel live under owner/app only, without the sub-path (fal-protocol 1.3)."""
        application = "/".join(endpoint.split("/")[:2])
        return f"{self._queue_url}/{application}/requests/{quote(request_id, safe='')}"

    def _ask(self, method: str, url: str, *, limit: int) -> tuple[int, bytes, Mapping[str, str]]:
        try:
            return self._send(method, url, self._authorization, None, timeout=ASK_TIMEOUT, limit=limit)
        except (NotConnected, requests.RequestException, ValueError) as error:
            raise TryLater(f"{type(error).__name__}: {error}") from error

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        timeout: float,
        limit: int = REPLY_MAX_BYTES,
    ) -> tuple[int, bytes, Mapping[str, str]]:
        return exchange(self._sessions.get(), method, url, headers=headers, body=body, timeout=timeout, limit=limit)


def _read_submit_reply(status: int, reply: bytes, headers: Mapping[str, str]) -> str:
    if 200 <= status < 300:
        try:
            request_id = json.loads(reply)["request_id"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UnknownOutcome(f"a {status} without a request id") from error
        if not isinstance(request_id, str) or not 0 < len(request_id) <= 200 or not request_id.isprintable():
            raise UnknownOutcome(f"a {status} with an unusable request id")
        return request_id
    _raise_for_account(status, reply)
    said = read_result(status, reply, headers.get("X-Fal-Error-Type"))
    message = said.message or f"answered {status}"
    if 400 <= status < 500 and status not in (408, 409):
        raise Refused(status, said.error_type or f"http_{status}", message)
    # 408 and 409 tell nothing about acceptance, a 3xx or 5xx may come from either side of it
    raise UnknownOutcome(f"{status} {message}")


def _raise_for_account(status: int, reply: bytes) -> None:
    """401, 403 and 429 are about the account, whatever was asked (fal-protocol 5.4)."""
    if status in PAUSES:
        raise AccountPaused(PAUSES[status], read_result(status, reply).message or f"answered {status}")


def _raise_for_question(status: int, reply: bytes) -> None:
    _raise_for_account(status, reply)
    if status == 404:
        raise Gone("the queue answers 404")


def _read_status(reply: bytes) -> Status:
    try:
        data = json.loads(reply)
        metrics = data.get("metrics") or {}
        return Status(
            status=str(data["status"]),
            queue_position=data.get("queue_position"),
            inference_time=metrics.get("inference_time"),
            failed=bool(data.get("error") or data.get("error_type")),
            logs=list(data.get("logs") or ()),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TryLater("an unreadable status") from error
