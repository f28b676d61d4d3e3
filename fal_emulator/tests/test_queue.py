"""The queue: submit, status, result and cancel behave as the protocol sheet says."""

import json

import pytest
import requests

from .emulator_process import EDIT, wait_for


def test_submit_names_the_application_only(emulator):
    """The reply carries the id and the three URLs in the short, app-only form."""
    job = emulator.submit()

    base = f"{emulator.url}/fal-ai/bytedance/requests/{job['request_id']}"
    assert job["status"] == "IN_QUEUE"
    assert job["queue_position"] == 0
    assert (base, f"{base}/status", f"{base}/cancel") == (job["response_url"], job["status_url"], job["cancel_url"])


def test_fal_hosts_get_fal_urls(emulator):
    """Under fal's Host header the reply names fal's hosts, and images lie on its CDN."""
    headers = {"Host": "queue.fal.run"}
    body = {"prompt": "x", "image_urls": ["https://v3b.fal.media/files/b/x/y.png"]}
    reply = emulator.post(f"/{EDIT}", headers=headers, json=body).json()
    path = reply["status_url"].removeprefix("https://queue.fal.run")

    assert reply["response_url"].startswith("https://queue.fal.run/fal-ai/bytedance/requests/")
    wait_for(lambda: emulator.get(path, headers=headers).status_code == 200)
    result = emulator.get(path.removesuffix("/status"), headers=headers).json()
    assert result["images"][0]["url"].startswith("https://v3b.fal.media/files/b/")


def test_hosts_have_their_own_routes(emulator):
    """fal's host names serve only their own part of the protocol, with or without a port."""
    assert emulator.get("/.well-known/jwks.json", headers={"Host": "queue.fal.run"}).status_code == 405
    assert emulator.get("/.well-known/jwks.json", headers={"Host": "rest.fal.ai"}).status_code == 200
    assert emulator.get("/v1/meta", headers={"Host": "api.fal.ai:443"}).status_code == 200
    assert emulator.get("/_emulator/state", headers={"Host": "api.fal.ai"}).status_code == 404


def test_life_of_a_request(make_emulator):
    """IN_QUEUE (202, position) -> IN_PROGRESS (202) -> COMPLETED (200, metrics); `logs` is always there."""
    emulator = make_emulator(concurrency=1, latency=0.25)
    first, second, third = (emulator.submit(seed=n) for n in range(3))

    waiting = emulator.status(third, logs="1")
    assert (
        waiting.status_code,
        waiting.json()["status"],
        waiting.json()["queue_position"],
    ) == (202, "IN_QUEUE", 1)
    assert waiting.json()["logs"] is None
    running = emulator.status(first, logs="true")
    assert (running.status_code, running.json()["status"]) == (202, "IN_PROGRESS")
    assert running.json()["logs"][0]["source"] == "USER"
    assert "queue_position" not in running.json()
    assert emulator.status(first, logs="0").json()["logs"] is None

    emulator.finish(second)
    done = emulator.status(first, logs="1")
    assert (done.status_code, done.json()["status"]) == (200, "COMPLETED")
    assert done.json()["metrics"]["inference_time"] >= 0.25
    assert done.json() == emulator.status(first, logs="1").json()
    assert "error" not in done.json()


@pytest.mark.parametrize("tail", ["", "/response"])
@pytest.mark.parametrize("app", ["fal-ai/bytedance", EDIT])
def test_result_in_every_url_form(emulator, app, tail):
    """The application alone or the whole endpoint id, with or without /response."""
    job = emulator.submit(seed=5)
    emulator.finish(job)

    reply = emulator.get(f"/{app}/requests/{job['request_id']}{tail}")
    assert reply.status_code == 200
    assert reply.json()["seed"] == 5
    assert job["request_id"] == reply.headers["x-fal-request-id"]
    assert reply.headers["X-Fal-Billable-Units"] == "1"


