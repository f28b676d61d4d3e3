"""Webhooks: the signature byte by byte, the body's style, retries, and everything that ends them."""

import base64
import hashlib
import json
import socket
import time

import pytest
from nacl.signing import SigningKey, VerifyKey

from fal_emulator.signing import message, public_x, sign

from .emulator_process import wait_for

# The vector of provider-protocol 4.2; made with OpenSSL, not with this code.
VECTOR_BODY = (
    b'{"error": null, "gateway_request_id": "6a3e5e3c-0000-4000-8000-000000000001", "payload": {"images":'
    b' [{"url": "https://v3b.fal.media/files/b/x/y.png"}], "seed": 746406749}, "request_id":'
    b' "6a3e5e3c-0000-4000-8000-000000000001", "status": "OK"}'
)
VECTOR_SIGNATURE = (
    "9c369da17519c1675ee329ee89c6055339c5954833769ca703df152a611355fd"
    "8c3a77a1f8b7306ecf1bac7d3fbfaef9c72c05474e90df1a792c3df098fbda0b"
)


def keys_of(emulator):
    published = emulator.get("/.well-known/jwks.json").json()["keys"]
    return [VerifyKey(base64.urlsafe_b64decode(key["x"].rstrip("=") + "=")) for key in published]


def signed_by(key, headers, body):
    """Whether this key signed the delivery."""
    text = "\n".join(
        (
            headers["X-Fal-Webhook-Request-Id"],
            headers["X-Fal-Webhook-User-Id"],
            headers["X-Fal-Webhook-Timestamp"],
            hashlib.sha256(body).hexdigest(),
        )
    )
    try:
        key.verify(text.encode(), bytes.fromhex(headers["X-Fal-Webhook-Signature"]))
    except Exception:
        return False
    return True


def test_signature_vector():
    """The signature of the protocol sheet comes out to the last digit."""
    key = SigningKey(bytes(range(32)))
    request_id = "6a3e5e3c-0000-4000-8000-000000000001"

    assert len(VECTOR_BODY) == 241
    assert public_x(key, padded=True) == "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
    assert public_x(key, padded=True).rstrip("=") == public_x(key, padded=False)
    assert message(request_id, "github|12345", 1767225600, VECTOR_BODY) == (
        b"6a3e5e3c-0000-4000-8000-000000000001\ngithub|12345\n1767225600\n"
        b"2c09e8c0a3250000a5e17728e826ac17505b4593fa8b4d736482631ae54587df"
    )
    headers = sign(key, request_id, "github|12345", 1767225600, VECTOR_BODY)
    assert headers["X-Fal-Webhook-Signature"] == VECTOR_SIGNATURE
    assert headers["X-Fal-Webhook-Timestamp"] == "1767225600"


def test_a_delivery(emulator, receiver):
    """Signed with a published key, keys sorted, json.dumps spacing, the query string of the URL kept."""
    job = emulator.submit(receiver.url + "/hook?job=1&t=a%20b", seed=5)
    path, headers, body = receiver.wait()[0]

    assert path == "/hook?job=1&t=a%20b"
    assert headers["Content-Type"] == "application/json"
    assert job["request_id"] == headers["X-Fal-Webhook-Request-Id"]
    assert emulator.options.user_id == headers["X-Fal-Webhook-User-Id"]
    assert abs(int(headers["X-Fal-Webhook-Timestamp"]) - time.time()) < 5
    assert any(signed_by(key, headers, body) for key in keys_of(emulator))
    content = json.loads(body)
    assert json.dumps(content, sort_keys=True).encode() == body
    assert list(content) == ["error", "gateway_request_id", "payload", "request_id", "status"]
    assert (None, "OK", job["request_id"]) == (content["error"], content["status"], content["gateway_request_id"])
    assert emulator.finish(job).json() == content["payload"]
    wait_for(lambda: emulator.row(job)["webhook"]["state"] == "delivered")


def test_an_error_delivery(emulator, receiver):
    """A 422 is an ERROR with the model's own body as payload; a 404 uses the other spelling seen live."""
    emulator.submit_raw(receiver.url, json={"prompt": "x"})
    content = json.loads(receiver.wait()[0][2])
    assert (content["status"], content["error"]) == ("ERROR", "Invalid status code: 422")
    assert content["payload"]["detail"][0]["type"] == "missing"

    emulator.submit_raw(receiver.url, endpoint="fal-ai/bytedance/other", json={})
    assert json.loads(receiver.wait(2)[1][2])["error"] == "Unexpected status code: 404"


