"""Status, result, cancel: what each answer of the queue means, and that silence is never taken for a verdict."""

import gzip
import json
import threading
import time
from contextlib import ExitStack
from decimal import Decimal

import pytest

from core.errors import AccountPaused, Gone, TryLater
from http_client import sessions
from models.verdict import Kind, Retry
from provider import queue_api
from provider.queue_api import QueueAPI
from provider.status_stream import Status
from tests.support.queueing import ENDPOINT, KEY, NGINX, dripping
from tests.support.servers import SOON, Peer, Script, Wire, closed_port, serve

BASE = "/fal-ai/bytedance/requests/8f1c"
IMAGES = {"images": [{"url": "https://v3.fal.media/x.png", "width": 8, "height": 8, "file_size": 70}], "seed": 7}
ASK = {
    "status": lambda url, request="8f1c": QueueAPI(url, KEY, start_timeout=600).status(ENDPOINT, request),
    "result": lambda url, request="8f1c": QueueAPI(url, KEY, start_timeout=600).result(ENDPOINT, request),
    "cancel": lambda url, request="8f1c": QueueAPI(url, KEY, start_timeout=600).cancel(ENDPOINT, request),
}


def answering(status: int, body: object, **headers: str) -> Script:
    """A queue that always answers the same."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda peer: peer.reply(status, content, **headers)


@pytest.mark.parametrize(
    ("question", "method", "target"),
    [("status", "GET", f"{BASE}/status?logs=0"), ("result", "GET", BASE), ("cancel", "PUT", f"{BASE}/cancel")],
)
def test_question_as_it_is_sent(question: str, method: str, target: str) -> None:
    """Owner and app without the sub-path, the request id, the key; the URLs of replies play no part."""
    body = {"status": "COMPLETED", "images": [], "status_url": "http://evil/", "response_url": "http://evil/"}
    with serve(answering(200, body)) as wire:
        ASK[question](wire.url)

    (request,) = wire.received
    assert (request.method, request.target, request.body) == (method, target, b"")
    assert request.headers["authorization"] == f"Key {KEY}"


def test_logs_on_demand() -> None:
    """Logs are asked for only where somebody looks at them, and come as they are."""
    entry = {"message": "a", "level": "INFO", "source": "USER", "timestamp": "2026-01-01T00:00:00Z"}
    with serve(answering(202, {"status": "IN_PROGRESS", "logs": [entry]})) as wire:
        status = QueueAPI(wire.url, KEY, start_timeout=600).status(ENDPOINT, "8f1c", logs=True)

    assert wire.received[0].target.endswith("/status?logs=1")
    assert status.logs == [entry]


@pytest.mark.parametrize("request_id", ["../../x", "a/b?c#d", "ä ö", "%2e%2e", "a\nb"])
def test_odd_request_id_stays_in_its_place(request_id: str) -> None:
    """Whatever the provider called the request, it is one part of the path and cannot leave it."""
    with serve(answering(200, {"status": "COMPLETED"})) as wire:
        ASK["status"](wire.url, request_id)

    (request,) = wire.received
    assert request.target.startswith("/fal-ai/bytedance/requests/")
    assert request.target.count("/") == 5
    assert request.target.endswith("/status?logs=0")


@pytest.mark.parametrize(
    ("code", "body", "expected"),
    [
        (202, {"status": "IN_QUEUE", "queue_position": 3}, Status("IN_QUEUE", 3, None)),
        (202, {"status": "IN_PROGRESS", "logs": None}, Status("IN_PROGRESS", None, None)),
        (200, {"status": "COMPLETED", "metrics": {"inference_time": 7.42}}, Status("COMPLETED", None, 7.42)),
        (200, {"status": "COMPLETED", "metrics": None}, Status("COMPLETED", None, None)),
        (200, {"status": "COMPLETED", "error": "x"}, Status("COMPLETED", None, None, failed=True)),
        (200, {"status": "COMPLETED", "error_type": "x"}, Status("COMPLETED", None, None, failed=True)),
        (200, {"status": "IN_QUEUE"}, Status("IN_QUEUE", None, None)),
    ],
)
def test_status(code: int, body: dict[str, object], expected: Status) -> None:
    """What the queue says, with what it leaves out; only COMPLETED is the end, a failed request's too."""
    with serve(answering(code, body)) as wire:
        found = ASK["status"](wire.url)

    assert found == expected
    assert found.completed is (body["status"] == "COMPLETED")


