"""The paid POST: made once, whatever happens, and every outcome sorted into what may be done next."""

import gzip
import json
import socket
import ssl
import threading
import time
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from core.errors import AccountPaused, ProviderError, Refused, TryLater, UnknownOutcome, Unsent
from http_client import repeated_post, sessions
from provider import queue_api
from provider.preferences import Preferences
from provider.queue_api import QueueAPI
from tests.support.queueing import ARGUMENTS, ENDPOINT, KEY, NGINX, WEBHOOK, accepted, client, dripping, submit
from tests.support.servers import SOON, Peer, Script, closed_port, reply, serve

SAMPLES = sorted((Path(__file__).parents[2] / "samples").glob("submit_*"))


def test_request_as_it_is_sent() -> None:
    """One POST: the endpoint, the webhook as a query, the deadline, no fallback model, the input itself as body."""
    with serve(accepted) as wire:
        assert submit(wire.url) == "8f1c"

    (request,) = wire.received
    target = urlsplit(request.target)
    assert (request.method, target.path) == ("POST", f"/{ENDPOINT}")
    assert parse_qsl(target.query) == [("fal_webhook", WEBHOOK)]
    assert "://" not in target.query
    assert request.headers["authorization"] == f"Key {KEY}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-fal-request-timeout"] == "600"
    assert request.headers["x-app-fal-disable-fallback"] == "1"
    assert request.body == json.dumps(ARGUMENTS, ensure_ascii=False, separators=(",", ":")).encode()


def test_webhook_with_odd_characters() -> None:
    """The webhook arrives as it was given, whatever it holds; without one there is no query."""
    odd = "https://h/p?a=1&b=%2F#x +ä"
    with serve(accepted) as wire:
        client(wire.url).submit(ENDPOINT, {}, webhook_url=odd)
        client(wire.url).submit(ENDPOINT, {}, webhook_url=None)

    assert parse_qsl(urlsplit(wire.received[0].target).query) == [("fal_webhook", odd)]
    assert wire.received[1].target == f"/{ENDPOINT}"


@pytest.mark.parametrize(("seconds", "text"), [(600, "600"), (0.5, "0.5"), (1234567, "1.23457e+06"), (2.25, "2.25")])
def test_start_timeout_as_text(seconds: float, text: str) -> None:
    """Decimal text that the provider's float() reads back."""
    with serve(accepted) as wire:
        QueueAPI(wire.url, KEY, start_timeout=seconds).submit(ENDPOINT, {}, webhook_url=None)

    assert wire.received[0].headers["x-fal-request-timeout"] == text
    assert float(text) == pytest.approx(seconds, rel=1e-5)


@pytest.mark.parametrize("status", [200, 201, 202])
@pytest.mark.parametrize("extra", [b"", b', "gateway_request_id": "x", "status_url": "http://evil/"'])
def test_accepted(status: int, extra: bytes) -> None:
    """Any 2xx with a request id is an acceptance; nothing else of the reply is needed, and no URL of it is used."""
    with serve(lambda peer: peer.reply(status, b'{"request_id": "8f1c"' + extra + b"}")) as wire:
        assert submit(wire.url) == "8f1c"


def test_accepted_in_gzip() -> None:
    """A compressed reply is read."""
    body = gzip.compress(b'{"request_id": "8f1c"}')
    with serve(lambda peer: peer.reply(200, body, content_encoding="gzip")) as wire:
        assert submit(wire.url) == "8f1c"


def test_nobody_listens() -> None:
    """A refused connection: certainly not sent."""
    with pytest.raises(Unsent):
        submit(f"http://127.0.0.1:{closed_port()}")


@pytest.mark.parametrize("url", ["http://", "http://a..b", "http://*.x", "http://[bad", "x"])
def test_address_that_is_none(url: str) -> None:
    """What cannot even be built was certainly not sent."""
    with pytest.raises(Unsent):
        submit(url)