def test_result_is_repeatable_and_early_is_400(make_emulator):
    """Before completion 400; afterwards the same body as often as one asks."""
    emulator = make_emulator(latency=0.3)
    job = emulator.submit()

    early = emulator.get(job["response_url"])
    assert (early.status_code, early.json()) == (400, {"detail": "Request is still in progress"})
    assert emulator.finish(job).content == emulator.get(job["response_url"]).content


def test_unknown_ids(emulator):
    """An unknown id is 404 everywhere, and so is a right id under another application."""
    job = emulator.submit()
    emulator.finish(job)
    missing = "/fal-ai/bytedance/requests/00000000-0000-4000-8000-000000000000"

    assert emulator.get(f"{missing}/status").json() == {"status": "NOT_FOUND"}
    assert emulator.get(missing).json() == {"detail": "Request not found"}
    assert emulator.put(f"{missing}/cancel").status_code == 404
    assert emulator.get(f"/fal-ai/fast-sdxl/requests/{job['request_id']}").status_code == 404


def test_unknown_application_and_unknown_path(emulator):
    """An unknown application is refused at submit; an unknown path in a known one ends 404."""
    refused = emulator.submit_raw(endpoint="fal-ai/nobody", json={})
    assert (refused.status_code, refused.json()["detail"]) == (404, 'Application "fal-ai/nobody" not found')

    job = emulator.submit_raw(endpoint="fal-ai/bytedance/seedream/v9/edit", json={}).json()
    assert ((reply := emulator.finish(job)).status_code, reply.json()) == (404, {"detail": "Not found"})
    assert emulator.row(job)["charges"] == 0


@pytest.mark.parametrize(
    ("authorization", "detail"),
    [
        (None, "Cannot access application"),
        ("Key no-colon", "invalid key credentials"),
        ("Key other:key", "invalid key credentials"),
        ("Basic a:b", "invalid key credentials"),
        ("Bearer right:key", "JWT"),
    ],
)
def test_keys(make_emulator, authorization, detail):
    """Without the right key nothing is accepted, and fal's words say why."""
    emulator = make_emulator(key="right:key")
    headers = {"Authorization": authorization} if authorization else {}
    with requests.Session() as anonymous:
        reply = anonymous.post(f"{emulator.url}/{EDIT}", json={}, headers=headers, timeout=60)

    assert reply.status_code == 401
    assert detail in reply.json()["detail"]
    emulator.session.headers["Authorization"] = "Key right:key"
    assert emulator.ledger() == []
    assert emulator.submit()["request_id"]


def test_priority_and_order(make_emulator):
    """Low priority waits behind normal; each is first in, first out."""
    emulator = make_emulator(concurrency=0)
    low = emulator.submit(seed=1, headers={"X-Fal-Queue-Priority": "low"})
    one, two = emulator.submit(seed=2), emulator.submit(seed=3)

    assert [emulator.status(job).json()["queue_position"] for job in (low, one, two)] == [2, 0, 1]
    emulator.put("/_emulator/options", json={"concurrency": 1})
    for job in (low, one, two):
        emulator.finish(job)
    started = {row["seed"]: row["started_at"] for row in emulator.ledger()}
    assert started[2] < started[3] < started[1]


def test_concurrency_cap(make_emulator):
    """No more than the cap is IN_PROGRESS at once."""
    emulator = make_emulator(concurrency=2, latency=0.2)
    jobs = [emulator.submit(seed=n) for n in range(6)]

    states = [emulator.status(job).json()["status"] for job in jobs]
    assert states.count("IN_PROGRESS") <= 2
    assert states.count("IN_QUEUE") >= 4
    for job in jobs:
        emulator.finish(job)


def test_start_deadline(make_emulator, receiver):
    """A request that has not started by X-Fal-Request-Timeout ends with 504 startup_timeout, uncharged."""
    emulator = make_emulator(concurrency=0)
    job = emulator.submit(receiver.url, headers={"X-Fal-Request-Timeout": "0.2"})

    reply = emulator.finish(job)
    assert (reply.status_code, reply.json()["error_type"]) == (504, "startup_timeout")
    assert reply.headers["X-Fal-Request-Timeout-Type"] == "user"
    assert "startup_timeout" == reply.headers["X-Fal-Error-Type"] == emulator.status(job).json()["error_type"]
    body = json.loads(receiver.wait()[0][2])
    assert (body["status"], body["payload"]["error_type"]) == ("ERROR", "startup_timeout")
    assert (emulator.row(job)["charges"], emulator.row(job)["started_at"]) == (0, None)


