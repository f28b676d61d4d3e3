"""Every kind of fault can be chosen in all three ways: on the command line, by the admin route, in the prompt.

One tour through everything that a client can see, per kind and way; what differs from a tour without the fault must be
what that kind's moment is about.
"""

import hashlib
import json
import time

import pytest
import requests

from fal_emulator.__main__ import options_from
from fal_emulator.faults import TABLE

from .emulator_process import EDIT, RunningEmulator, wait_for
from .test_webhooks import keys_of, signed_by

SHORT = 0.3  # seconds
LISTING = "/v1/models/requests/by-endpoint"
TUNED = {
    **dict.fromkeys(("hang_after_accept", "slow_submit", "slow_status", "slow_result"), SHORT),
    **dict.fromkeys(("slow_listing", "slow_run"), SHORT),
    **dict.fromkeys(("delay_webhook", "reorder_webhook", "cdn_slow"), SHORT),
    "huge_body": 200_000,
    "cdn_oversized": 5_000,
}
SEEN_IN = {"submit": "submit", "reply": "submit", "shape": "result", "attempt": "delivery", "cdn": "file"}
TOLD_OTHERWISE = {
    "internal_retry": "delivery",
    "finish_despite_cancel": "result",
    "webhook_before_reply": "heard_first",
    "slow_run": "run",
}


SLOW = ("webhook_before_reply", "finish_despite_cancel")
LISTINGS = ("listing", "slow_listing")


def answer(emulator, method, url, **more):
    """What came back, as far as a client can tell; how long it took to the nearest interesting moment."""
    begun = time.monotonic()
    try:
        reply = emulator.call(method, url, **more)
    except requests.RequestException as error:
        return type(error).__name__, None
    late = time.monotonic() - begun >= SHORT
    return (reply.status_code, reply.headers.get("Content-Type"), late, len(reply.history)), reply


def fields(reply):
    """The names in a JSON body; None where there is none."""
    try:
        return sorted(reply.json())
    except (ValueError, AttributeError):
        return None


def tour(emulator, receiver, kind, prompt):
    """Submit, read, be called, download; what was seen, by the part of the protocol it was seen in."""
    slow = kind in SLOW
    emulator.put("/_emulator/options", json={"latency": 0.4 if slow else 0.0}).raise_for_status()
    receiver.deliveries.clear()
    receiver.times.clear()
    keys, before = keys_of(emulator), len(emulator.ledger())
    body = {"prompt": prompt, "image_urls": ["u"], "image_size": "square_hd", "num_images": 2}
    seen, reply = answer(emulator, "POST", f"/{EDIT}", params={"fal_webhook": receiver.url}, json=body)
    facts = {"submit": (seen, fields(reply)), "heard_first": slow and len(receiver.deliveries) > 0}
    if len(emulator.ledger()) == before:
        return facts
    request_id = emulator.ledger()[-1]["request_id"]
    base = f"/fal-ai/bytedance/requests/{request_id}"
    if kind == "finish_despite_cancel":
        emulator.put(f"{base}/cancel")
    job = {"request_id": request_id}
    wait_for(lambda: emulator.row(job)["state"] == "COMPLETED")
    wait_for(lambda: emulator.get("/_emulator/state").json()["counts"]["webhooks_owed"] == 0)
    row = emulator.row(job)
    facts["run"] = row["started_at"] is not None and row["ended_at"] - row["started_at"] >= SHORT
    if kind.startswith(LISTINGS):
        facts["listing"] = answer(emulator, "GET", f"{LISTING}?endpoint_id={EDIT}&limit=1")[0]
    facts["status"] = answer(emulator, "GET", f"{base}/status")[0]
    seen, reply = answer(emulator, "GET", base)
    images = emulator.row(job)["urls"]
    facts["result"] = (seen, fields(reply), [shown(emulator, image) for image in result_images(reply)])
    facts["delivery"] = [delivery(keys, *one) for one in receiver.deliveries], lateness(emulator.row(job), receiver)
    facts["file"] = download(emulator, images[0]) if images else None
    return facts


