"""The platform API beside the listing: estimates, usage, credit, search, deletion, and the models' own documents."""

import json
import time
from datetime import UTC, datetime

import jsonschema_rs
import pytest
import requests

from fal_emulator.arguments import InvalidInput, read
from fal_emulator.openapi import document, edit_schemas
from fal_emulator.options import Options

from .emulator_process import EDIT, wait_for
from .test_input import GOOD

SEARCH = "/v1/models/requests/search"
ESTIMATE = "/v1/models/pricing/estimate"
OTHER = "fal-ai/fast-sdxl"


def estimate(standin, kind, **endpoint):
    return standin.post(ESTIMATE, json={"estimate_type": kind, "endpoints": {EDIT: endpoint}}).json()


def test_estimates(standin):
    """By units at the price; by calls at what a successful call was charged here on average."""
    by_units = {"estimate_type": "unit_price", "total_cost": 1.5, "currency": "USD"}
    assert by_units == estimate(standin, "unit_price", unit_quantity=50)
    assert estimate(standin, "historical_api_price", call_quantity=10)["total_cost"] == 0.3
    for count in (1, 3):
        standin.run(num_images=count)
    standin.run(num_images=99)
    assert estimate(standin, "historical_api_price", call_quantity=10)["total_cost"] == 0.6


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"estimate_type": "guess", "endpoints": {EDIT: {"unit_quantity": 1}}},
        {"estimate_type": "unit_price", "endpoints": {}},
        {"estimate_type": "unit_price", "endpoints": {EDIT: {"call_quantity": 1}}},
        {"estimate_type": "unit_price", "endpoints": {EDIT: {"unit_quantity": -1}}},
        {"estimate_type": "unit_price", "endpoints": {"fal-ai/nobody": {"unit_quantity": 1}}},
    ],
)
def test_estimates_of_nothing(standin, body):
    """The platform's own envelope, with a sentence."""
    reply = standin.post(ESTIMATE, json=body)

    assert (reply.status_code, reply.json()["error"]["type"]) == (400, "validation_error")


def test_usage(standin):
    """The ledger's charges in buckets and in sums; the zone decides where a day begins."""
    for count in (1, 2):
        standin.run(num_images=count)
    standin.submit_raw(endpoint=OTHER, json={}).json()
    usage = "/v1/models/usage"
    found = standin.get(usage, params={"expand": "time_series,summary", "timeframe": "day"}).json()

    (total,) = found["summary"]
    assert (total["endpoint_id"], total["quantity"], total["unit_price"]) == (EDIT, 3, 0.03)
    assert total["cost_total"] == 0.09
    buckets = {bucket["bucket"]: bucket["results"] for bucket in found["time_series"]}
    assert sum(result["quantity"] for results in buckets.values() for result in results) == 3
    assert all(bucket.endswith("T00:00:00+00:00") for bucket in buckets)
    tokyo = standin.get(usage, params={"timezone": "Asia/Tokyo", "timeframe": "week"}).json()["time_series"]
    assert datetime.fromisoformat(tokyo[0]["bucket"]).isoweekday() == 1
    assert tokyo[0]["bucket"].endswith("+09:00")
    assert standin.get(usage, params={"endpoint_id": OTHER}).json()["time_series"] == []
    tomorrow = datetime.fromtimestamp(time.time() + 86_400, UTC).isoformat()
    assert standin.get(usage, params={"start": tomorrow, "end": tomorrow}).json()["time_series"] == []
    early = {"end": datetime.fromtimestamp(time.time() - 600, UTC).isoformat(), "bound_to_timeframe": "false"}
    assert standin.get(usage, params=early).json()["time_series"] == []


@pytest.mark.parametrize("params", [{"timeframe": "year"}, {"timezone": "Moon/Tycho"}, {"expand": "auth_method"}])
def test_usage_of_nothing(standin, params):
    """What makes no sense is refused with a sentence."""
    assert standin.get("/v1/models/usage", params=params).status_code == 400


def test_credit(make_standin):
    """The balance falls with every charge; a spent account is locked for new work, until somebody pays."""
    standin = make_standin(credits=0.06, user_id="github|7")
    assert standin.get("/v1/account/billing").json() == {"username": "github|7"}

    def balance():
        return standin.get("/v1/account/billing", params={"expand": "credits"}).json()["credits"]["current_balance"]

    standin.run(num_images=2)
    assert balance() == 0
    refused = standin.submit_raw(json=GOOD)
    assert (refused.status_code, "User is locked" in refused.json()["detail"]) == (403, True)
    assert standin.post(f"/{EDIT}", json=GOOD, headers={"Host": "fal.run"}).status_code == 403
    assert len(standin.ledger()) == 1
    standin.put("/_emulator/options", json={"credits": 1.0})
    assert standin.submit()["request_id"]
    assert balance() <= 0.94


def test_search(make_standin):
    """Text in the input, newest submit first, page by page; nothing that was not to be stored."""
    standin = make_standin(concurrency=1)
    jobs = [standin.submit(prompt=f"a Red hat {n}") for n in range(3)]
    standin.submit(prompt="a coat")
    standin.submit(prompt="a red secret", headers={"X-Fal-Store-IO": "0"})
    for job in jobs:
        standin.finish(job)
    wait_for(lambda: standin.get("/_emulator/state").json()["counts"]["completed"] == 5)

    found, cursor = [], ""
    while cursor is not None:
        page = standin.get(SEARCH, params={"query": "RED", "limit": 2, "cursor": cursor}).json()
        found += page["items"]
        cursor = page["next_cursor"]
    assert [item["request_id"] for item in found] == [job["request_id"] for job in reversed(jobs)]
    assert found[0]["json_input"]["prompt"] == "a Red hat 2"
    assert len(standin.get(SEARCH).json()["items"]) == 4
    assert standin.get(SEARCH, params={"endpoint_id": OTHER}).json()["items"] == []
    assert standin.get(SEARCH, params={"limit": 0}).status_code == 400


