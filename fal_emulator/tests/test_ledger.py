"""The ledger and the platform API: one charge per image per accepted POST that succeeded."""

import asyncio
import hashlib
import json
import time
from datetime import UTC, datetime, timedelta

import pytest
import requests

from fal_emulator.job import Job, Verdict
from fal_emulator.ledger import Ledger
from fal_emulator.store import Store

from .emulator_process import EDIT, wait_for
from .test_input import GOOD

LISTING = "/v1/models/requests/by-endpoint"


def listed(emulator, **params):
    return emulator.get(LISTING, params={"endpoint_id": EDIT, **params}).json()["items"]


def test_one_charge_per_image(emulator):
    """Successes are charged by what came back; refusals, 5xx and cancels are not."""
    jobs = {
        "two": emulator.submit(num_images=2),
        "six": emulator.submit(num_images=2, max_images=3),
        "invalid": emulator.submit(num_images=99),
        "refused": emulator.submit(prompt="[[fault:content_policy_violation]]"),
        "broken": emulator.submit(prompt="[[fault:internal_server_error]]"),
        "fewer": emulator.submit(num_images=3, prompt="[[fault:fewer_images]]"),
        "none": emulator.submit(prompt="[[fault:no_images]]"),
        "foreign": emulator.submit_raw(endpoint="fal-ai/bytedance/x", json={}).json(),
    }
    for job in jobs.values():
        emulator.finish(job)

    charges = {name: emulator.row(job)["charges"] for name, job in jobs.items()}
    assert charges == {
        "two": 2,
        "six": 6,
        "invalid": 0,
        "refused": 0,
        "broken": 0,
        "fewer": 2,
        "none": 0,
        "foreign": 0,
    }
    totals = emulator.get("/_emulator/ledger").json()["totals"]
    assert (
        totals["accepted"],
        totals["completed"],
        totals["images"],
        totals["charges"],
        totals["in_progress"],
    ) == (8, 8, 10, 10, 0)


def test_credit(make_emulator):
    """A spent account is locked for new work, on both hosts, until somebody pays."""
    emulator = make_emulator(credits=0.06)
    emulator.run(num_images=2)
    refused = emulator.submit_raw(json=GOOD)
    assert (refused.status_code, "User is locked" in refused.json()["detail"]) == (403, True)
    assert emulator.post(f"/{EDIT}", json=GOOD, headers={"Host": "fal.run"}).status_code == 403
    assert len(emulator.ledger()) == 1
    emulator.put("/_emulator/options", json={"credits": 1.0})
    assert emulator.submit()["request_id"]


def test_every_post_is_a_new_request(emulator):
    """There is no idempotency: the same body twice is two requests and two charges."""
    first, second = emulator.submit(seed=1), emulator.submit(seed=1)
    emulator.finish(first)
    emulator.finish(second)

    assert first["request_id"] != second["request_id"]
    assert [row["charges"] for row in emulator.ledger()] == [1, 1]


def test_a_row_tells_everything(emulator, receiver):
    """Webhook URL, seed, outcome, the hash of every produced file, and the times."""
    job = emulator.submit(receiver.url + "/n", seed=11, num_images=2)
    images = emulator.finish(job).json()["images"]
    wait_for(lambda: emulator.row(job)["webhook"]["state"] == "delivered")

    row = emulator.row(job)
    assert (receiver.url + "/n", 11, 200, 2) == (row["webhook_url"], row["seed"], row["outcome"], row["images"])
    assert [hashlib.sha256(emulator.get(i["url"]).content).hexdigest() for i in images] == row["sha256"]
    assert len(set(row["sha256"])) == 2
    assert row["submitted_at"] <= row["started_at"] <= row["ended_at"] <= row["webhook"]["delivered_at"]


