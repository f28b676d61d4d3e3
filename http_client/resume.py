"""The rest of a file that broke off: asked for by `Range`, of the very same version of it (RFC 9110, 13.1.5 and 14).

A version is known by a strong validator. Where the file has changed meanwhile, `If-Range` has its host send all of the
new one; where nothing tells versions apart, nothing is put together.
"""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from core.errors import FetchAgain

CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]*"')
SETTLED_AFTER = 1.0
"""Seconds that a file must be older than the answer, so that its date tells one version from the next."""


class Version(NamedTuple):
    """One version of a file, of which some bytes came."""

    validator: str
    """Its ETag, or the date of its last change; empty where its rest cannot be asked for."""
    length: int | None
    """Bytes of all of it, as far as its host said."""

    def ask_from(self, offset: int) -> dict[str, str]:
        """The headers that ask for what stands behind so many bytes; for all of it, if for no part."""
        if not self.validator:
            return {}
        return {"Range": f"bytes={offset}-", "If-Range": self.validator}

    def check_part(self, headers: Mapping[str, str], offset: int) -> int:
        """The length of the whole file, as the answer with its rest has it.

        Raises:
            FetchAgain: it is not the rest of this version.
        """
        found = CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        start, last, length = map(int, found.groups()) if found else (0, 0, 0)
        if not found or start != offset or last + 1 != length or self.length not in (None, length):
            raise FetchAgain("other_part", "The file's host sent another part than it was asked for.")
        if headers.get("ETag", self.validator) != self.validator and self.validator.startswith('"'):
            raise FetchAgain("changed", "The file changed while it was fetched.")
        return length


NO_VERSION = Version("", None)


def read_version(headers: Mapping[str, str], length: int | None) -> Version:
    """Which version of a file an answer carries, and its length, if that was declared."""
    whole_bytes = headers.get("Content-Encoding", "identity") == "identity"
    if not whole_bytes or "bytes" not in headers.get("Accept-Ranges", ""):
        return Version("", length)
    etag, changed = headers.get("ETag", ""), headers.get("Last-Modified", "")
    if STRONG_ETAG.fullmatch(etag):
        return Version(etag, length)
    return Version(changed if not etag and _is_settled(changed, headers.get("Date", "")) else "", length)


def _is_settled(changed: str, now: str) -> bool:
    try:
        age = parsedate_to_datetime(now) - parsedate_to_datetime(changed)
    except (TypeError, ValueError):
        return False
    return age.total_seconds() >= SETTLED_AFTER
