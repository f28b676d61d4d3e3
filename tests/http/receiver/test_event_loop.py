"""What the event loop does by itself: take a delivery that needs nobody else. All else begins again in a thread."""

from typing import Any

import pytest
from flask import Flask, Response
from nacl.signing import SigningKey
from sqlalchemy import Engine

from buffering import NEEDS_THREAD
from tests.support.provider_callbacks import Provider, ok
from tests.support.receiving import rows, submitted
from webhook_receiver.callbacks import Receiver


@pytest.fixture
def receiver(app: Flask) -> Receiver:
    """It knows the account, from its settings, and the keys, once it has had a delivery."""
    receiver: Receiver = app.extensions["darkroom"]
    receiver.account()
    return receiver


def deliver_on_loop(app: Flask, provider: Provider, engine: Engine, **signing: Any) -> tuple[int, int]:
    """The status of one delivery, and how often it asked for a thread."""
    (submission,) = submitted(engine)
    request_id = f"request-{submission.id}"
    body, asked = ok(request_id), []

    def needs_thread() -> Response:
        asked.append(1)
        return Response(status=202)

    response = app.test_client().post(
        f"/webhooks/fal/{submission.id}",
        data=body,
        headers=provider.headers(body, request_id, **signing),
        environ_overrides={NEEDS_THREAD: needs_thread},
    )
    return response.status_code, len(asked)


def test_a_delivery_waits_for_nothing_once_the_keys_are_there(
    app: Flask, receiver: Receiver, provider: Provider, engine: Engine
) -> None:
    """The first one needs a thread, for its keys have to be fetched; the next ones are recorded as they come."""
    assert deliver_on_loop(app, provider, engine) == (202, 1)
    assert rows(engine, "SELECT count(*) FROM callbacks") == [(0,)]
    receiver.keys.current()
    assert deliver_on_loop(app, provider, engine) == (200, 0)
    assert rows(engine, "SELECT effect, count(*) FROM callbacks GROUP BY 1") == [("applied", 1)]


@pytest.mark.parametrize("signing", [{"key": SigningKey.generate()}, {"account": "somebody-else"}])
def test_what_is_refused_is_refused_in_a_thread(
    app: Flask, receiver: Receiver, provider: Provider, engine: Engine, signing: dict[str, Any]
) -> None:
    """A forged signature may be a new key, which is fetched; nothing of that is done, or counted, on the event loop."""
    receiver.keys.current()
    assert deliver_on_loop(app, provider, engine, **signing) == (202, 1)
    receiver.rejections.write()
    assert rows(engine, "SELECT count(*) FROM rejected_callbacks") == [(0,)]