def test_a_row_tells_what_was_asked_for_and_read(emulator):
    """The hash of the whole input, whatever its spacing; how often result and files were served whole, or spoilt."""
    body = {"prompt": "x [[fault:result_404*1]] [[fault:cdn_truncated*1]]", "image_urls": ["u"], "num_images": 2}
    job = emulator.submit_raw(data=json.dumps(body, indent=2), headers={"Content-Type": "application/json"}).json()
    wait_for(lambda: emulator.row(job)["state"] == "COMPLETED")
    row = emulator.row(job)
    compact = json.dumps(body, sort_keys=True, separators=(",", ":"))
    assert row["input_sha256"] == hashlib.sha256(compact.encode()).hexdigest()
    assert row["reads"]["result"] == {"intact": 0, "spoilt": 0, "first_at": None}

    assert [emulator.get(job["response_url"]).status_code for _ in "12"] == [404, 200]
    with pytest.raises(requests.RequestException):
        emulator.get(row["urls"][0])
    emulator.get(row["urls"][0])
    reads = emulator.row(job)["reads"]
    assert (reads["result"]["intact"], reads["result"]["spoilt"]) == (1, 1)
    assert [(one["intact"], one["spoilt"]) for one in reads["files"]] == [(1, 1), (0, 0)]
    assert reads["files"][0]["first_at"] >= reads["result"]["first_at"] >= row["ended_at"]


def test_a_page_may_be_short(make_emulator):
    """A page holds fewer than were asked for and names a cursor; nothing is missing at the end."""
    emulator = make_emulator(listing_page=2, concurrency=1)  # they end in the order of their submits
    jobs = [emulator.submit(seed=n) for n in range(5)]
    for job in jobs:
        emulator.finish(job)
    found, cursor = [], None
    while True:
        params = {"endpoint_id": EDIT, "limit": 100, **({"cursor": cursor} if cursor else {})}
        page = emulator.get(LISTING, params=params).json()
        assert len(page["items"]) <= 2
        found += [item["request_id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if not cursor:
            break
    assert found == [job["request_id"] for job in reversed(jobs)]


def test_a_listing_may_refuse(emulator):
    """Once where a page would show the marked request, then as ever."""
    emulator.finish(emulator.submit(prompt="[[fault:listing_401*1]]"))
    answers = [emulator.get(LISTING, params={"endpoint_id": EDIT}) for _ in "12"]
    assert [answer.status_code for answer in answers] == [401, 200]
    assert answers[0].json()["error"]["type"] == "authorization_error"


def test_pages_of_the_ledger(emulator):
    """Page by page in the order of acceptance, none twice, none missing."""
    ids = [emulator.submit(seed=n)["request_id"] for n in range(7)]
    found, after = [], 0
    while after is not None:
        page = emulator.get("/_emulator/ledger", params={"limit": 3, "after": after}).json()
        found += [row["request_id"] for row in page["rows"]]
        after = page["next"]

    assert ids == found
    assert emulator.get("/_emulator/ledger?limit=x").status_code == 400


def test_listing_shows_the_finished_only(make_emulator):
    """by-endpoint knows nothing of what waits or runs, and a finished request shows up after the delay."""
    emulator = make_emulator(concurrency=0, listing_delay=0.4)
    job = emulator.submit(seed=77, prompt="find me")
    assert listed(emulator) == []
    emulator.put("/_emulator/options", json={"concurrency": 1})
    emulator.finish(job)
    assert listed(emulator) == []
    wait_for(lambda: listed(emulator))

    (item,) = listed(emulator, expand="payloads")
    assert (job["request_id"], EDIT, 200) == (item["request_id"], item["endpoint_id"], item["status_code"])
    assert (item["json_input"]["seed"], item["json_input"]["prompt"]) == (77, "find me")
    assert item["json_output"]["seed"] == 77
    assert datetime.fromisoformat(item["ended_at"]).tzinfo is not None
    assert "json_input" not in listed(emulator)[0]


def test_listing_without_payloads(make_emulator):
    """Payload storage off, for the account or for one request, leaves nothing to match on."""
    on, off = make_emulator(state="on"), make_emulator(state="off", store_io=False)
    on.finish(on.submit(headers={"X-Fal-Store-IO": "0"}))
    off.run()

    for emulator in (on, off):
        (item,) = listed(emulator, expand="payloads")
        assert (item["json_input"], item["json_output"]) == (None, None)


def test_filters_order_and_cursor(emulator):
    """status, window, request_id, sort_by, limit and cursor."""
    good = [emulator.submit(seed=n) for n in range(5)]
    bad, broken = emulator.submit(num_images=99), emulator.submit(prompt="[[fault:generation_timeout]]")
    for job in (*good, bad, broken):
        emulator.finish(job)

    assert {job["request_id"] for job in good} == {item["request_id"] for item in listed(emulator, status="success")}
    assert [bad["request_id"]] == [item["request_id"] for item in listed(emulator, status="user_error")]
    assert [broken["request_id"]] == [item["request_id"] for item in listed(emulator, status="error")]
    assert len(listed(emulator, request_id=bad["request_id"])) == 1
    assert listed(emulator, end=(datetime.now(UTC) - timedelta(hours=1)).isoformat()) == []
    assert len(listed(emulator, start=(datetime.now(UTC) - timedelta(hours=1)).isoformat())) == 7
    for order in ("ended_at", "duration"):
        found, cursor = [], ""
        while cursor is not None:
            params = {"endpoint_id": EDIT, "limit": 2, "sort_by": order, "cursor": cursor}
            page = emulator.get(LISTING, params=params).json()
            found += [item["request_id"] for item in page["items"]]
            cursor = page["next_cursor"]
        assert (len(found), len(set(found))) == (7, 7)
    times = [item["ended_at"] for item in listed(emulator)]
    assert sorted(times, reverse=True) == times


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"endpoint_id": EDIT, "limit": "101"},
        {"endpoint_id": EDIT, "status": "bad"},
        {"endpoint_id": EDIT, "start": "yesterday"},
        {"endpoint_id": EDIT, "cursor": "///"},
        {"endpoint_id": EDIT, "sort_by": "size"},
    ],
)
def test_questions_that_make_no_sense(emulator, params):
    """The platform has its own error envelope."""
    reply = emulator.get(LISTING, params=params)

    assert (reply.status_code, reply.json()["error"]["type"]) == (400, "validation_error")


