"""What is not kept: forged, another account's, too large, or come at a moment when it cannot be judged or written."""

import threading
from io import BytesIO

import pytest
from flask import Flask
from flask.testing import FlaskClient
from nacl.signing import SigningKey
from sqlalchemy import Engine
from werkzeug.test import TestResponse

from models.states import EditState
from tests.http.conftest import Away
from tests.support.factories import request_id
from tests.support.provider_callbacks import ACCOUNT, Provider, ok, refused
from tests.support.receiving import (
    deliver,
    deliveries,
    effect,
    kept,
    no_conversation,
    rejected,
    rows,
    running_app,
    submitted,
    unanswered,
    world,
)
from tests.support.servers import Wire
from webhook_receiver import jwks
from webhook_receiver.callbacks import Receiver
from webhook_receiver.settings import ReceiverSettings

STRANGER = SigningKey(bytes(32))
OTHER_ACCOUNT = "github|99999"


@pytest.fixture
def receiver(app: Flask) -> Receiver:
    """What the routes work with."""
    return app.extensions["darkroom"]


def forgeries(provider: Provider, body: bytes) -> dict[str, dict[str, str]]:
    """Headers that the provider did not make for this body, by what is wrong with them."""
    good = provider.headers(body, "r")
    return {
        "no headers at all": {},
        **{f"without {name}": {k: v for k, v in good.items() if k != name} for name in good if name.startswith("X-")},
        **{f"empty {name}": {**good, name: ""} for name in good if name.startswith("X-")},
        "signed by a stranger": provider.headers(body, "r", key=STRANGER),
        "signed for another body": provider.headers(body + b" ", "r"),
        "other request": {**good, "X-Fal-Webhook-Request-Id": "s"},
        "other account": {**good, "X-Fal-Webhook-User-Id": OTHER_ACCOUNT},
        "made fresh": {
            **provider.headers(body, "r", age=400),
            "X-Fal-Webhook-Timestamp": good["X-Fal-Webhook-Timestamp"],
        },
        "long header": {**good, "X-Fal-Webhook-User-Id": "x" * 7000},
        "no hexadecimal": {**good, "X-Fal-Webhook-Signature": "é" * 128},
    }


def test_forged_delivery_is_refused_and_counted(
    engine: Engine, client: FlaskClient, provider: Provider, receiver: Receiver
) -> None:
    """401, nothing kept, nothing moved, and not one word with the database; afterwards the count is written."""
    (one,) = unanswered(engine)
    before, body = world(engine), ok("r")
    attempts = forgeries(provider, body)

    with no_conversation(receiver.engine):
        for manner, headers in attempts.items():
            response = client.post(f"/webhooks/fal/{one.id}", data=body, headers=headers)
            assert response.status_code == 401, manner
    receiver.rejections.write()

    assert world(engine) == before
    assert kept(engine) == []
    assert rejected(engine) == {"bad_signature": len(attempts)}


def test_forgeries_fetch_no_keys(client: FlaskClient, provider: Provider, key_wire: Wire) -> None:
    """However many strangers knock, the key server is asked once."""
    for _ in range(20):
        assert client.post("/webhooks/fal/x", data=b"{}", headers=provider.headers(b"", "r")).status_code == 401

    assert len(key_wire.received) == 1


def test_rotated_key_is_fetched_on_a_miss(
    monkeypatch: pytest.MonkeyPatch, engine: Engine, client: FlaskClient, provider: Provider, key_wire: Wire
) -> None:
    """After a rotation the first delivery is refused for at most a minute; then a miss brings the new key."""
    first, second = submitted(engine, 2)
    deliver(client, provider, first.id, ok(request_id(first)), request_id(first))
    provider.key = STRANGER
    assert deliver(client, provider, second.id, ok(request_id(second)), request_id(second)).status_code == 401

    monkeypatch.setattr(jwks, "ASK_EVERY", 0.0)

    assert effect(deliver(client, provider, second.id, ok(request_id(second)), request_id(second))) == "applied"
    assert len(key_wire.received) == 2