@pytest.mark.parametrize("code", [204, 206, 301, 302, 307, 308, 400, 408, 409, 422, 500, 502, 503, 504])
def test_status_with_another_code(code: int) -> None:
    """On the status GET every other code is transport trouble, even with a body that says COMPLETED."""
    with serve(answering(code, {"status": "COMPLETED"}, location="/elsewhere")) as wire, pytest.raises(TryLater):
        ASK["status"](wire.url)

    assert len(wire.received) == 1


UNREADABLE = [
    b"",
    NGINX,
    b"[]",
    b"null",
    b"{}",
    b'"COMPLETED"',
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"status": "COMPLETED", "metrics": 5}',
    b'{"status": "COMPLETED", "logs": 5}',
]


@pytest.mark.parametrize("body", UNREADABLE, ids=range(len(UNREADABLE)))
def test_unreadable_status(body: bytes) -> None:
    """A 200 that is no status object says nothing."""
    with serve(answering(200, body)) as wire, pytest.raises(TryLater):
        ASK["status"](wire.url)


@pytest.mark.parametrize("question", ["status", "result"])
def test_gone(question: str) -> None:
    """404 is expired or forgotten."""
    with serve(answering(404, {"status": "NOT_FOUND"})) as wire, pytest.raises(Gone):
        ASK[question](wire.url)


@pytest.mark.parametrize("question", ASK)
@pytest.mark.parametrize(("code", "reason"), [(401, "invalid_key"), (403, "locked"), (429, "rate_limited")])
def test_account_is_refused(question: str, code: int, reason: str) -> None:
    """A complaint about the account is no verdict about the job."""
    with serve(answering(code, {"detail": "no"})) as wire, pytest.raises(AccountPaused) as caught:
        ASK[question](wire.url)

    assert (caught.value.reason, caught.value.message) == (reason, "no")


def test_result_with_images() -> None:
    """A success, compressed or not, brings its images as declared."""
    packed = gzip.compress(json.dumps(IMAGES).encode())
    for script in (answering(200, IMAGES), answering(200, packed, content_encoding="gzip")):
        with serve(script) as wire:
            verdict = ASK["result"](wire.url)
        assert (verdict.kind, verdict.seed) == (Kind.SUCCEEDED, 7)
        assert [(image.url, image.width, image.file_size) for image in verdict.images] == [
            ("https://v3.fal.media/x.png", 8, 70)
        ]


def test_result_says_what_was_billed() -> None:
    """The header of a result counts, and nonsense in it says nothing."""
    for text, units in (("2", Decimal(2)), ("many", None)):
        with serve(answering(200, IMAGES, x_fal_billable_units=text)) as wire:
            assert ASK["result"](wire.url).billable_units == units


def typed(name: str) -> dict[str, object]:
    return {"detail": [{"loc": ["body"], "msg": "no", "type": name}]}


@pytest.mark.parametrize(
    ("code", "body", "type_", "retry"),
    [
        (422, typed("image_too_large"), "image_too_large", "never"),
        (422, typed("file_download_error"), "file_download_error", "once"),
        (400, {"detail": "x", "error_type": "bad_request"}, "bad_request", "never"),
        (400, {"detail": "x", "error_type": "downstream_service_error"}, "downstream_service_error", "transient"),
        (500, typed("internal_server_error"), "internal_server_error", "transient"),
        (504, {"detail": "x", "error_type": "startup_timeout"}, "startup_timeout", "transient"),
        (503, {"detail": "x"}, "http_503", "transient"),
    ],
)
def test_result_that_replays_a_failure(code: int, body: object, type_: str, retry: str) -> None:
    """The job's own status and body come back on the result GET: a final verdict, with the provider's word."""
    with serve(answering(code, body, x_fal_request_id="8f1c")) as wire:
        verdict = ASK["result"](wire.url)

    assert (verdict.kind, verdict.error_type, verdict.retry) == (Kind.FAILED, type_, Retry(retry))