def test_keys_of_the_platform(make_emulator):
    """A key for lists, prices and settings; none for meta and the models."""
    emulator = make_emulator(key="kid:ksecret")
    with requests.Session() as anonymous:
        for path in (LISTING, "/v1/models/pricing", "/v1/storage/settings"):
            refused = anonymous.get(emulator.url + path, timeout=60)
            assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authorization_error")
        assert anonymous.get(emulator.url + "/v1/meta", timeout=60).json()["webhook_ip_ranges"]
        assert EDIT in anonymous.get(emulator.url + "/v1/models", timeout=60).text


def test_deletion(make_emulator):
    """An administrator's key makes the platform forget both sides and the files; the charge stays."""
    emulator = make_emulator(admin_key="admin:secret")
    job = emulator.submit()
    (image,) = emulator.finish(job).json()["images"]
    url = f"{emulator.url}/v1/models/requests/{job['request_id']}/payloads"
    assert requests.delete(url, headers={"Authorization": "Key kid:ksecret"}, timeout=60).status_code == 403
    admin = {"Authorization": "Key admin:secret"}
    results = [requests.delete(url, headers=admin, timeout=60).json()["cdn_delete_results"] for _ in range(2)]
    assert results == [
        [{"link": image["url"], "exception": None}],
        [{"link": image["url"], "exception": "File not found"}],
    ]
    assert requests.get(image["url"], timeout=60).status_code == 404
    assert emulator.get(job["response_url"]).status_code == 404
    assert emulator.row(job)["charges"] == 1
    unknown = url.replace(job["request_id"], "00000000-0000-4000-8000-000000000000")
    assert requests.delete(unknown, headers=admin, timeout=60).status_code == 404


def test_prices(emulator):
    """Three cents an image, in the platform's words."""
    reply = emulator.get("/v1/models/pricing", params={"endpoint_id": EDIT}).json()

    assert reply["prices"] == [{"endpoint_id": EDIT, "unit_price": 0.03, "unit": "image", "currency": "USD"}]
    assert (reply["next_cursor"], reply["has_more"]) == (None, False)