def result_images(reply):
    return reply.json().get("images", []) if reply is not None and reply.status_code == 200 else []


def shown(emulator, image):
    """The names of an image's fields, and whether what they declare is so."""
    size = len(emulator.get(image["url"] + "?unspoilt=1").content)
    return sorted(image), image.get("width") == 1024, image.get("file_size") == size


def delivery(keys, _path, headers, body):
    content = json.loads(body)
    return (
        any(signed_by(key, headers, body) for key in keys),
        headers["X-Fal-Webhook-User-Id"],
        abs(int(headers["X-Fal-Webhook-Timestamp"]) - time.time()) < 600,
        headers["X-Fal-Webhook-Request-Id"] == content["request_id"],
        content["request_id"] == content["gateway_request_id"],
        content["status"],
        content["payload"] is None,
        sorted(content),
    )


def lateness(row, receiver):
    """Whether the first delivery was a while after the end, and was about this request."""
    late = bool(receiver.times) and receiver.times[0] - row["ended_at"] >= SHORT
    ours = [headers["X-Fal-Webhook-Request-Id"] == row["request_id"] for _, headers, _ in receiver.deliveries]
    return late, ours


def download(emulator, url):
    seen, reply = answer(emulator, "GET", url)
    return seen, None if reply is None else hashlib.sha256(reply.content).hexdigest() in emulator.ledger()[-1]["sha256"]


def test_a_tour_without_a_fault(emulator, receiver):
    """Accepted at once, charged, called once, whole images as declared: what the tours below are compared with."""
    facts = tour(emulator, receiver, "", "x")

    assert facts["submit"][0][:2] == (200, "application/json; charset=utf-8")
    assert [image[1:] for image in facts["result"][2]] == [(True, True)] * 2
    assert [one[:5] for one in facts["delivery"][0]] == [(True, emulator.options.user_id, True, True, True)]
    assert facts["file"][1] is True


@pytest.fixture(scope="module")
def clean_tours():
    return {}


@pytest.fixture
def clean_tour(clean_tours, receiver, make_emulator):
    """What the tour of a kind sees without a fault: the same for all kinds that take the same tour."""

    def made(kind):
        which = kind if kind in SLOW else None, kind.startswith(LISTINGS)
        if which not in clean_tours:
            clean_tours[which] = tour(make_emulator(), receiver, kind, "none")
        return clean_tours[which]

    return made


@pytest.mark.parametrize("kind", TABLE)
def test_every_kind_in_every_way(kind, receiver, clean_tour, tmp_path):
    """Once by `--fault`, once by `PUT /_emulator/faults`, once by a marker; counted, and seen where it belongs."""
    spec = f"1*1@{TUNED[kind]}" if kind in TUNED else "1*1"
    quiet = ("--latency", "0", "--jitter", "0", "--image-mode", "plain", "--state-dir", str(tmp_path / "chosen"))
    options = options_from(["--fault", f"{kind}={spec}", *quiet])
    assert options
    moment = TABLE[kind].moment
    where = TOLD_OTHERWISE.get(kind) or ("result" if moment == "outcome" else SEEN_IN.get(moment, moment))
    emulator = RunningEmulator(options)
    try:
        ways = [tour(emulator, receiver, kind, "by command line")]
        emulator.put("/_emulator/faults", json={kind: spec}).raise_for_status()
        ways.append(tour(emulator, receiver, kind, "by route"))
        emulator.put("/_emulator/faults", json={}).raise_for_status()
        ways.append(tour(emulator, receiver, kind, f"by marker [[fault:{kind}{spec[1:]}]]"))
        counted = emulator.injected()
    finally:
        emulator.stop()

    clean = clean_tour(kind)
    assert counted == {kind: 3}
    assert [facts[where] == clean[where] for facts in ways] == [False] * 3