def test_type_in_the_header() -> None:
    """Where the body tells nothing the header names the failure."""
    with serve(answering(500, b"boom", x_fal_request_id="8f1c", x_fal_error_type="internal_error")) as wire:
        assert ASK["result"](wire.url).error_type == "internal_error"


def test_gateway_failure_is_believed_only_if_the_status_said_so() -> None:
    """A 5xx that does not come from the queue itself would have a success paid for again."""
    with serve(answering(500, typed("internal_server_error"))) as wire:
        api = QueueAPI(wire.url, KEY, start_timeout=600)
        with pytest.raises(TryLater):
            api.result(ENDPOINT, "8f1c")
        assert api.result(ENDPOINT, "8f1c", failed=True).error_type == "internal_server_error"


@pytest.mark.parametrize("code", [401, 403, 429])
@pytest.mark.parametrize("place", ["body", "header"])
def test_refusal_that_is_the_jobs_own(code: int, place: str) -> None:
    """The queue replays how the job ended, with its type: a verdict, not a complaint to be waited out."""
    body = {"detail": "no", **({"error_type": "bad_request"} if place == "body" else {})}
    headers = {"x_fal_error_type": "bad_request"} if place == "header" else {}
    with serve(answering(code, body, x_fal_request_id="8f1c", **headers)) as wire:
        assert ASK["result"](wire.url).error_type == "bad_request"
    with serve(answering(code, body, **headers)) as wire:
        api = QueueAPI(wire.url, KEY, start_timeout=600)
        with pytest.raises(AccountPaused):
            api.result(ENDPOINT, "8f1c")
        assert api.result(ENDPOINT, "8f1c", failed=True).error_type == "bad_request"


@pytest.mark.parametrize("code", [401, 403, 429])
def test_refusal_without_a_type_is_about_us(code: int) -> None:
    """Even under the queue's own header, even of a job that failed: it says nothing about how."""
    with serve(answering(code, {"detail": "User is locked."}, x_fal_request_id="8f1c")) as wire:
        api = QueueAPI(wire.url, KEY, start_timeout=600)
        for failed in (False, True):
            with pytest.raises(AccountPaused):
                api.result(ENDPOINT, "8f1c", failed=failed)


def test_result_of_a_cancelled_request() -> None:
    """499 is the end that we, or somebody, asked for."""
    body = b'{"detail": "x", "error_type": "client_cancelled"}'
    head = b"HTTP/1.1 499 Client Closed Request\r\nContent-Length: %d\r\n\r\n" % len(body)
    with serve(lambda peer: peer.send(head + body)) as wire:
        assert ASK["result"](wire.url).kind is Kind.CANCELLED


@pytest.mark.parametrize(
    ("code", "body"),
    [
        (400, {"detail": "Request is still in progress"}),
        (500, NGINX),
        (502, NGINX),
        (503, b""),
        (504, b"upstream request timeout"),
        (502, b"[]"),
    ],
)
def test_result_that_is_none(code: int, body: object) -> None:
    """Not finished after all, or a proxy's voice: asked again later."""
    with serve(answering(code, body)) as wire, pytest.raises(TryLater):
        ASK["result"](wire.url)


@pytest.mark.parametrize(
    ("code", "body"),
    [(200, NGINX), (200, b""), (200, {"images": None}), (302, b""), (408, b""), (422, NGINX), (400, b""), (204, b"")],
)
def test_result_that_tells_nothing(code: int, body: object) -> None:
    """Believing these would end a job that may have succeeded: unfetched, whatever the code."""
    with serve(answering(code, body)) as wire:
        assert ASK["result"](wire.url).kind is Kind.UNFETCHED


@pytest.mark.parametrize(
    ("code", "body", "taken"),
    [
        (202, {"status": "CANCELLATION_REQUESTED"}, True),
        (200, {"status": "OK"}, True),
        (200, {"success": True}, True),
        (400, {"status": "ALREADY_COMPLETED"}, False),
        (404, {"status": "NOT_FOUND"}, False),
    ],
)
def test_cancel(code: int, body: dict[str, object], taken: bool) -> None:
    """Whether the provider took the wish."""
    with serve(answering(code, body)) as wire:
        assert ASK["cancel"](wire.url) is taken


