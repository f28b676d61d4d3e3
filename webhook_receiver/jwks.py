"""The provider's signing keys: fetched, cached for a day at most, fetched again on a miss, kept when a fetch fails.

Never taken from a request. A miss may be a rotation, so the set is fetched again, but at most once a minute:
forged deliveries must not make us hammer the provider (provider-protocol 4.2).
"""

import base64
import binascii
import json
import threading
import time
from contextlib import closing
from typing import Any

import requests
import structlog

from core.errors import KeysUnavailable
from http_client.bodies import read_bounded
from http_client.sessions import NotConnected, ThreadSessions, open_response

log = structlog.get_logger()

FRESH_FOR = 24 * 3600.0
"""Seconds a set may be used without asking again."""
ASK_EVERY = 60.0
"""Seconds between two fetches, however many deliveries miss."""
FETCH_TIMEOUT = 5.0
"""Seconds without a byte, for the head, and for the whole body: deliveries wait meanwhile."""
SET_MAX_BYTES = 256 * 1024


class KeySet:
    """The current key set of one URL. Safe for threads; one of them fetches, the others wait for it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._keys: tuple[bytes, ...] = ()
        self._good_at = self._asked_at = float("-inf")

    def current(self) -> tuple[bytes, ...]:
        """The keys to try.

        Raises:
            KeysUnavailable: none were ever had; the delivery cannot be judged.
        """
        if time.monotonic() - self._good_at > FRESH_FOR:
            self._refresh()
        if not self._keys:
            raise KeysUnavailable
        return self._keys

    def at_hand(self) -> tuple[bytes, ...] | None:
        """The keys, where nothing has to be fetched for them; else None."""
        return self._keys if self._keys and time.monotonic() - self._good_at <= FRESH_FOR else None

    def refresh_after_miss(self, tried: tuple[bytes, ...]) -> tuple[bytes, ...] | None:
        """The keys to try once more, or None when there is nothing newer than those tried."""
        if self._keys == tried:  # else somebody else's miss brought newer ones meanwhile
            self._refresh()
        return self._keys if self._keys != tried else None

    def _refresh(self) -> None:
        with self._lock:
            if time.monotonic() - self._asked_at < ASK_EVERY:
                return
            self._asked_at = time.monotonic()
            try:
                self._keys = fetch_keys(self._url)
                self._good_at = time.monotonic()
            except (NotConnected, requests.RequestException, ValueError, RecursionError) as error:
                log.warning("keys_not_fetched", reason=f"{type(error).__name__}: {error}", kept=len(self._keys))
                if not self._keys:
                    self._asked_at = time.monotonic() - ASK_EVERY + 1.0  # with nothing in hand, a second is enough


def fetch_keys(url: str) -> tuple[bytes, ...]:
    """The keys that a URL publishes now.

    Raises:
        NotConnected, requests.RequestException: no whole answer came.
        ValueError, RecursionError: the answer is no set of keys that can be used.
    """
    with (
        closing(ThreadSessions(head_timeout=FETCH_TIMEOUT).get()) as session,
        open_response(session, "GET", url, headers={}, timeout=FETCH_TIMEOUT) as response,
    ):
        if response.status_code != 200:
            raise ValueError(f"answered {response.status_code}")
        body = read_bounded(response.raw, limit=SET_MAX_BYTES, seconds=FETCH_TIMEOUT)
    keys = tuple(key for key in map(_public_key, _entries(body)) if key is not None)
    if not keys:
        raise ValueError("the key set holds no Ed25519 key")
    return keys


def _entries(body: bytes) -> list[Any]:
    document = json.loads(body)
    entries = document.get("keys") if isinstance(document, dict) else None
    return entries if isinstance(entries, list) else []


def _public_key(entry: object) -> bytes | None:
    """The raw key; the live service publishes `x` with padding, the standard says without: both are taken."""
    if not isinstance(entry, dict) or entry.get("kty") != "OKP" or entry.get("crv") != "Ed25519":
        return None
    x = entry.get("x")
    if not isinstance(x, str):
        return None
    x = x.rstrip("=")
    try:
        key = base64.urlsafe_b64decode(x + "=" * (-len(x) % 4))
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == 32 else None