@pytest.mark.parametrize("key", ["id:secret\n", "id:secret\r\nX: y", "id:secretключ", "id:secret\0"])
def test_key_that_cannot_be_sent(key: str) -> None:
    """A key with a line break or the like is not sent, and not told either."""
    with serve(accepted) as wire:
        api = QueueAPI(wire.url, key, start_timeout=600)
        with pytest.raises(Unsent) as unsent:
            api.submit(ENDPOINT, {}, webhook_url=None)
        with pytest.raises(TryLater) as unasked:
            api.status(ENDPOINT, "8f1c")

    assert wire.received == []
    assert "secret" not in f"{unsent.value} {unsent.value.__cause__} {unasked.value} {unasked.value.__cause__}"


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64 + ".invalid", "xn--.invalid"])
def test_name_that_does_not_resolve(host: str) -> None:
    """No address, no connection: certainly not sent."""
    with pytest.raises(Unsent):
        submit(f"http://{host}")


def test_no_route(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that never answers the connection attempt: certainly not sent."""
    monkeypatch.setattr(repeated_post, "CONNECT_TIMEOUT", 0.2)
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as without_callbacks,
        socket.socket() as first,
        socket.socket() as second,
    ):
        for filler in (first, second):  # the backlog is full: a further attempt is left without an answer
            filler.setblocking(False)
            filler.connect_ex(without_callbacks.getsockname())
        with pytest.raises(Unsent):
            submit(f"http://127.0.0.1:{without_callbacks.getsockname()[1]}")


NO_TLS: dict[str, Script] = {
    "plain HTTP": lambda peer: peer.send(reply(400, b"plain HTTP here")),
    "closes": lambda peer: None,
    "resets": lambda peer: [peer.sock.recv(1), peer.reset()][1],
    "silent": lambda peer: peer.silence(),
}


@pytest.mark.parametrize("manner", NO_TLS)
def test_tls_handshake_that_fails(manner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a TLS session nothing of the request was sent."""
    if manner == "silent":
        monkeypatch.setattr(repeated_post, "CONNECT_TIMEOUT", 0.3)
    began = time.monotonic()
    with serve(NO_TLS[manner], reads=False) as wire, pytest.raises(Unsent):
        submit(f"https://127.0.0.1:{wire.port}")

    assert time.monotonic() - began < SOON


def test_untrusted_certificate() -> None:
    """Whoever cannot prove to be the provider gets nothing, least of all the key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Path(__file__).parents[2] / "certificates" / "stranger.pem")
    strange = serve(accepted, wrap=lambda sock: context.wrap_socket(sock, server_side=True))
    with strange as wire, pytest.raises(Unsent):
        submit(f"https://127.0.0.1:{wire.port}")

    assert (wire.connections, wire.received) == (1, [])


UNKNOWN: dict[str, Script] = {
    "closes without a word": lambda peer: None,
    "resets without a word": lambda peer: peer.reset(),
    "silent": lambda peer: peer.silence(),
    "resets in mid-reply": lambda peer: [peer.send(b"HTTP/1.1 200 OK\r\nContent-Len"), peer.reset()][1],
    "cut in mid-head": lambda peer: peer.send(b"HTTP/1.1 200 OK\r\nContent-Len"),
    "cut in mid-body": lambda peer: peer.send(reply(200, b'{"request_id": "8f1c"}', content_length="99")),
    "cut in mid-chunk": lambda peer: peer.send(
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n16\r\n{"request_id": "8f1c"}\r\n'
    ),
    "silent in mid-body": lambda peer: [
        peer.send(reply(200, b'{"re', content_length="99")),
        peer.silence(),
    ][0],
    "dripping": dripping,
    "no HTTP": lambda peer: peer.send(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "no gzip": lambda peer: peer.reply(200, b'{"request_id": "8f1c"}', content_encoding="gzip"),
    "two lengths": lambda peer: peer.send(
        b'HTTP/1.1 200 OK\r\nContent-Length: 22\r\nContent-Length: 5\r\n\r\n{"request_id": "8f1c"}'
    ),
    "over the limit": lambda peer: peer.reply(200, b'{"request_id": "8f1c"}'.ljust(queue_api.REPLY_MAX_BYTES + 1)),
    "bomb": lambda peer: peer.reply(200, gzip.compress(bytes(20_000_000)), content_encoding="gzip"),
    "endless headers": lambda peer: peer.send(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000),
    "empty": lambda peer: peer.reply(200),
    "no content": lambda peer: peer.reply(204),
    "HTML": lambda peer: peer.reply(200, b"<html>"),
    "a list": lambda peer: peer.reply(200, b"[]"),
    "null": lambda peer: peer.reply(200, b"null"),
    "a string": lambda peer: peer.reply(200, b'"request_id"'),
    "without request id": lambda peer: peer.reply(200, b'{"status": "IN_QUEUE"}'),
    "half a JSON": lambda peer: peer.reply(200, b'{"request_id": "8f1c", '),
    "nested too deeply": lambda peer: peer.reply(200, b"[" * 100_000),
    "not Unicode": lambda peer: peer.reply(200, b'{"request_id": "\xff\xfe"}'),
    "request id no text": lambda peer: peer.reply(200, b'{"request_id": 7}'),
    "request id empty": lambda peer: peer.reply(200, b'{"request_id": ""}'),
    "request id too long": lambda peer: peer.reply(200, b'{"request_id": "' + b"x" * 201 + b'"}'),
    "request id with NUL": lambda peer: peer.reply(200, b'{"request_id": "a\\u0000b"}'),
    "request id half a pair": lambda peer: peer.reply(200, b'{"request_id": "\\ud83e"}'),
    "500 JSON": lambda peer: peer.reply(500, b'{"detail": "Internal Server Error"}'),
    "503 typed": lambda peer: peer.reply(503, b'{"detail": "x", "error_type": "runner_scheduling_failure"}'),
    "504 with request id": lambda peer: peer.reply(504, b"{}", x_fal_request_id="8f1c"),
    "nginx 502": lambda peer: peer.reply(502, NGINX, content_type="text/html"),
    "408": lambda peer: peer.reply(408, b'{"detail": "Request timed out"}'),
    "409": lambda peer: peer.reply(409, b'{"detail": "Conflict"}'),
    "100 only": lambda peer: peer.send(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a 600": lambda peer: peer.send(b"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n"),
    "304": lambda peer: peer.reply(304),
}


CLOCKS = {
    "silent": (queue_api, "SUBMIT_TIMEOUT", 0.3),
    "silent in mid-body": (queue_api, "SUBMIT_TIMEOUT", 0.3),
    "dripping": (sessions, "BODY_TIMEOUT", 0.5),
}
"""The clock of the client that ends a reply, shrunk."""


@pytest.mark.parametrize("manner", UNKNOWN)
def test_outcome_unknown(manner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever may have been accepted is never sent again by itself: one connection, one request, UnknownOutcome."""
    if manner in CLOCKS:
        monkeypatch.setattr(*CLOCKS[manner])
    began = time.monotonic()
    with serve(UNKNOWN[manner]) as wire, pytest.raises(UnknownOutcome):
        submit(wire.url)

    assert (wire.connections, len(wire.received)) == (1, 1)
    assert time.monotonic() - began < SOON


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["{elsewhere}", "/other", "http://[bad", "//evil\\@x", ""])
def test_redirect_is_never_followed(status: int, location: str) -> None:
    """Not to another host, not to the same one: the key goes nowhere else, the outcome is unknown."""
    with serve(accepted) as elsewhere:
        place = location.format(elsewhere=elsewhere.url)
        with (
            serve(lambda peer: peer.reply(status, b"moved", location=place)) as wire,
            pytest.raises(UnknownOutcome),
        ):
            submit(wire.url)

    assert (len(wire.received), elsewhere.connections) == (1, 0)