@pytest.mark.parametrize("code", [302, 500, 502, 503])
def test_cancel_that_nobody_took(code: int) -> None:
    """A code that says nothing about the wish does not count as taken."""
    with serve(answering(code, NGINX, location="/x")) as wire, pytest.raises(TryLater):
        ASK["cancel"](wire.url)


TROUBLE: dict[str, Script] = {
    "closes": lambda peer: None,
    "resets": lambda peer: peer.reset(),
    "silent": lambda peer: peer.silence(),
    "dripping": dripping,
    "cut": lambda peer: peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}"),
    "no HTTP": lambda peer: peer.send(b"hello\r\n\r\n"),
    "no gzip": lambda peer: peer.reply(200, b"{}", content_encoding="gzip"),
}


CLOCKS = {"silent": (queue_api, "ASK_TIMEOUT", 0.3), "dripping": (sessions, "BODY_TIMEOUT", 0.5)}
"""The clock of the client that ends an answer, shrunk."""


@pytest.mark.parametrize("question", ASK)
@pytest.mark.parametrize("manner", TROUBLE)
def test_no_whole_answer(question: str, manner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever breaks on the way is no answer: asked again later, by the lane and not by the client."""
    if manner in CLOCKS:
        monkeypatch.setattr(*CLOCKS[manner])
    began = time.monotonic()
    with serve(TROUBLE[manner]) as wire, pytest.raises(TryLater) as caught:
        ASK[question](wire.url)

    assert time.monotonic() - began < SOON
    assert len(wire.received) == 1
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("question", ASK)
def test_nobody_there(question: str) -> None:
    """No connection is no answer either."""
    with pytest.raises(TryLater):
        ASK[question](f"http://127.0.0.1:{closed_port()}")


@pytest.mark.parametrize("question", ASK)
def test_answer_over_the_limit(question: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is larger than any honest answer is dropped before it fills the memory."""
    monkeypatch.setattr(queue_api, "RESULT_MAX_BYTES", 100_000)
    monkeypatch.setattr(queue_api, "REPLY_MAX_BYTES", 100_000)
    sent = threading.Event()

    def endless(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(1000):
            peer.send(b" " * 100_000)
        sent.set()

    with serve(endless) as wire, pytest.raises(TryLater, match="longer than 100000 bytes"):
        ASK[question](wire.url)
    assert not sent.is_set()


def test_large_result_is_taken() -> None:
    """Images as data URIs make a result of megabytes."""
    body = {"images": [{"url": "data:image/png;base64," + "A" * 8_000_000}]}
    with serve(answering(200, body)) as wire:
        assert ASK["result"](wire.url).kind is Kind.SUCCEEDED


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirect_does_not_get_the_key(code: int) -> None:
    """No question follows a redirect: another host never sees the key."""
    with ExitStack() as stack:
        elsewhere = stack.enter_context(serve(answering(200, {"status": "COMPLETED"})))
        wire = stack.enter_context(serve(answering(code, b"", location=elsewhere.url)))
        for question in ("status", "cancel"):
            with pytest.raises(TryLater):
                ASK[question](wire.url)
        assert ASK["result"](wire.url).kind is Kind.UNFETCHED

    assert (len(wire.received), elsewhere.connections) == (3, 0)


def test_threads_do_not_share_connections() -> None:
    """Eight threads ask at once over one client: each gets its own answer."""

    def echo(peer: Peer) -> bool:
        number = peer.request.target.split("/")[4]
        time.sleep(0.01)
        return peer.reply(202, json.dumps({"status": number}).encode())

    found: dict[int, list[str]] = {}
    with serve(echo) as wire:
        api = QueueAPI(wire.url, KEY, start_timeout=600)

        def ask(number: int) -> None:
            found[number] = [api.status(ENDPOINT, str(number)).status for _ in range(5)]

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert found == {number: [str(number)] * 5 for number in range(8)}
    assert isinstance(wire, Wire)
    assert wire.connections == 8
