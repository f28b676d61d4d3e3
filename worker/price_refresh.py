"""The provider's own price, read now and then, unless one is configured; the accounts count with it."""

import structlog
from sqlalchemy import Engine

from core.errors import ProviderError
from models.provider import learn_price, price_is_older
from models.seedream import ENDPOINT
from provider.price_client import Pricing
from worker.settings import WorkerSettings

log = structlog.get_logger()

READ_EVERY = 6 * 3600.0
"""Seconds; prices change by announcement."""


def refresh(engine: Engine, pricing: Pricing, settings: WorkerSettings) -> None:
    """Ask for the price if nobody did lately; an answer that does not come leaves the last one standing."""
    if settings.price_per_image is not None:
        return
    with engine.begin() as connection:
        if not price_is_older(connection, READ_EVERY):
            return
    try:
        price = pricing.per_image(ENDPOINT)
    except ProviderError as error:
        log.info("price_not_read", reason=str(error))
        return
    with engine.begin() as connection:
        learn_price(connection, price)
    log.info("price_read", usd_per_image=str(price))