def test_redirect_with_an_endless_body() -> None:
    """Not even the body of a redirect is read without a bound."""

    sent = threading.Event()

    def script(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /x\r\n\r\n")
        for _ in range(1000):
            peer.send(bytes(100_000))
        sent.set()

    with serve(script) as wire, pytest.raises(UnknownOutcome):
        submit(wire.url)

    assert not sent.is_set()


@pytest.mark.parametrize(("status", "reason"), [(401, "invalid_key"), (403, "locked"), (429, "rate_limited")])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"detail": "User is locked. Reason: Exhausted balance."}', "User is locked. Reason: Exhausted balance."),
        (b'{"detail": [{"type": "invalid_api_key", "msg": "no", "loc": ["body"]}]}', "body: no"),
        (NGINX, None),
        (b"", None),
    ],
    ids=["detail", "typed", "HTML", "empty"],
)
def test_account_is_refused(status: int, reason: str, body: bytes, message: str | None) -> None:
    """401, 403 and 429 are about the account, whatever the body: the reason is named, no edit is blamed."""
    with serve(lambda peer: peer.reply(status, body)) as wire, pytest.raises(AccountPaused) as caught:
        submit(wire.url)

    assert caught.value.reason == reason
    assert message is None or caught.value.message == message
    assert caught.value.message
    assert len(wire.received) == 1


