"""Where a caller gets a stored image: by a link that anybody may read for a time, or else at an address of ours.

Links that S3, GCS and Azure sign are made here, without asking anybody. Where the store signs nothing (a folder, or
credentials that cannot), the address is the API's, which wants the caller's key, or for a person at the machine the
file's own.
"""

import re
import secrets
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote
from uuid import UUID

if TYPE_CHECKING:  # whoever only exports opens no store
    from storage.store import Storage

URL_SAFE = "%/:@?&=+$,;~!*'()[]"
"""What stands in a URL for itself, and a percent sign, because a URL is encoded already."""


class ImageLinks(Protocol):
    """What becomes the `url` of an image in results."""

    prefix: str
    """What the database writes before it."""
    by_key: bool
    """Whether the image's key stands behind that, or its id."""

    def finish(self, text: str) -> str:
        """The text of some results with its links as they are sent.

        Raises:
            DownloadError: the store signs nothing any more.
        """


class PlainLinks:
    """Addresses that are the same at any time."""

    def __init__(self, prefix: str, *, by_key: bool) -> None:
        self.prefix, self.by_key = prefix, by_key

    def finish(self, text: str) -> str:
        """The text as it is."""
        return text


class SignedLinks:
    """Links that the store signs, each as it is sent."""

    by_key = True

    def __init__(self, storage: "Storage", lifetime: float) -> None:
        self._storage, self._lifetime = storage, lifetime
        self.prefix = f"sign:{secrets.token_hex(16)}:"  # nothing that a caller hands in looks like it
        self._marked = re.compile(f'"{self.prefix}([^"]*)"')

    def finish(self, text: str) -> str:
        """The text, every key in it signed."""
        return self._marked.sub(self._sign, text)

    def _sign(self, match: re.Match[str]) -> str:
        link = self._storage.sign(match[1], self._lifetime)
        return f'"{link}"' if link else "null"


def link_api(base: str, batch_id: UUID) -> PlainLinks:
    """The API's own addresses of a batch's images; `base`: where the caller reaches it."""
    return PlainLinks(f"{base}/v1/batches/{batch_id}/images/", by_key=False)


def link_files(storage_url: str) -> PlainLinks:
    """The objects' places in the store; a key is made of characters that need no encoding."""
    return PlainLinks(f"{quote(storage_url, safe=URL_SAFE)}/", by_key=True)