def test_a_restart_loses_nothing(make_emulator, receiver):
    """Results, charges, keys and files are the same after a restart; what waited or ran is taken up again."""
    first = make_emulator(concurrency=1, webhook_backoff=30.0)
    done = first.submit(seed=1)
    kept = first.finish(done).json()
    receiver.answers = [503]
    owed = first.submit(receiver.url + "/owed", seed=2)
    receiver.wait()
    first.put("/_emulator/options", json={"latency": 30.0})
    running = first.submit(seed=3)
    wait_for(lambda: first.status(running).json()["status"] == "IN_PROGRESS")
    waiting, cancelled = first.submit(receiver.url + "/late", seed=4), first.submit(seed=5)
    first.put(cancelled["cancel_url"])
    keys = first.get("/.well-known/jwks.json").json()
    first.stop()

    receiver.answers = [200]
    second = make_emulator(concurrency=1)
    assert keys == second.get("/.well-known/jwks.json").json()
    for job in (done, owed, running, waiting, cancelled):
        for name in ("response_url", "status_url"):
            job[name] = job[name].replace(first.url, second.url)
        second.finish(job)
    assert kept == second.get(done["response_url"]).json()
    assert second.get(kept["images"][0]["url"].replace(first.url, second.url)).status_code == 200
    assert {"/owed", "/late"} == {path for path, _, _ in receiver.wait(3)}
    rows = {row["seed"]: row for row in second.ledger()}
    assert {seed: row["charges"] for seed, row in rows.items()} == {1: 1, 2: 1, 3: 1, 4: 1, 5: 0}
    assert (rows[3]["attempts"], rows[3]["gateway_request_id"] != rows[3]["request_id"]) == (2, True)
    assert second.get("/_emulator/ledger").json()["totals"]["accepted"] == 5


def test_a_deadline_passes_while_it_is_down(make_emulator):
    """A start deadline that passed between two processes ends the request before it can start."""
    first = make_emulator(concurrency=0)
    job = first.submit(headers={"X-Fal-Request-Timeout": "0.2"})
    first.stop()
    time.sleep(0.25)
    second = make_emulator()

    job["status_url"], job["response_url"] = (
        job[name].replace(first.url, second.url) for name in ("status_url", "response_url")
    )
    assert second.finish(job).status_code == 504


def test_payloads_are_purged_and_the_ledger_is_not(make_emulator, monkeypatch):
    """Past the storage period the bodies go; the rows and their charges stay."""
    monkeypatch.setattr("fal_emulator.emulator.JANITOR_EVERY", 0.05)
    emulator = make_emulator(time_scale=30 * 86_400 / 0.5)  # thirty days are half a second
    job = emulator.submit(seed=9)
    wait_for(lambda: emulator.row(job)["outcome"] == 200)
    wait_for(lambda: listed(emulator, expand="payloads")[0]["json_input"] is None)

    assert emulator.row(job)["charges"] == 1
    assert json.loads(emulator.get("/_emulator/state").text)["counts"]["charges"] == 1


def test_the_answer_waits_for_the_disk(emulator, monkeypatch):
    """No request id leaves the house before its row would survive the process."""
    commit = Store._commit

    def late(self):
        asyncio.get_running_loop().call_later(0.2, commit, self)

    monkeypatch.setattr(Store, "_commit", late)
    begun = time.monotonic()
    emulator.submit()

    assert time.monotonic() - begun >= 0.2


def test_a_request_ends_once(tmp_path):
    """The second end of a request changes nothing and charges nothing."""

    async def end_twice():
        store = Store(tmp_path)
        ledger = Ledger(store)
        columns = ("endpoint_id", "app_id", "origin", "headers", "markers", "injected")
        flags = dict.fromkeys(("low_priority", "no_retry", "store_io", "direct"), False)
        empty = dict.fromkeys(("webhook_url", "seed", "start_by", "lifecycle"))
        job = Job(seq=0, request_id="r", submitted_at=1.0, **dict.fromkeys(columns, ""), **flags, **empty)
        ledger.accept(job, b"{}")
        ends = [ledger.finish(job, Verdict(200, {}, units=units), 2.0) for units in (1, 5)]
        charged = store.one("SELECT billed_units FROM requests")[0]
        store.close()
        return ends, charged, ledger.totals.charges

    assert asyncio.run(end_twice()) == ([True, False], 1, 1)
