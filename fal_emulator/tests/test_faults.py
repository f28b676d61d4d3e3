"""Every fault can be seen from outside, is counted, and comes again for the same seed."""

import asyncio
import hashlib
import io
import json
import time

import pytest
import requests
import urllib3
from nacl.signing import VerifyKey
from PIL import Image

from fal_emulator.fault_plan import FaultPlan, read_rules
from fal_emulator.faults import TABLE, UnknownFault
from fal_emulator.store import Store
from fal_emulator.verdicts import MODEL_ERRORS, REQUEST_ERRORS

from .emulator_process import wait_for
from .test_webhooks import keys_of, signed_by

BODY = {"prompt": "x", "image_urls": ["u"]}


@pytest.fixture
def seen(emulator):
    """Checks at the end that the faults named by the test were counted."""
    kinds = []
    yield kinds.append
    for kind in kinds:
        assert emulator.injected().get(kind, 0) >= 1, kind


def body_with(kind):
    return {**BODY, "prompt": f"x [[fault:{kind}]]"}


@pytest.mark.parametrize(
    ("kind", "status", "word"),
    [
        ("refuse_500", 500, "Internal Server Error"),
        ("nginx_502_before", 502, "nginx"),
        ("busy_429", 429, "Too many"),
        ("bad_key_401", 401, "invalid key credentials"),
        ("locked_403", 403, "User is locked"),
    ],
)
def test_refused_before_acceptance(emulator, seen, kind, status, word):
    """The answer of fal's gateway, and nothing in the ledger."""
    seen(kind)
    reply = emulator.submit_raw(json=body_with(kind))

    assert status == reply.status_code
    assert word in reply.text
    assert "x-fal-request-id" not in reply.headers
    assert emulator.ledger() == []


def test_reset_before_acceptance(emulator, seen):
    """The connection breaks and nothing was accepted."""
    seen("reset_before_accept")
    with pytest.raises(requests.ConnectionError):
        emulator.submit_raw(json=body_with("reset_before_accept"))

    assert emulator.ledger() == []


@pytest.mark.parametrize("kind", ["reset_after_accept", "hang_after_accept@0.2"])
def test_no_answer_after_acceptance(emulator, seen, kind):
    """The client hears nothing, the request runs and is charged."""
    seen(kind.partition("@")[0])
    with pytest.raises(requests.ConnectionError):
        emulator.submit_raw(json=body_with(kind))

    wait_for(lambda: emulator.ledger()[0]["charges"] == 1)


@pytest.mark.parametrize("kind", ["nginx_502_after", "broken_json", "missing_fields"])
def test_a_useless_answer_after_acceptance(emulator, seen, kind, receiver):
    """An answer from which no request id can be read; the webhook still tells of the request."""
    seen(kind)
    reply = emulator.submit_raw(receiver.url + "/nonce", json=body_with(kind))
    if kind == "nginx_502_after":
        assert (reply.status_code, "nginx" in reply.text) == (502, True)
    elif kind == "missing_fields":
        assert (reply.status_code, "request_id" in reply.json()) == (200, False)
    else:
        assert reply.status_code == 200
        with pytest.raises(requests.JSONDecodeError):
            reply.json()

    assert receiver.wait()[0][0] == "/nonce"
    assert (1, [kind]) == (emulator.ledger()[0]["charges"], emulator.ledger()[0]["faults"])


def test_late_answers(emulator, seen):
    """Submit, status and result may take their time."""
    for kind in ("slow_submit", "slow_status", "slow_result"):
        seen(kind)
    emulator.put("/_emulator/faults", json=dict.fromkeys(("slow_submit", "slow_status", "slow_result"), "1@0.2"))
    begun = time.monotonic()
    job = emulator.submit()
    assert time.monotonic() - begun >= 0.2

    for url in (job["status_url"], job["response_url"]):
        begun = time.monotonic()
        assert emulator.get(url).status_code == 200
        assert time.monotonic() - begun >= 0.2


def test_webhook_before_the_reply(emulator, seen, receiver):
    """The receiver hears of the request before the client knows its id."""
    seen("webhook_before_reply")
    job = emulator.submit_raw(receiver.url, json=body_with("webhook_before_reply")).json()

    assert job["request_id"] == receiver.deliveries[0][1]["X-Fal-Webhook-Request-Id"]


@pytest.mark.parametrize(
    ("kind", "status", "url"),
    [
        ("status_500", 500, "status_url"),
        ("status_404", 404, "status_url"),
        ("result_500", 500, "response_url"),
        ("result_404", 404, "response_url"),
    ],
)
def test_reading_goes_wrong_for_a_while(emulator, seen, kind, status, url):
    """Trouble of the transport, not a verdict: no x-fal-request-id, and the truth comes back."""
    seen(kind)
    job = emulator.submit(prompt=f"x [[fault:{kind}*1]]")
    wait_for(lambda: emulator.row(job)["state"] == "COMPLETED")
    first = emulator.get(job[url])

    assert (status, False) == (first.status_code, "x-fal-request-id" in first.headers)
    assert emulator.get(job[url]).status_code == 200