def test_start_deadline_does_not_touch_what_started(make_emulator):
    """The deadline is for the start, not for the whole run."""
    emulator = make_emulator(latency=0.4)

    assert emulator.finish(emulator.submit(headers={"X-Fal-Request-Timeout": "0.15"})).status_code == 200


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Fal-Request-Timeout", "0.1"),
        ("X-Fal-Request-Timeout", "soon"),
        ("X-Fal-Request-Timeout", "inf"),
        ("X-Fal-Queue-Priority", "high"),
        ("X-Fal-Object-Lifecycle-Preference", "{broken"),
        ("X-Fal-Object-Lifecycle-Preference", '{"expiration_duration_seconds": -1}'),
        ("X-Fal-Object-Lifecycle-Preference", '{"initial_acl": {"default": "maybe"}}'),
    ],
)
def test_headers_that_make_no_sense(emulator, header, value):
    """A header that fal documents and that cannot be read is 400; nothing is accepted."""
    reply = emulator.submit_raw(json={"prompt": "x", "image_urls": ["data:,x"]}, headers={header: value})

    assert (reply.status_code, reply.json()["error_type"]) == (400, "bad_request")
    assert emulator.ledger() == []


def test_headers_are_recorded(emulator):
    """Hints and tags change nothing here, but one can see that they came."""
    job = emulator.submit(headers={"X-Fal-Runner-Hint": "H1", "X-Fal-Tags": "job=1"})

    assert {"X-Fal-Runner-Hint": "H1", "X-Fal-Tags": "job=1"}.items() <= emulator.row(job)["headers"].items()


def test_max_queue_length(make_emulator):
    """A queue longer than fal_max_queue_length is 429, and nothing is accepted."""
    emulator = make_emulator(concurrency=0, retry_after=7)
    emulator.submit()
    emulator.submit()
    body = {"prompt": "x", "image_urls": ["data:,x"]}

    assert emulator.submit_raw(json=body, params={"fal_max_queue_length": "2"}).status_code == 200
    refused = emulator.submit_raw(json=body, params={"fal_max_queue_length": "2"})
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "7")
    assert len(emulator.ledger()) == 3


def test_invalid_input_is_the_outcome(emulator):
    """422 comes from the model: accepted, COMPLETED, replayed by the result GET, not charged."""
    job = emulator.submit_raw(json={"prompt": "x"}).json()

    reply = emulator.finish(job)
    assert reply.status_code == 422
    assert (reply.json()["detail"][0]["type"], reply.json()["detail"][0]["loc"]) == ("missing", ["body", "image_urls"])
    assert (reply.headers["X-Fal-Billable-Units"], reply.headers["X-Fal-Needs-Retry"]) == ("0", "0")
    assert "error" not in emulator.status(job).json()
    assert emulator.row(job)["charges"] == 0


def test_invalid_input_may_be_refused_at_submit(make_emulator):
    """The other reading of an invalid input: 422 at once, and nothing is accepted."""
    emulator = make_emulator(validate_at_submit=True)

    assert emulator.submit_raw(json={"prompt": "x"}).status_code == 422
    assert emulator.ledger() == []


def test_cancel_in_the_queue(make_emulator, receiver):
    """200 OK, at once COMPLETED, the result is 499 client_cancelled, no charge, by default no webhook."""
    emulator = make_emulator(concurrency=0)
    job = emulator.submit(receiver.url)

    reply = emulator.put(job["cancel_url"])
    assert (reply.status_code, reply.json()) == (200, {"status": "OK"})
    result = emulator.finish(job)
    assert (result.status_code, result.json()["error_type"]) == (499, "client_cancelled")
    assert emulator.status(job).json()["error_type"] == "client_cancelled"
    again = emulator.put(job["cancel_url"])
    assert (again.status_code, again.json()) == (400, {"status": "ALREADY_COMPLETED"})
    assert (emulator.row(job)["charges"], emulator.row(job)["webhook"]["state"], receiver.deliveries) == (0, "none", [])


