"""One signed POST to a caller's address: what came back, in values. It touches no database.

The address is the caller's word, so nothing about the other side is trusted: no private address unless its host is
named (judged when connected, so a name that resolves differently a moment later gains nothing), no redirect
followed, one deadline for the whole call, the answer's body thrown away.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

import requests

from core.tracing import current_traceparent
from http_client.bodies import read_bounded
from http_client.deadline import Call, Deadline
from http_client.retry_after import read_retry_after
from http_client.sessions import CONNECT_TIMEOUT, NotConnected, ThreadSessions, is_private
from worker.webhook_signing import Signer

TIMEOUT = 15.0
"""Seconds for a whole call; the specification advises 15 to 30."""
ANSWER_READ = 64 * 1024
"""Bytes of an answer that are read, so that a receiver is not cut off in the middle of it; nobody looks at them."""
GONE = 410
THROTTLING = frozenset({429, 502, 503, 504})
"""Statuses whose `Retry-After` counts."""


class WebhookResponse(NamedTuple):
    """What a POST came to."""

    status: int | None = None
    """The HTTP status; None where none was answered."""
    error: str | None = None
    """Why it is no delivery; None where it is one."""
    permanent: bool = False
    """No other try can do better."""
    retry_after: float = 0.0
    """Seconds that the receiver asks to be left in peace."""


class BadAddress(Exception):
    """The address is none that a POST can go to."""


class PrivateAddress(Exception):
    """The address leads to where nobody is notified."""


class WebhookSender:
    """Delivers signed messages. Safe for threads."""

    def __init__(self, signer: Signer, private_hosts: Sequence[str]) -> None:
        """`private_hosts` are the names, or the literal addresses, that may stand for a private address."""
        self._signer = signer
        self.clients = signer.clients
        self._private_hosts = frozenset(host.lower() for host in private_hosts)
        self._deadline = Deadline()
        self._sessions = ThreadSessions(self._check_peer, self._deadline.watch)

    def deliver(
        self, url: str, message_id: str, body: str, *, client: str, timeout: float = TIMEOUT
    ) -> WebhookResponse:
        """POST `body`, as UTF-8 JSON, signed as `message_id` for one of `clients`.

        Turns every failure into an answer, which never quotes the URL: it may hold a password or a token.
        """
        with self._deadline.within(timeout) as call:
            try:
                return _read_reply(self._post(call, self._request(url, message_id, body, client), timeout))
            except BadAddress as error:
                return WebhookResponse(error=str(error), permanent=True)
            except PrivateAddress as error:
                return WebhookResponse(error=str(error))
            except (NotConnected, requests.RequestException, OSError, ValueError) as error:
                silent = call.cut_off or isinstance(error, requests.Timeout)
                return WebhookResponse(error=f"no answer within {timeout:g} s" if silent else _reason(error))

    def _post(self, call: Call, request: requests.PreparedRequest, timeout: float) -> requests.Response:
        session = self._sessions.get()
        try:
            response = session.send(
                request,
                timeout=(min(CONNECT_TIMEOUT, timeout), timeout),
                allow_redirects=False,
                stream=True,
            )
            if call.cut_off:  # in the middle of its headers, perhaps: `http.client` takes what came for all of them
                raise requests.Timeout
            with response, suppress(requests.RequestException, OSError, ValueError):
                read_bounded(response.raw, limit=ANSWER_READ, seconds=timeout)
            return response
        finally:
            session.close()  # messages are rare, and a kept connection would be under no deadline

    def _request(self, url: str, message_id: str, body: str, client: str) -> requests.PreparedRequest:
        """The request, its address judged in the form in which it is sent: parsers differ over odd ones."""
        headers = {
            **self._signer.headers(message_id, body, client),
            "Content-Type": "application/json",
            "User-Agent": "darkroom",
            "Connection": "close",
        }
        if traceparent := current_traceparent():
            headers["traceparent"] = traceparent
        try:
            request = requests.Request("POST", url, headers=headers, data=body.encode()).prepare()
            parts = urlsplit(request.url or "")
        except (requests.RequestException, ValueError) as error:
            raise BadAddress(f"the address is no URL: {type(error).__name__}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadAddress("the address is neither http nor https")
        return request

    def _check_peer(self, host: str, address: str) -> None:
        if is_private(address) and host.lower() not in self._private_hosts:
            raise PrivateAddress(f"{host} is at {address}, a private address that NOTIFY_PRIVATE_HOSTS does not name")


def _read_reply(response: requests.Response) -> WebhookResponse:
    status = response.status_code
    if 200 <= status < 300:
        return WebhookResponse(status)
    wait = read_retry_after(response.headers.get("Retry-After", "")) if status in THROTTLING else 0.0
    return WebhookResponse(status, f"the receiver answered {status}", status == GONE, wait)


def _reason(error: Exception) -> str:
    """What went wrong, without urllib3's own name of the connection."""
    text = str(error)
    if isinstance(error, NotConnected):
        return f"not connected: {text.partition('): ')[2] or text}"
    return f"{type(error).__name__}: {text}"