@pytest.mark.parametrize("kind", [*MODEL_ERRORS, "downstream_service_error@400"])
def test_outcomes_of_the_model(emulator, seen, receiver, kind):
    """A typed error as result and webhook, COMPLETED as status, no charge; the value is another status."""
    error_type, _, status = kind.partition("@")
    seen(error_type)
    job = emulator.submit(receiver.url, prompt=f"[[fault:{kind}]]")
    reply = emulator.finish(job)
    entry = reply.json()["detail"][0]

    assert (int(status or MODEL_ERRORS[error_type].status), error_type) == (reply.status_code, entry["type"])
    assert set(entry) >= {"loc", "msg", "type"}
    assert reply.headers["X-Fal-Needs-Retry"] == str(int(MODEL_ERRORS[error_type].status >= 500))
    assert reply.json() == json.loads(receiver.wait()[0][2])["payload"]
    assert "error" not in emulator.status(job).json()
    assert emulator.row(job)["charges"] == 0


@pytest.mark.parametrize("kind", ["completed_with_error", *(kind for kind in REQUEST_ERRORS if kind in TABLE)])
def test_outcomes_of_the_infrastructure(emulator, seen, kind):
    """A failure of the infrastructure shows in the status, too, and in a header."""
    seen(kind)
    error_type = "runner_disconnected" if kind == "completed_with_error" else kind
    job = emulator.submit(prompt=f"[[fault:{kind}]]")
    reply = emulator.finish(job)

    assert (reply.status_code, reply.json()["error_type"]) == (REQUEST_ERRORS[error_type][0], error_type)
    assert reply.headers["X-Fal-Error-Type"] == error_type
    status = emulator.status(job).json()
    assert (status["status"], status["error_type"]) == ("COMPLETED", error_type)
    assert status["error"] == reply.json()["detail"]
    assert emulator.row(job)["charges"] == 0


def test_internal_retry(emulator, seen, receiver):
    """The queue runs it again by itself: another gateway id; X-Fal-No-Retry makes it a failure instead."""
    seen("internal_retry")
    job = emulator.submit(receiver.url, prompt="[[fault:internal_retry]]")
    content = json.loads(receiver.wait()[0][2])
    assert job["request_id"] == content["request_id"] != content["gateway_request_id"]
    assert (emulator.row(job)["attempts"], emulator.row(job)["charges"]) == (2, 1)

    single = emulator.submit(prompt="[[fault:internal_retry]]", headers={"X-Fal-No-Retry": "1"})
    assert emulator.finish(single).status_code == 503


def test_shapes_of_a_result(emulator, seen):
    """Fewer images, none, bare ones, and wrong declarations; charged is what was made."""

    def images(kind):
        seen(kind)
        return emulator.run(prompt=f"[[fault:{kind}]]", num_images=3, image_size="square_hd").json()["images"]

    assert len(images("fewer_images")) == 2
    assert images("no_images") == []
    assert [{"url"}] * 3 == [set(image) for image in images("bare_images")]
    wrong = images("wrong_dimensions")[0]
    assert Image.open(io.BytesIO(emulator.get(wrong["url"]).content)).size == (1024, 1024)
    assert (wrong["width"], wrong["height"]) != (1024, 1024)
    wrong = images("wrong_size")[0]
    assert len(emulator.get(wrong["url"]).content) != wrong["file_size"]


def test_dropped_and_doubled_deliveries(emulator, seen, receiver):
    """One webhook never comes, another comes twice."""
    seen("drop_webhook")
    seen("duplicate_webhook")
    dropped = emulator.submit(receiver.url + "/a", prompt="[[fault:drop_webhook]]")
    wait_for(lambda: emulator.row(dropped)["webhook"]["state"] == "dropped")
    emulator.submit(receiver.url + "/b", prompt="[[fault:duplicate_webhook]]")

    assert [path for path, _, _ in receiver.wait(2)] == ["/b", "/b"]


def test_late_and_overtaken_deliveries(emulator, seen, receiver):
    """One webhook comes late, another one after a later request's."""
    seen("delay_webhook")
    seen("reorder_webhook")
    begun = time.time()
    emulator.submit(receiver.url + "/late", prompt="[[fault:delay_webhook@0.3]]")
    receiver.wait()
    assert receiver.times[0] - begun >= 0.3

    first = emulator.submit(receiver.url + "/first", prompt="[[fault:reorder_webhook]]")
    emulator.finish(first)
    emulator.submit(receiver.url + "/second")
    assert [path for path, _, _ in receiver.wait(3)[1:]] == ["/second", "/first"]


