"""What a worker process holds open: built once per process, on first use, hence after Celery's fork.

A connection made before the fork would be shared by children that do not know of each other.
"""

import time
from collections.abc import Callable
from functools import cache
from multiprocessing import Event

from sqlalchemy import Engine

from models.database import make_engine
from models.settings import load
from worker.courier import Courier
from worker.fetch import Fetcher
from worker.listing import Listing
from worker.pricing import Pricing
from worker.queue_api import SUBMIT_TIMEOUT, QueueAPI
from worker.settings import WorkerSettings
from worker.signing import Signer
from worker.storage import Storage

TURN = 5.0
"""Seconds a lane's task claims before it makes room; the tick starts the next at once. Bounds how long a stop takes."""

stopping = Event()
"""Set when the worker is told to stop; shared with the children, so that no lane claims any more."""


@cache
def settings() -> WorkerSettings:
    """This process's settings."""
    return load(WorkerSettings)


@cache
def engine() -> Engine:
    """This process's connections: one for the lane, one for whatever runs beside it."""
    return make_engine(settings().database_url, application="darkroom worker", pool_size=2)


@cache
def queue() -> QueueAPI:
    """This process's client of the provider."""
    # a POST must be over long before its submission can be given up as dead
    return QueueAPI.of(settings(), submit_timeout=min(SUBMIT_TIMEOUT, settings().patience / 4))


@cache
def listing() -> Listing:
    """This process's client of the provider's listing."""
    return Listing(settings().fal_api_url, settings().required_key())


@cache
def pricing() -> Pricing:
    """This process's client of the provider's price list."""
    return Pricing(settings().fal_api_url, settings().required_key())


@cache
def fetcher() -> Fetcher:
    """This process's downloader."""
    return Fetcher(settings().fal_media_hosts, max_bytes=settings().picture_max_bytes)


@cache
def storage() -> Storage:
    """This process's store."""
    return Storage(settings().storage_url)


@cache
def courier() -> Courier:
    """This process's way to the callers."""
    return Courier(Signer(settings().notify_secrets), settings().notify_private_hosts)


def turn() -> Callable[[], bool]:
    """Says for `TURN` seconds from now that a lane may go on claiming, unless the worker stops."""
    until = time.monotonic() + TURN
    return lambda: time.monotonic() < until and not stopping.is_set()