def test_delete_payloads(make_standin):
    """JSON and produced files go, the charge stays; the same key gives the same answer for ten minutes."""
    standin = make_standin(time_scale=1200.0)  # ten minutes are half a second
    job = standin.submit(num_images=2)
    urls = [image["url"] for image in standin.finish(job).json()["images"]]
    path, key = f"/v1/models/requests/{job['request_id']}/payloads", {"Idempotency-Key": "k"}

    first = standin.call("DELETE", path, headers=key).json()
    assert first == {"cdn_delete_results": [{"link": url, "exception": None} for url in urls]}
    assert {standin.get(url).status_code for url in urls} == {404}
    assert standin.get(job["response_url"]).status_code == 404
    (item,) = standin.get(SEARCH).json()["items"]
    assert (item["json_input"], item["json_output"]) == (None, None)
    assert standin.row(job)["charges"] == 2
    assert first == standin.call("DELETE", path, headers=key).json()
    wait_for(lambda: standin.call("DELETE", path, headers=key).json() != first)
    assert standin.call("DELETE", path).json()["cdn_delete_results"][0]["exception"]


def test_payloads_that_cannot_be_deleted(make_standin):
    """An unknown request, and one that still runs."""
    standin = make_standin(concurrency=0)
    running = standin.submit()["request_id"]

    for request_id, status in (("nobody", 404), (running, 409)):
        assert standin.call("DELETE", f"/v1/models/requests/{request_id}/payloads").status_code == status


def test_administrators(make_standin):
    """What fal keeps for admin keys takes the admin key only; the rest takes any accepted one."""
    standin = make_standin(key="kid:ksecret", admin_key="boss:secret")
    kept = [
        ("GET", "/v1/models/usage"),
        ("GET", "/v1/account/billing"),
        ("GET", "/v1/models/billing-events"),
        ("DELETE", "/v1/models/requests/x/payloads"),
    ]
    for method, path in kept:
        assert standin.call(method, path).status_code == 403
        assert standin.call(method, path, headers={"Authorization": "Key boss:secret"}).status_code in (200, 404)
    for path in ("/v1/models/pricing", "/v1/storage/settings", SEARCH):
        assert standin.get(path).status_code == 200
        with requests.Session() as anonymous:
            assert anonymous.get(standin.url + path, timeout=5).status_code == 401


def test_the_models_document(standin):
    """`expand=openapi-3.0` gives the model's own document, which names the queue's four paths."""
    params = {"endpoint_id": EDIT, "expand": "openapi-3.0"}
    (model,) = standin.get("/v1/models", params=params).json()["models"]
    assert model["metadata"]["category"] == "image-to-image"
    assert "openapi" not in standin.get("/v1/models").json()["models"][0]
    assert {
        f"/{EDIT}": {"post"},
        "/fal-ai/bytedance/requests/{request_id}": {"get"},
        "/fal-ai/bytedance/requests/{request_id}/status": {"get"},
        "/fal-ai/bytedance/requests/{request_id}/cancel": {"put"},
    } == {path: set(item) for path, item in model["openapi"]["paths"].items()}
    linked = standin.get("/api/openapi/queue/openapi.json", params=params, headers={"Host": "fal.ai"})
    assert linked.json() == model["openapi"]
    assert standin.get("/api/openapi/queue/openapi.json").status_code == 404
    assert [one["endpoint_id"] for one in standin.get("/v1/models", params={"q": "seedream"}).json()["models"]] == [
        EDIT
    ]


@pytest.mark.parametrize("endpoint_id", [EDIT, OTHER])
def test_the_document_is_sound(endpoint_id):
    """Every reference leads somewhere, and every schema is one."""
    text = json.dumps(document(endpoint_id, "t", 4096))
    whole = json.loads(text)
    named = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}

    assert named <= set(whole["components"]["schemas"])
    for schema in whole["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)


INPUT = jsonschema_rs.Draft4Validator(
    {"$ref": "#/components/schemas/Input", "components": {"schemas": edit_schemas(4096)}}
)
BODIES = [
    *({**GOOD, "num_images": count} for count in (0, 1, 6, 7, 1.5, True, None)),
    *(
        {**GOOD, "image_size": size}
        for size in ("auto_4K", "huge", 7, {}, {"width": 0}, {"width": 4097, "height": 900})
    ),
    *({**GOOD, "image_urls": urls} for urls in ([], "u", [3], ["u"] * 12)),
    *({**GOOD, "enhance_prompt_mode": mode} for mode in ("fast", "slow")),
    *({**GOOD, "sync_mode": flag} for flag in (True, "perhaps")),
    *({**GOOD, "seed": seed} for seed in (-1, 10**30, "x")),
    *({}, GOOD, {"prompt": 1, "image_urls": ["u"]}, {**GOOD, "guidance_scale": 3}),
]


@pytest.mark.parametrize("body", BODIES)
def test_the_document_and_the_model_agree(body, tmp_path):
    """What fits the document is taken; what does not is refused, but for what pydantic reads as a number."""
    try:
        read(json.dumps(body).encode(), Options(state_dir=tmp_path))
    except InvalidInput:
        taken = False
    else:
        taken = True

    assert taken == (INPUT.is_valid(body) or body.get("num_images") is True)


def test_the_output_fits_the_document(standin):
    """A real result fits the document's output."""
    schema = {"$ref": "#/components/schemas/Output", "components": {"schemas": edit_schemas(4096)}}

    jsonschema_rs.Draft4Validator(schema).validate(standin.run(num_images=2).json())
