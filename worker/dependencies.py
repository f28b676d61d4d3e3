"""What a worker process holds open: built once per process, on first use; its lanes run in threads and share it.

Nothing is opened when this file is imported: the local stack imports it once and forks its workers from there.
"""

import threading
from collections.abc import Callable
from functools import wraps
from typing import TypeVar

from sqlalchemy import Engine

from core.settings import load
from models.database import make_engine
from provider.listing import Listing
from provider.price_client import Pricing
from provider.queue_api import SUBMIT_TIMEOUT, QueueAPI
from storage.store import Storage
from worker.fetch import Fetcher
from worker.settings import WorkerSettings
from worker.webhook_sender import WebhookSender
from worker.webhook_signing import Signer

stopping = threading.Event()
"""Set when the worker is told to stop, so that no lane claims any more."""
LANES_AT_ONCE = 2
"""Tasks that one worker runs at one time, at most."""

Made = TypeVar("Made")
_making = threading.RLock()


def once(make: Callable[[], Made]) -> Callable[[], Made]:
    """Made on first use, then always the same, however many threads ask at once."""
    made: list[Made] = []

    @wraps(make)
    def get() -> Made:
        if not made:
            with _making:
                if not made:
                    made.append(make())
        return made[0]

    return get


@once
def settings() -> WorkerSettings:
    """This process's settings."""
    return load(WorkerSettings)


@once
def engine() -> Engine:
    """This process's connections: for each lane one, and one for whatever runs beside it."""
    return make_engine(settings().database_url, application="darkroom worker", pool_size=2 * LANES_AT_ONCE)


@once
def queue() -> QueueAPI:
    """This process's client of the provider."""
    # a POST must be over long before its submission can be given up as dead
    return QueueAPI.of(settings(), submit_timeout=min(SUBMIT_TIMEOUT, settings().unknown_deadline / 4))


@once
def listing() -> Listing:
    """This process's client of the provider's listing."""
    return Listing(settings().fal_api_url, settings().required_key())


@once
def pricing() -> Pricing:
    """This process's client of the provider's price list."""
    return Pricing(settings().fal_api_url, settings().required_key())


@once
def fetcher() -> Fetcher:
    """This process's downloader."""
    return Fetcher(settings().fal_media_hosts, max_bytes=settings().picture_max_bytes)


@once
def storage() -> Storage:
    """This process's store."""
    return Storage(settings().storage_url)


@once
def sender() -> WebhookSender:
    """This process's way to the callers."""
    return WebhookSender(Signer(settings().notify_secrets), settings().notify_private_hosts)


def time_slice() -> Callable[[], bool]:
    """Says that a lane may go on claiming, until the worker stops. How long a turn is, `lane_loop.py` knows."""
    return lambda: not stopping.is_set()