def deliver(emulator, receiver, kind):
    emulator.submit(receiver.url, prompt=f"[[fault:{kind}]]")
    _, headers, body = receiver.wait()[0]
    return headers, body, any(signed_by(key, headers, body) for key in keys_of(emulator))


@pytest.mark.parametrize(("kind", "valid"), [("wrong_key", False), ("tampered_body", False), ("other_user", True)])
def test_signatures_that_prove_nothing(emulator, seen, receiver, kind, valid):
    """A key that is not published, a body changed afterwards, another account."""
    seen(kind)
    headers, body, signed = deliver(emulator, receiver, kind)

    assert valid == signed
    assert (kind == "other_user") == (headers["X-Fal-Webhook-User-Id"] != emulator.options.user_id)
    assert json.loads(body)["status"] == "OK"


def test_rotated_key(emulator, seen, receiver):
    """Whoever cached the keys has to fetch them again."""
    seen("rotated_key")
    cached: list[VerifyKey] = keys_of(emulator)
    headers, body, signed = deliver(emulator, receiver, "rotated_key")

    assert signed
    assert not any(signed_by(key, headers, body) for key in cached)


def test_stale_timestamp(emulator, seen, receiver):
    """Validly signed, but an hour old."""
    seen("stale_timestamp")
    headers, _, signed = deliver(emulator, receiver, "stale_timestamp")

    assert signed
    assert int(headers["X-Fal-Webhook-Timestamp"]) < time.time() - 3000


@pytest.mark.parametrize(("kind", "status"), [("payload_error", "OK"), ("null_payload", "OK"), ("null_error", "ERROR")])
def test_bodies_without_a_payload(emulator, seen, receiver, kind, status):
    """Three ways of saying nothing; the result GET has it all the same."""
    seen(kind)
    _, body, signed = deliver(emulator, receiver, kind)
    content = json.loads(body)

    assert (True, status, None) == (signed, content["status"], content["payload"])
    assert (kind == "payload_error") == ("payload_error" in content)


@pytest.mark.parametrize("kind", ["mismatched_id", "foreign_id"])
def test_deliveries_about_somebody_else(emulator, seen, receiver, kind):
    """The body names another request than the header, or both name an unknown one."""
    seen(kind)
    headers, body, signed = deliver(emulator, receiver, kind)
    ours = emulator.ledger()[0]["request_id"]

    assert signed
    assert ours != json.loads(body)["request_id"]
    assert (kind == "mismatched_id") == (headers["X-Fal-Webhook-Request-Id"] == ours)


def test_huge_body(emulator, seen, receiver):
    """As large as one likes, and validly signed."""
    seen("huge_body")
    _, body, signed = deliver(emulator, receiver, "huge_body@3000000")

    assert signed
    assert len(body) > 3_000_000


def sample(emulator, kind):
    job = emulator.submit(prompt=f"[[fault:{kind}]]")
    image = emulator.finish(job).json()["images"][0]
    return emulator.row(job)["sha256"][0], image


@pytest.mark.parametrize(
    "kind", ["cdn_404", "cdn_403", "cdn_html", "cdn_wrong_type", "cdn_corrupt", "cdn_oversized@99999"]
)
def test_downloads_that_are_no_good(emulator, seen, kind):
    """Each answer is whole, and none is the image that was declared."""
    seen(kind.partition("@")[0])
    sha256, image = sample(emulator, kind)
    reply = emulator.get(image["url"])
    expected = {"cdn_404": 404, "cdn_403": 403}.get(kind, 200)
    kept_type = kind in ("cdn_corrupt", "cdn_oversized@99999")

    assert expected == reply.status_code
    assert kept_type == (reply.headers["Content-Type"] == "image/png")
    assert (kind == "cdn_wrong_type") == (hashlib.sha256(reply.content).hexdigest() == sha256)
    if kind == "cdn_corrupt":
        assert image["file_size"] == len(reply.content)
    if kind == "cdn_oversized@99999":
        assert image["file_size"] + 99_999 == len(reply.content)


def test_a_download_that_breaks_off(emulator, seen):
    """The declared length never comes."""
    seen("cdn_truncated")
    _, image = sample(emulator, "cdn_truncated")

    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        emulator.get(image["url"])