def test_cancel_while_running(make_emulator, receiver):
    """202, the run ends at its next pause; a webhook for it is a knob."""
    emulator = make_emulator(latency=5.0, webhook_on_cancel=True)
    job = emulator.submit(receiver.url)
    wait_for(lambda: emulator.status(job).json()["status"] == "IN_PROGRESS")

    reply = emulator.put(job["cancel_url"])
    assert (reply.status_code, reply.json()) == (202, {"status": "CANCELLATION_REQUESTED"})
    assert emulator.finish(job).status_code == 499
    assert json.loads(receiver.wait()[0][2])["status"] == "ERROR"


def test_cancelled_but_completed(make_emulator):
    """The race that a client must expect: the cancel is accepted, the run finishes and is charged."""
    emulator = make_emulator(latency=0.4)
    job = emulator.submit(prompt="x [[fault:finish_despite_cancel]]")
    wait_for(lambda: emulator.status(job).json()["status"] == "IN_PROGRESS")

    assert emulator.put(job["cancel_url"]).status_code == 202
    assert emulator.finish(job).status_code == 200
    assert emulator.row(job)["charges"] == 1


def test_results_expire(make_emulator):
    """An hour of the emulator's clock, six minutes from 10 KB on; then 404, while the status stays COMPLETED."""
    emulator = make_emulator(time_scale=1800.0)  # an hour is 2 s, six minutes are 0.2 s
    large, small = emulator.submit(seed=2, sync_mode=True, image_size="auto_4K"), emulator.submit(seed=1)
    wait_for(lambda: emulator.status(large).status_code == 200)

    wait_for(lambda: emulator.get(large["response_url"]).status_code == 404)
    assert emulator.get(large["response_url"]).json() == {"detail": "Request not found"}
    assert emulator.status(large).status_code == 200
    assert emulator.get(small["response_url"]).status_code == 200
    wait_for(lambda: emulator.get(small["response_url"]).status_code == 404)


def test_status_stream(make_emulator):
    """Server-sent events, one per change, closed after COMPLETED."""
    emulator = make_emulator(latency=0.3, concurrency=1)
    first, job = emulator.submit(), emulator.submit()
    with emulator.get(job["status_url"] + "/stream", params={"logs": "1"}, stream=True) as reply:
        assert reply.headers["Content-Type"] == "text/event-stream"
        events = [json.loads(line[6:]) for line in reply.iter_lines() if line.startswith(b"data: ")]

    states = [event["status"] for event in events]
    assert list(dict.fromkeys(states)) == ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
    assert emulator.get(first["response_url"]).status_code == 200


def test_every_reply_says_what_this_is(emulator):
    """The header, the page and the state say that this is an emulator and no AI."""
    page = emulator.get("/")
    assert "emulator" in page.headers["Server"]
    assert "No AI" in page.text
    assert "emulator" in emulator.get("/_emulator/state").json()["emulator"]
    assert "emulator" in emulator.get("/nothing/here").headers["Server"]


def test_live_knobs(emulator):
    """Latency and concurrency can be turned while it runs; other knobs are refused with a sentence."""
    assert emulator.put("/_emulator/options", json={"latency": 0.5, "concurrency": 3}).status_code == 200
    assert emulator.get("/_emulator/state").json()["options"]["latency"] == 0.5
    for wrong in ({"port": 1}, {"latency": -1}, {"image_mode": "beautiful"}, {"latency": "slow"}):
        refused = emulator.put("/_emulator/options", json=wrong)
        assert refused.status_code == 400
        assert refused.json()["detail"]
    assert emulator.put("/_emulator/options", data="nonsense").status_code == 400


def test_no_key_is_shown(make_emulator):
    """The state names no key."""
    emulator = make_emulator(key="kid:ksecret")

    assert "ksecret" not in emulator.get("/_emulator/state").text
