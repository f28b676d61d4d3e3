"""The provider's file storage: a short-lived token, then the bytes (provider-protocol 8.1).

The key goes to the token's address only; the upload itself carries the token. An upload costs nothing, so it
may be tried again, unlike a submit.
"""

import json
import threading
from datetime import UTC, datetime, timedelta
from typing import IO
from urllib.parse import quote

import requests

from core.errors import AccountPaused, Refused, TryLater
from http_client.sessions import BODY_TIMEOUT, CONNECT_TIMEOUT, NotConnected, ThreadSessions, exchange
from models.image_inputs import is_web_url

TIMEOUT = 60.0
"""Seconds until a reply begins."""
REPLY_MAX_BYTES = 256 * 1024
TRIES = 3
PASSING = frozenset({404, 408, 425, 429})
"""Statuses that say nothing about a file; 404, because a wrong address answers it for every file."""
LONGEST_TRY = 2 * (CONNECT_TIMEOUT + TIMEOUT + BODY_TIMEOUT)
"""Seconds for the token and one upload, where the storage is as slow as it may be; beside the sending itself."""
MARGIN = timedelta(minutes=5)
"""A token that ends sooner is renewed."""


class CDN:
    """A client for one account. Safe for threads; they share the token."""

    def __init__(self, rest_url: str, cdn_url: str, key: str) -> None:
        self._rest_url, self._cdn_url, self._key = rest_url, cdn_url, key
        self._sessions = ThreadSessions()
        self._lock = threading.Lock()
        self._token: tuple[str, datetime] | None = None

    def upload(self, content: IO[bytes], *, content_type: str, file_name: str, tries: int = TRIES) -> str:
        """Upload one file; returns the URL under which the provider finds it.

        Raises:
            AccountPaused: the key was refused.
            Refused: this file is not taken, or not under this name.
            TryLater: it did not work, in so many tries.
        """
        headers = {"Content-Type": content_type, "X-Fal-File-Name": quote(file_name)}
        for tried in range(1, tries + 1):
            content.seek(0)
            try:
                reply = self._post(
                    f"{self._cdn_url}/files/upload",
                    {"Authorization": f"Bearer {self._bearer()}", **headers},
                    content,
                )
                return _address(reply)
            except TryLater:
                if tried == tries:
                    raise
        raise AssertionError("unreachable")

    def _bearer(self) -> str:
        with self._lock:
            if self._token is None or self._token[1] - datetime.now(UTC) < MARGIN:
                reply = self._post(
                    f"{self._rest_url}/storage/auth/token?storage_type=fal-cdn-v3",
                    {"Authorization": f"Key {self._key}", "Content-Type": "application/json"},
                    b"{}",
                )
                self._token = _token(reply)
            return self._token[0]

    def _post(self, url: str, headers: dict[str, str], body: IO[bytes] | bytes) -> dict[str, object]:
        try:
            status, reply, _ = exchange(
                self._sessions.get(),
                "POST",
                url,
                headers={**headers, "User-Agent": "darkroom"},
                body=body,
                timeout=TIMEOUT,
                limit=REPLY_MAX_BYTES,
            )
            document = json.loads(reply) if 200 <= status < 300 else None
        except (NotConnected, requests.RequestException, ValueError, RecursionError) as error:
            raise TryLater(f"{type(error).__name__}: {error}"[:300]) from error
        if status in (401, 403):
            raise AccountPaused("invalid_key" if status == 401 else "locked", f"the storage answered {status}")
        if 400 <= status < 500 and status not in PASSING:
            raise Refused(status, "upload_refused", "the storage does not take it")
        if not isinstance(document, dict):
            raise TryLater(f"the storage answered {status}")
        return document


def _token(reply: dict[str, object]) -> tuple[str, datetime]:
    """The token and its end; a time without zone is taken for UTC."""
    try:
        end = datetime.fromisoformat(str(reply["expires_at"]))
        return str(reply["token"]), end if end.tzinfo else end.replace(tzinfo=UTC)
    except (KeyError, ValueError) as error:
        raise TryLater("the storage token is unreadable") from error


def _address(reply: dict[str, object]) -> str:
    """Where the file is now; it goes into paid requests as it stands, so it must be an address."""
    url = reply.get("access_url")
    if not isinstance(url, str) or not is_web_url(url):
        raise TryLater("the storage named no address of the file")
    return url
