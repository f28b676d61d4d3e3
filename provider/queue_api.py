"""The provider's queue over HTTP: bytes in, values out, and errors whose class says what to do next.

The paid POST is made exactly once per call: there is no idempotency key (provider-protocol 7.1), so nothing here
ever repeats it. URLs are built from the settings and a request id, never taken from a reply, so that the key
goes to no host but the configured ones (provider-protocol 10.3).
"""

import json
from collections.abc import Iterator, Mapping
from typing import Self
from urllib.parse import quote, urlencode

import requests

from core.errors import TryLater, UnknownOutcome, Unsent
from http_client.bodies import lines, read_bounded
from http_client.repeated_post import RepeatedPost
from http_client.sessions import HttpResponse, NotConnected, ThreadSessions, exchange, open_response
from models.verdict import Verdict
from provider.preferences import Preferences
from provider.replies import (
    Cancellation,
    Outcome,
    raise_for_question,
    read_outcome,
    read_submit_reply,
    status_text,
)
from provider.settings import ProviderSettings
from provider.status_stream import EVENT_MAX_BYTES, Status, read_events, read_status

SUBMIT_TIMEOUT = 30.0
"""Seconds until a reply to the paid POST begins, at most; later it is unknown and the callback will tell."""
ASK_TIMEOUT = 15.0
"""Seconds until a reply to a question begins."""
REPLY_MAX_BYTES = 1 * 1024 * 1024
RESULT_MAX_BYTES = 64 * 1024 * 1024
"""A result may carry images as data URIs (`sync_mode`)."""
JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
STREAM_SILENCE = 45.0
"""Seconds without a byte after which a status stream is dead; the provider sends a comment every 15."""
STREAM_SECONDS = 3600.0
"""The longest a status stream is listened to: as long as the provider lets a request run (provider-protocol 5.5)."""


