"""The receiver's application (`create_app`); granian serves the buffering server before it (`create_server`)."""

from typing import Any

from flask import Flask

from buffering import BufferingServer, Limits
from core.logs import configure_logs
from core.settings import load
from core.tracing import start_tracing
from models.database import make_engine
from webhook_receiver.callbacks import ALONE, Receiver, install
from webhook_receiver.jwks import KeySet
from webhook_receiver.settings import ReceiverSettings

THREADS = 8
"""Deliveries judged at one time, per process; while they are recorded they hold no thread."""
CONNECTIONS = ALONE + 2
"""To the database: for deliveries by themselves, for the wave, and for the counts of what was turned away."""
AT_ONCE = 32 * 1024
"""Bytes of a body that is verified on the event loop; longer ones would hold it up. The provider's have about one
thousand."""
BODY_WITHIN = 15.0
"""Seconds for a whole body; the provider gives its first attempt no longer (provider-protocol 4.3)."""
HELD_MAX = 128 * 1024 * 1024
"""Bytes of bodies in memory at one time, each of which is held twice: as it came, and as it waits to be recorded; above
it the provider is asked to come again."""


def create_app(settings: ReceiverSettings | None = None) -> Flask:
    """The receiver, from the environment unless settings are handed in.

    Raises:
        SettingsError: a setting is missing or wrong.
    """
    settings = settings or load(ReceiverSettings)
    app = Flask("webhook_receiver", static_folder=None)
    # one byte more than is taken: a body of unknown length is cut there in silence, and `receive` must see that
    app.config["MAX_CONTENT_LENGTH"] = settings.callback_max_bytes + 1
    app.url_map.strict_slashes = app.url_map.merge_slashes = False  # a redirect would lose the delivery
    engine = make_engine(settings.database_url, application="darkroom receiver", pool_size=CONNECTIONS)
    install(app, Receiver(settings, engine, KeySet(settings.fal_jwks_url)))
    return app


def create_server() -> BufferingServer:
    """What granian serves: the application behind its buffering server.

    Raises:
        SettingsError: a setting is missing or wrong.
    """
    settings = load(ReceiverSettings)
    configure_logs()
    start_tracing("darkroom-receiver", settings)
    most = settings.callback_max_bytes
    limits = Limits(lambda _: most, most + 1, HELD_MAX, whole_within=BODY_WITHIN, idle_within=BODY_WITHIN)
    return BufferingServer(create_app(settings), limits, threads=THREADS, at_once=_is_tried_at_once)


def _is_tried_at_once(scope: Any, size: int) -> bool:
    return scope.method == "POST" and size <= AT_ONCE