def test_configured_account_wins(engine: Engine, provider: Provider, settings: ReceiverSettings) -> None:
    """With FAL_USER_ID no stranger teaches us who we are, not even the first; the table is not asked."""
    (one,) = submitted(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO provider_status (account, user_id) VALUES ('fal', 'somebody else')")
    letter = ok(request_id(one))

    with running_app(settings.model_copy(update={"fal_user_id": ACCOUNT})) as app:
        with no_conversation(app.extensions["darkroom"].engine):
            response = deliver(app.test_client(), provider, one.id, letter, request_id(one), account=OTHER_ACCOUNT)
        assert response.status_code == 403
        assert effect(deliver(app.test_client(), provider, one.id, letter, request_id(one))) == "applied"


def test_body_over_the_limit(
    engine: Engine, client: FlaskClient, provider: Provider, receiver: Receiver, settings: ReceiverSettings
) -> None:
    """413 one byte above CALLBACK_MAX_BYTES, whether its length is declared or not; at the limit it is kept."""
    (one,) = unanswered(engine)
    limit = settings.callback_max_bytes
    body = ok("r").ljust(limit + 1)

    def undeclared(body: bytes) -> TestResponse:
        stream = {"wsgi.input": BytesIO(body), "wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
        headers = provider.headers(body, "r")
        return client.post(f"/webhooks/fal/{one.id}", headers=headers, environ_overrides=stream)

    with no_conversation(receiver.engine):
        assert deliver(client, provider, one.id, body, "r").status_code == 413
        assert undeclared(body).status_code == 413
    receiver.rejections.write()
    assert rejected(engine) == {"too_large": 2}

    assert effect(undeclared(body[:limit])) == "applied"
    assert effect(deliver(client, provider, one.id, body[:limit], "r")) == "duplicate"
    assert [len(kept.body) for kept in deliveries(engine)] == [limit, limit]


def test_keys_unavailable(engine: Engine, client: FlaskClient, provider: Provider, receiver: Receiver) -> None:
    """Without keys nothing can be judged: 503, nothing kept or counted; the next delivery finds them and is applied."""
    (one,) = submitted(engine)
    provider.published = False
    letter = ok(request_id(one))
    with no_conversation(receiver.engine):
        assert deliver(client, provider, one.id, letter, request_id(one)).status_code == 503
    receiver.rejections.write()
    assert (kept(engine), rejected(engine)) == ([], {})

    provider.published = True
    receiver.keys._asked_at = float("-inf")

    assert effect(deliver(client, provider, one.id, letter, request_id(one))) == "applied"


def test_database_away(
    engine: Engine, client: FlaskClient, provider: Provider, receiver: Receiver, database_away: Away
) -> None:
    """503 while the database is away, before and after our account is known; the provider's next try loses nothing."""
    first, second = submitted(engine, 2)
    with database_away():
        assert deliver(client, provider, first.id, ok(request_id(first)), request_id(first)).status_code == 503
        assert client.get("/livez").status_code == 503
    assert effect(deliver(client, provider, first.id, ok(request_id(first)), request_id(first))) == "applied"
    deliver(client, provider, "x", ok("r"), "r")
    with database_away():
        assert deliver(client, provider, second.id, ok(request_id(second)), request_id(second)).status_code == 503

    assert effect(deliver(client, provider, second.id, ok(request_id(second)), request_id(second))) == "applied"

    assert kept(engine) == [("applied", first.id), ("orphan", None), ("applied", second.id)]
    assert client.get("/livez").status_code == 200


def test_rows_that_somebody_holds(engine: Engine, client: FlaskClient, provider: Provider) -> None:
    """A delivery waits for a transaction that holds its edit, then does what is right by then."""
    (one,) = submitted(engine)
    found: list[str] = []
    letter = ok(request_id(one))
    thread = threading.Thread(
        target=lambda: found.append(effect(deliver(client, provider, one.id, letter, request_id(one))))
    )
    with engine.begin() as connection:
        connection.exec_driver_sql("SELECT FROM edits FOR UPDATE")
        thread.start()
        thread.join(0.2)
        assert found == []
    thread.join(60)

    assert found == ["applied"]
    assert rows(engine, "SELECT state FROM edits") == [(EditState.READY,)]


def test_counts_survive_a_missing_database(
    engine: Engine, client: FlaskClient, receiver: Receiver, database_away: Away
) -> None:
    """What cannot be written now is kept for the next time, and adds up by hour and reason."""
    for _ in range(3):
        client.post("/webhooks/fal/x")
    with database_away():
        receiver.rejections.write()
    client.post("/webhooks/fal/x")
    receiver.rejections.write()
    client.post("/webhooks/fal/x")
    receiver.rejections.write()

    assert rows(engine, "SELECT hour = date_trunc('hour', now()), reason, count FROM rejected_callbacks") == [
        (True, "bad_signature", 5)
    ]


def test_counts_are_written_by_themselves(engine: Engine, client: FlaskClient, receiver: Receiver) -> None:
    """Within two seconds and in one go; with nothing to write the database is left alone."""
    for _ in range(10):
        client.post("/webhooks/fal/x")
    for _ in range(40):
        if rejected(engine):
            break
        threading.Event().wait(0.05)

    assert rejected(engine) == {"bad_signature": 10}
    with no_conversation(receiver.engine):
        receiver.rejections.write()


@pytest.mark.parametrize("path", ["/webhooks/fal/{id}/", "//webhooks/fal/{id}", "/webhooks//fal///{id}"])
def test_never_a_redirect(path: str, engine: Engine, client: FlaskClient, provider: Provider) -> None:
    """The provider takes a 3xx for a permanent failure: a slash too many is served, or refused so that it retries."""
    (one,) = submitted(engine)
    body = ok(request_id(one))

    response = client.post(path.format(id=one.id), data=body, headers=provider.headers(body, request_id(one)))

    assert response.status_code in (200, 404)
    if path.endswith("/"):
        assert effect(response) == "applied"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE"])
def test_only_post(method: str, client: FlaskClient, provider: Provider) -> None:
    """Any other method is 405 and names POST."""
    response = client.open("/webhooks/fal/x", method=method, headers=provider.headers(b"", "r"))

    assert response.status_code == 405
    assert "POST" in response.headers["Allow"]


@pytest.mark.parametrize(
    "type_", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"]
)
def test_content_type_does_not_matter(type_: str, engine: Engine, client: FlaskClient, provider: Provider) -> None:
    """The raw bytes count, however they are announced: no parser takes them away first."""
    (one,) = submitted(engine)
    body = refused(request_id(one))
    headers = {**provider.headers(body, request_id(one)), "Content-Type": type_}

    assert effect(client.post(f"/webhooks/fal/{one.id}", data=body, headers=headers)) == "applied"