class QueueAPI:
    """A client for one account. Safe for threads: each has its own session."""

    def __init__(
        self,
        queue_url: str,
        key: str,
        *,
        start_timeout: float,
        submit_timeout: float | None = None,
        preferences: Preferences | None = None,
    ) -> None:
        self._queue_url = queue_url
        self._submit_timeout = submit_timeout or SUBMIT_TIMEOUT
        self._sessions = ThreadSessions()
        self._authorization = {"Authorization": f"Key {key}", "User-Agent": "darkroom"}
        self._submit_headers = {
            **self._authorization,
            "Content-Type": "application/json",
            # the deadline that makes an unheard-of submit provably dead one day (provider-protocol 3.1)
            "X-Fal-Request-Timeout": f"{start_timeout:g}",
            # another model's image would be a wrong image
            "x-app-fal-disable-fallback": "1",
            **(preferences or Preferences()).headers(),
        }
        self._posts: dict[str, RepeatedPost] = {}
        """By endpoint."""

    @classmethod
    def of(cls, settings: ProviderSettings, *, submit_timeout: float | None = None) -> Self:
        """The client that the settings describe.

        Raises:
            SettingsError: there is no key.
        """
        return cls(
            settings.fal_queue_url,
            settings.required_key(),
            start_timeout=settings.submit_start_timeout,
            submit_timeout=submit_timeout,
            preferences=settings.preferences,
        )

    def submit(self, endpoint: str, arguments: Mapping[str, object], *, webhook_url: str | None) -> str:
        """POST one edit, once; returns the request id.

        Raises:
            Unsent: no connection came about.
            AccountPaused: 401, 403, 429: the account, not the request, was refused.
            Refused: any other 4xx: this request was certainly not accepted.
            UnknownOutcome: everything else, including every 5xx and every unreadable 2xx.
        """
        query = urlencode({"fal_webhook": webhook_url}) if webhook_url else ""
        body = JSON.encode(arguments).encode()
        try:
            status, reply, headers = self._post_to(endpoint).send(query, body)
        except NotConnected as error:
            raise Unsent(str(error)) from error
        except (requests.RequestException, ValueError) as error:
            raise UnknownOutcome(f"no whole reply: {type(error).__name__}") from error
        return read_submit_reply(status, reply, headers)

    def status(self, endpoint: str, request_id: str, *, logs: bool = False) -> Status:
        """Ask how far a request is.

        Raises:
            Gone: the queue does not know it (any more).
            AccountPaused: the key was refused.
            TryLater: no usable answer came.
        """
        url = f"{self._request_url(endpoint, request_id)}/status?logs={int(logs)}"
        status, reply, _ = self._ask("GET", url, limit=RESULT_MAX_BYTES)
        raise_for_question(status, reply)
        if status not in (200, 202):
            raise TryLater(f"status {status}")
        return read_status(reply)

    def stream(
        self, endpoint: str, request_id: str, *, logs: bool = False, seconds: float = STREAM_SECONDS
    ) -> Iterator[Status]:
        """Every status as the provider tells it, the last one COMPLETED (provider-protocol 2.3).

        Raises:
            Gone, AccountPaused: as for `status`.
            TryLater: it broke off, or never began: `status` may still answer.
        """
        url = f"{self._request_url(endpoint, request_id)}/status/stream?logs={int(logs)}"
        headers = {**self._authorization, "Accept": "text/event-stream"}
        try:
            with open_response(self._sessions.get(), "GET", url, headers=headers, timeout=STREAM_SILENCE) as response:
                if response.status_code != 200:
                    refusal = read_bounded(response.raw, limit=REPLY_MAX_BYTES, seconds=ASK_TIMEOUT)
                    raise_for_question(response.status_code, refusal)
                    raise TryLater(f"the stream was answered {response.status_code}")
                for status in read_events(lines(response.raw, limit=EVENT_MAX_BYTES, seconds=seconds)):
                    yield status
                    if status.completed:
                        return
        except (NotConnected, requests.RequestException, ValueError) as error:
            raise TryLater(f"{type(error).__name__}: {error}") from error
        raise TryLater("the stream ended before the request did")

    def result(self, endpoint: str, request_id: str, *, failed: bool = False) -> Verdict:
        """The verdict on a COMPLETED request.

        Raises:
            Gone, AccountPaused, TryLater: as for `outcome`.
        """
        return self.outcome(endpoint, request_id, failed=failed).verdict

    def outcome(self, endpoint: str, request_id: str, *, failed: bool = False) -> Outcome:
        """The answer and the verdict on a COMPLETED request; `failed` is what its status said.

        Raises:
            Gone: 404, expired; it never means "did not run" (provider-protocol 14.8).
            AccountPaused: the key was refused.
            TryLater: not completed after all, or the answer is not the queue's own.
        """
        answer = self._ask("GET", self._request_url(endpoint, request_id), limit=RESULT_MAX_BYTES)
        return read_outcome(answer, failed=failed)

    def cancel(self, endpoint: str, request_id: str) -> bool:
        """Ask the provider to cancel; True if it accepted that (the request may still finish and be charged).

        Raises:
            TryLater, AccountPaused: as for `status`.
        """
        return self.cancellation(endpoint, request_id).taken

    def cancellation(self, endpoint: str, request_id: str) -> Cancellation:
        """The same, with the provider's own word (provider-protocol 2.5)."""
        status, reply, _ = self._ask("PUT", f"{self._request_url(endpoint, request_id)}/cancel", limit=REPLY_MAX_BYTES)
        if status in (400, 404):
            # already completed, or unknown to the queue: the poll lane learns which
            return Cancellation(False, status_text(reply) or str(status))
        raise_for_question(status, reply)
        if not 200 <= status < 300:
            raise TryLater(f"the cancel was answered {status}")
        return Cancellation(True, status_text(reply) or str(status))

    def _post_to(self, endpoint: str) -> RepeatedPost:
        """The POST to an endpoint, built at the first one."""
        post = self._posts.get(endpoint)
        if post is None:
            post = self._posts[endpoint] = RepeatedPost(
                self._sessions,
                f"{self._queue_url}/{endpoint}",
                self._submit_headers,
                timeout=self._submit_timeout,
                limit=REPLY_MAX_BYTES,
            )
        return post

    def _request_url(self, endpoint: str, request_id: str) -> str:
        """Status, result and cancel live under owner/app only, without the sub-path (provider-protocol 1.3)."""
        application = "/".join(endpoint.split("/")[:2])
        return f"{self._queue_url}/{application}/requests/{quote(request_id, safe='')}"

    def _ask(self, method: str, url: str, *, limit: int) -> HttpResponse:
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
    ) -> HttpResponse:
        return exchange(self._sessions.get(), method, url, headers=headers, body=body, timeout=timeout, limit=limit)