def test_a_download_that_breaks_off_and_can_be_gone_on_with(emulator, seen):
    """The declared length never comes, but the rest does, of this version of the file alone."""
    seen("cdn_cut")
    sha256, image = sample(emulator, "cdn_cut*1")
    cut = emulator.get(image["url"], stream=True)
    came, etag = cut.raw.read(image["file_size"] // 2), cut.headers["ETag"]
    with pytest.raises(urllib3.exceptions.ProtocolError):
        cut.raw.read()

    rest = {"Range": f"bytes={len(came)}-", "If-Range": etag}
    part = emulator.get(image["url"], headers=rest)
    assert (part.status_code, part.headers["ETag"]) == (206, etag)
    assert part.headers["Content-Range"] == f"bytes {len(came)}-{image['file_size'] - 1}/{image['file_size']}"
    assert sha256 == hashlib.sha256(came + part.content).hexdigest()
    assert emulator.get(image["url"]).headers["ETag"] == etag
    other = emulator.get(image["url"], headers={**rest, "If-Range": '"another"'})
    assert (other.status_code, len(other.content)) == (200, image["file_size"])
    assert emulator.get(image["url"], headers={"Range": "bytes=999999999-"}).status_code == 416
    assert emulator.get(image["url"], headers={"Range": "nonsense"}).status_code == 200


def test_a_download_in_drops(emulator, seen):
    """Whole in the end."""
    seen("cdn_slow")
    sha256, image = sample(emulator, "cdn_slow@0.3")
    begun = time.monotonic()

    assert sha256 == hashlib.sha256(emulator.get(image["url"]).content).hexdigest()
    assert time.monotonic() - begun >= 0.25


def test_a_redirected_download(emulator, seen):
    """One hop, then the image."""
    seen("cdn_redirect")
    sha256, image = sample(emulator, "cdn_redirect")
    assert emulator.get(image["url"], allow_redirects=False).status_code == 302

    assert sha256 == hashlib.sha256(emulator.get(image["url"]).content).hexdigest()


def test_finish_despite_cancel(emulator, seen):
    """Counted like all others; what it does is shown with the cancels."""
    seen("finish_despite_cancel")
    emulator.run(prompt="[[fault:finish_despite_cancel]]")


def test_unknown_kinds_are_refused(emulator):
    """With a sentence, wherever they are named."""
    for given in ({"nonsense": 1}, {"cdn_404": 2}, {"cdn_404": "often"}, {"cdn_404": {"chance": 1}}):
        reply = emulator.put("/_emulator/faults", json=given)
        assert reply.status_code == 400
        assert len(reply.json()["detail"]) > 20
    for kind in ("nonsense", "No-Such", "cdn_404*x", "cdn_404@"):
        assert emulator.submit_raw(json=body_with(kind)).status_code == 400
    refused = emulator.submit_raw(json=body_with("nonsense"))
    assert (refused.status_code, "nonsense" in refused.json()["detail"]) == (400, True)
    with pytest.raises(UnknownFault):
        read_rules({"nonsense": 0.5})


def test_rules_at_run_time(emulator):
    """Rates are set and cleared by PUT; what was counted stays counted."""
    emulator.put("/_emulator/faults", json={"refuse_500": {"rate": 1, "times": 2}})
    assert [emulator.submit_raw(json=BODY).status_code for _ in range(3)] == [500, 500, 200]
    emulator.put("/_emulator/faults", json={"busy_429": 1})
    assert emulator.submit_raw(json=BODY).status_code == 429
    emulator.put("/_emulator/faults", json={})
    assert emulator.submit_raw(json=BODY).status_code == 200

    assert emulator.injected() == {"refuse_500": 2, "busy_429": 1}


def test_the_same_seed_gives_the_same_plan(make_emulator):
    """The n-th draw of a kind depends on the seed alone; counts survive a restart."""

    def pattern(state, seed):
        emulator = make_emulator(state=state, fault={"refuse_500": "0.4"}, fault_seed=seed)
        answers = [emulator.submit_raw(json=BODY).status_code for _ in range(25)]
        emulator.stop()
        return answers

    first = pattern("a", 7)
    assert 4 < first.count(500) < 18
    assert first == pattern("b", 7)
    assert first != pattern("c", 8)
    assert first.count(500) == make_emulator(state="a").injected()["refuse_500"]


def test_counted_markers(emulator):
    """`*2` fires twice for the same prompt and images, and afresh for others."""
    body = {**BODY, "prompt": "y [[fault:busy_429*2]]"}
    assert [emulator.submit_raw(json=body).status_code for _ in range(3)] == [429, 429, 200]

    assert emulator.submit_raw(json={**body, "image_urls": ["other"]}).status_code == 429


def test_rates_are_kept(tmp_path):
    """Over many draws the share of faults is the rate."""

    async def share():
        store = Store(tmp_path)
        plan = FaultPlan(store, 1, {"cdn_404": 0.2})
        found = sum(plan.draw("cdn") is not None for _ in range(2000))
        store.close()
        return found / 2000

    assert 0.17 < asyncio.run(share()) < 0.23