def test_retries_until_taken(make_emulator, receiver):
    """4xx and 5xx are retried with growing pauses; every attempt is signed afresh."""
    emulator = make_emulator(webhook_backoff=0.05)
    receiver.answers = [500, 401, 200]
    job = emulator.submit(receiver.url)
    deliveries = receiver.wait(3)

    first, second = receiver.times[1] - receiver.times[0], receiver.times[2] - receiver.times[1]
    assert first >= 0.05
    assert second >= 0.1
    assert all(any(signed_by(key, headers, body) for key in keys_of(emulator)) for _, headers, body in deliveries)
    wait_for(lambda: emulator.row(job)["webhook"]["state"] == "delivered")
    assert (emulator.row(job)["webhook"]["tries"], emulator.row(job)["webhook"]["status"]) == (3, 200)


def test_a_redirect_is_final(emulator, receiver):
    """3xx is never followed and never retried."""
    receiver.answers = [302]
    job = emulator.submit(receiver.url + "/a")

    wait_for(lambda: emulator.row(job)["webhook"]["state"] == "failed")
    assert [path for path, _, _ in receiver.deliveries] == ["/a"]


def test_at_most_31_retries(make_emulator, receiver):
    """One attempt and 31 retries, then silence."""
    emulator = make_emulator(webhook_backoff=0.001, webhook_backoff_factor=1.0)
    receiver.answers = [503]
    job = emulator.submit(receiver.url)

    wait_for(lambda: emulator.row(job)["webhook"]["state"] == "failed")
    assert 32 == emulator.row(job)["webhook"]["tries"] == len(receiver.deliveries)


def test_retries_end_with_the_result(make_emulator):
    """When the stored result expires, so does the last reason to deliver."""
    emulator = make_emulator(time_scale=7200.0)  # an hour is half a second
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens here
        job = emulator.submit(f"http://127.0.0.1:{taken.getsockname()[1]}/")
        wait_for(lambda: emulator.row(job)["webhook"]["state"] == "expired")

    assert emulator.row(job)["webhook"]["tries"] > 3


def test_a_slow_receiver_times_out(make_emulator, receiver):
    """An answer after the time limit counts as none: the delivery comes again."""
    emulator = make_emulator(webhook_first_timeout=0.2, webhook_backoff=0.01)
    receiver.answers = [0.5, 200]
    job = emulator.submit(receiver.url)

    receiver.wait(2)
    wait_for(lambda: emulator.row(job)["webhook"]["state"] == "delivered")
    assert emulator.row(job)["webhook"]["tries"] == 2


def test_a_slow_receiver_delays_nobody(emulator, receiver):
    """Deliveries to somebody else go on while one receiver sleeps."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(256)
        for _ in range(250):
            emulator.submit(f"http://127.0.0.1:{silent.getsockname()[1]}/")
        emulator.submit(receiver.url)
        receiver.wait(seconds=5)


def test_private_targets_can_be_banned(make_emulator, receiver):
    """As the real fal: loopback is dropped without any request."""
    emulator = make_emulator(allow_private_webhooks=False)
    jobs = [emulator.submit(receiver.url), emulator.submit(receiver.url.replace("127.0.0.1", "localhost"))]

    for job in jobs:
        wait_for(lambda job=job: emulator.row(job)["webhook"]["state"] == "refused")
    assert receiver.deliveries == []


@pytest.mark.parametrize("target", ["/relative", "ftp://x/y", "http://", "http://[broken"])
def test_targets_that_are_none(emulator, target):
    """A webhook URL that is none is refused at submit."""
    assert emulator.submit_raw(target, json={"prompt": "x"}).status_code == 400


def test_redeliver(emulator, receiver):
    """The same delivery once more, on demand."""
    job = emulator.submit(receiver.url)
    emulator.finish(job)
    receiver.wait()

    assert emulator.post(f"/_emulator/redeliver/{job['request_id']}").status_code == 202
    first, second = receiver.wait(2)
    assert first[2] == second[2]
    assert emulator.post("/_emulator/redeliver/nobody").status_code == 404


def test_rotation(emulator, receiver):
    """After a rotation the new key signs; the old one is published only on request."""
    old = keys_of(emulator)
    assert emulator.post("/_emulator/rotate-key").json()["published"] == 1
    assert keys_of(emulator) != old
    assert emulator.post("/_emulator/rotate-key", json={"keep_old": True}).json()["published"] == 2

    emulator.submit(receiver.url)
    _, headers, body = receiver.wait()[0]
    newest, previous = keys_of(emulator)
    assert signed_by(newest, headers, body)
    assert not signed_by(previous, headers, body)


def test_padding_of_the_published_key(make_emulator):
    """Padded as on the live service, unpadded on request."""
    padded = make_emulator(state="a").get("/.well-known/jwks.json").json()["keys"][0]
    bare = make_emulator(state="b", padded_jwks=False).get("/.well-known/jwks.json").json()["keys"][0]

    assert (padded["kty"], padded["crv"], len(padded["x"]), padded["x"].endswith("=")) == ("OKP", "Ed25519", 44, True)
    assert (len(bare["x"]), bare["x"].endswith("=")) == (43, False)
