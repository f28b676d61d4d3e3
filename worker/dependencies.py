"""What a worker process holds open: built once per process, on first use; its lanes run in threads and share it.

Nothing is opened when this file is imported: the local stack imports it once and forks its workers from there.
"""

import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Engine

from core.settings import load
from http_client.fetch import Fetcher
from models.database import make_engine
from provider.listing import Listing
from provider.platform import PlatformAPI
from provider.price_client import Pricing
from provider.queue_api import SUBMIT_TIMEOUT, QueueAPI
from worker.host_limits import SilentHosts
from worker.lanes import LANES, UPKEEP
from worker.settings import WorkerSettings
from worker.webhook_sender import WebhookSender
from worker.webhook_signing import Signer

if TYPE_CHECKING:
    from provider.input_uploads import InputUploads
    from storage.store import Storage

stopping = threading.Event()
"""Set when the worker is told to stop, so that no lane claims any more."""
TURNS_AT_ONCE = max(*(lane.turns_at_once for lane in LANES.values()), sum(LANES[name].turns_at_once for name in UPKEEP))
"""Turns that one worker runs at one time, at most."""

Made = TypeVar("Made")
_making = threading.RLock()


class shared(cached_property[Made]):
    """Made on first use, then always the same, however many threads ask at once; made anew where making it failed."""

    def __get__(self, instance: object, owner: type[Any] | None = None) -> Made:  # type: ignore[override]
        """What was made; once it is, Python finds it on the object and does not come here."""
        with _making:
            return super().__get__(instance, owner)


class Dependencies:
    """What lanes share. Whatever is not asked for is not made; a test may set what it wants to be used instead."""

    @shared
    def settings(self) -> WorkerSettings:
        """This process's settings."""
        return load(WorkerSettings)

    @shared
    def engine(self) -> Engine:
        """This process's connections: for each turn one, and one for whatever runs beside it."""
        return make_engine(self.settings.database_url, application="darkroom worker", pool_size=2 * TURNS_AT_ONCE)

    @shared
    def queue(self) -> QueueAPI:
        """This process's client of the provider."""
        # a POST must be over long before its submission can be given up as dead
        return QueueAPI.of(self.settings, submit_timeout=min(SUBMIT_TIMEOUT, self.settings.unknown_deadline / 4))

    @shared
    def listing(self) -> Listing:
        """This process's client of the provider's listing."""
        return Listing(self.settings.fal_api_url, self.settings.required_key())

    @shared
    def pricing(self) -> Pricing:
        """This process's client of the provider's price list."""
        return Pricing(self.settings.fal_api_url, self.settings.required_key())

    @shared
    def platform(self) -> PlatformAPI:
        """This process's client of the provider's platform."""
        return PlatformAPI(self.settings.fal_api_url, self.settings.required_key())

    @shared
    def fetcher(self) -> Fetcher:
        """This process's downloader."""
        return Fetcher(self.settings.fal_media_hosts, max_bytes=self.settings.picture_max_bytes)

    @shared
    def input_fetcher(self) -> Fetcher:
        """This process's way to inputs, which may be anywhere that the provider may reach."""
        from core.input_images import INPUT_MAX_BYTES  # brings Pillow along

        hosts = ("*", *self.settings.fal_media_hosts)
        return Fetcher(hosts, max_bytes=INPUT_MAX_BYTES, plain_http=True)

    @shared
    def silent_hosts(self) -> SilentHosts:
        """Hosts of inputs that have not answered for long."""
        return SilentHosts()

    @shared
    def input_uploads(self) -> "InputUploads":
        """This process's way to the provider's storage.

        Raises:
            SettingsError: there is no key.
        """
        from provider.input_uploads import InputUploads  # brings Pillow along

        return InputUploads(self.engine, self.settings)

    @shared
    def storage(self) -> "Storage":
        """This process's store.

        Raises:
            SettingsError: it cannot be opened.
        """
        from storage.store import Storage  # few lanes need it, and its client is large

        return Storage(self.settings.storage_url)

    @shared
    def sender(self) -> WebhookSender:
        """This process's way to the callers."""
        return WebhookSender(Signer(self.settings.notify_secrets), self.settings.notify_private_hosts)


def may_continue() -> bool:
    """Whether a lane may go on claiming: until the worker stops. How long a turn is, `lane_loop.py` knows."""
    return not stopping.is_set()
