"""The provider's platform API: questions about the account, and deletions there (provider-protocol 7.2, 7.3)."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import requests

from core.errors import AccountPaused, Gone, TooLarge, TryLater
from http_client.bodies import BodyTooLong
from http_client.sessions import NotConnected, ThreadSessions, exchange

TIMEOUT = 15.0
"""Seconds until an answer begins."""
PAGE_MAX_BYTES = 64 * 1024 * 1024
DELETION_MAX_BYTES = 1024 * 1024


class PlatformAPI:
    """A client for one account. Safe for threads: each has its own session."""

    def __init__(self, api_url: str, key: str) -> None:
        self._api_url = api_url
        self._headers = {"Authorization": f"Key {key}", "User-Agent": "darkroom"}
        self._sessions = ThreadSessions()

    def get(self, path: str, query: Mapping[str, str], *, items: str, limit: int = PAGE_MAX_BYTES) -> dict[str, Any]:
        """One page of at most `limit` bytes; what it lists stands under `items`.

        Raises:
            Gone: the key may not read it, or there is no such thing.
            TooLarge: the page has more bytes.
            TryLater: no usable answer came.
        """
        url = f"{self._api_url}{path}?{urlencode(query)}"
        session = self._sessions.get()
        try:
            answer = exchange(session, "GET", url, headers=self._headers, timeout=TIMEOUT, limit=limit)
            page = json.loads(answer.body) if answer.status == 200 else None
        except BodyTooLong as error:
            raise TooLarge(f"{path}: {error}") from error
        except (NotConnected, requests.RequestException, ValueError, RecursionError) as error:
            raise TryLater(f"{type(error).__name__}: {error}"[:300]) from error
        if answer.status in (401, 403, 404):
            raise Gone(f"{path} is not for this key ({answer.status})")
        if not isinstance(page, dict) or not isinstance(page.get(items), list):
            # also an object without a list: taken for an empty one, it would say that nothing is there
            raise TryLater(f"{path} answered {answer.status}")
        return page

    def delete_payloads(self, request_id: str) -> None:
        """Have the provider delete the input, the result and the images of a request that has ended.

        Raises:
            AccountPaused: the key may not; it wants an administrator's (provider-protocol 7.3).
            Gone: the provider knows no such request.
            TryLater: no usable answer came.
        """
        url = f"{self._api_url}/v1/models/requests/{quote(request_id, safe='')}/payloads"
        session = self._sessions.get()
        try:
            answer = exchange(session, "DELETE", url, headers=self._headers, timeout=TIMEOUT, limit=DELETION_MAX_BYTES)
        except (NotConnected, requests.RequestException, ValueError) as error:
            raise TryLater(f"{type(error).__name__}: {error}"[:300]) from error
        if answer.status in (401, 403):
            raise AccountPaused("key_refused", f"the key may not delete requests ({answer.status}): it is no admin key")
        if answer.status == 404:
            raise Gone("the provider knows no such request")
        if not 200 <= answer.status < 300:
            raise TryLater(f"the deletion of a request answered {answer.status}")
