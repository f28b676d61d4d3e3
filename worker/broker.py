"""Ways to the broker for whoever asks it something: as Celery goes, and as redis-py goes."""

from typing import Any

import redis
from celery import Celery

from core.broker_url import parse_broker_url


def celery_client(url: str, **settings: Any) -> Celery:
    """A Celery application that only speaks to the broker.

    Raises:
        SettingsError: the address cannot be used.
    """
    app = Celery(set_as_current=False)
    app.conf.update({**parse_broker_url(url).celery_settings(), **settings})
    return app


def redis_client(url: str, *, timeout: float) -> "redis.Redis":
    """A client whose every question ends within `timeout` seconds.

    Raises:
        SettingsError: the address cannot be used.
    """
    address = parse_broker_url(url)
    return redis.Redis.from_url(
        address.url, socket_timeout=timeout, socket_connect_timeout=timeout, **(address.tls or {})
    )
