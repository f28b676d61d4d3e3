"""Whether the store signs links to images, asked once for each set of results."""

import time
from collections.abc import Callable

import structlog

from core.errors import DownloadError
from core.settings import LinkSettings
from core.storage_url import can_sign
from intake.image_links import SignedLinks
from storage.store import Storage

log = structlog.get_logger()

PROBE = "link"
"""A key that is signed to see whether anything can be; nothing needs to lie there."""
REFUSED_FOR = 60.0
"""Seconds for which a store that signed nothing is not asked again: to find no credentials can take long."""


class LinkSigner:
    """Gives links that the store signs, if it signs any. Safe for threads."""

    def __init__(self, settings: LinkSettings, open_storage: Callable[[], Storage]) -> None:
        self._url, self._lifetime, self._open_storage = settings.storage_url, settings.link_lifetime, open_storage
        self._ask_again = 0.0

    def sign(self) -> SignedLinks | None:
        """Links for the results of one batch; None where the store signs none, or did not a moment ago."""
        if not can_sign(self._url) or time.monotonic() < self._ask_again:
            return None
        try:
            storage = self._open_storage()
            if storage.sign(PROBE, self._lifetime):
                return SignedLinks(storage, self._lifetime)
        except DownloadError as error:
            log.warning("links_not_signed", reason=error.type, detail=error.message)
        self._ask_again = time.monotonic() + REFUSED_FOR
        return None