@pytest.mark.parametrize(
    ("status", "body", "type_", "message"),
    [
        (400, b'{"detail": "bad", "error_type": "bad_request"}', "bad_request", "bad"),
        (404, b'{"detail": "Application \\"x\\" not found"}', "http_404", 'Application "x" not found'),
        (
            422,
            b'{"detail": [{"loc": ["body", "image_urls"], "msg": "Field required", "type": "missing"}]}',
            "missing",
            "image_urls: Field required",
        ),
        (413, NGINX, "http_413", "answered 413"),
        (422, b"", "http_422", "answered 422"),
        (405, b"\xff\xff", "http_405", "answered 405"),
    ],
)
def test_request_is_refused(status: int, body: bytes, type_: str, message: str) -> None:
    """Any other 4xx was certainly not accepted: final, with the provider's type and words."""
    with serve(lambda peer: peer.reply(status, body)) as wire, pytest.raises(Refused) as caught:
        submit(wire.url)

    assert (caught.value.status, caught.value.type) == (status, type_)
    assert message in caught.value.message
    assert len(wire.received) == 1


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_every_recorded_refusal_of_a_submit(sample: Path) -> None:
    """What the gateway says to a submit (provider-protocol 5.4) is an error that tells what to do."""
    status = int((sample / "status").read_text().split()[1])
    body = (sample / "body.json").read_bytes()
    with serve(lambda peer: peer.reply(status, body)) as wire, pytest.raises(ProviderError) as caught:
        submit(wire.url)

    expected = json.loads((sample / "expected.json").read_text())
    assert {"error": type(caught.value).__name__, **vars(caught.value)}.items() >= expected.items()
    assert len(wire.received) == 1


def test_preferences_as_they_are_sent() -> None:
    """Each preference is the header that the provider documents (provider-protocol 3.1); the defaults send none."""
    wanted = Preferences(priority="low", no_retry=True, store_io=False, output_expires_after=7200.0)
    with serve(accepted) as wire:
        for preferences in (None, wanted):
            api = QueueAPI(wire.url, KEY, start_timeout=600, preferences=preferences)
            api.submit(ENDPOINT, ARGUMENTS, webhook_url=None)

    plain, preferred = (request.headers for request in wire.received)
    added = {name: value for name, value in preferred.items() if name not in plain}
    assert json.loads(added.pop("x-fal-object-lifecycle-preference")) == {"expiration_duration_seconds": 7200}
    assert added == {"x-fal-queue-priority": "low", "x-fal-no-retry": "1", "x-fal-store-io": "0"}


def test_key_in_no_message() -> None:
    """No error tells the key, whatever went wrong."""
    messages = []
    for manner in ("resets without a word", "cut in mid-body", "nginx 502", "two lengths", "304"):
        script = UNKNOWN[manner]
        with serve(script) as wire, pytest.raises(ProviderError) as caught:
            submit(wire.url)
        messages.append(f"{caught.value} {caught.value.__cause__}")

    assert not [message for message in messages if "secret" in message]
