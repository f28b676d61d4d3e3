"""Batches seen and steered over HTTP, each client its own."""

import json
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Connection, Engine

from intake.image_links import link_files
from intake.results import results
from models.claims import claim_images
from models.record_reports import record_reports
from models.transitions import StoredImage, record_stored
from models.verdict import Retry
from tests.support.api_client import ALICE, BOB, EDIT, KEYS, NDJSON, edits, hand_in, intake_app, lines, problem
from tests.support.factories import POLICY, accept, answer, claim, failure, success
from tests.support.receiving import rows


@pytest.fixture
def clients(database_url: str) -> Iterator[tuple[FlaskClient, FlaskClient]]:
    """Alice and Bob."""
    with intake_app(database_url, darkroom_api_keys=KEYS) as app:
        alice, bob = app.test_client(), app.test_client()
        alice.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {ALICE}"
        bob.environ_base["HTTP_AUTHORIZATION"] = f"bearer {BOB}"
        yield alice, bob


@pytest.fixture
def alice(clients: tuple[FlaskClient, FlaskClient]) -> FlaskClient:
    return clients[0]


def worked(connection: Connection, *, failing: int) -> None:
    """What the lanes make of everything that is pending: the first edits fail, the others are stored."""
    submissions = sorted(claim(connection), key=lambda submission: submission.edit_id)
    accept(connection, submissions)
    for number, submission in enumerate(submissions):
        verdict = failure("content_policy_violation", Retry.NEVER) if number < failing else success(2)
        record_reports(connection, [answer(submission, verdict)], POLICY)
    due = claim_images(connection, limit=100, lease=60)
    record_stored(connection, [StoredImage(i.id, f"{i.name}.png", "ab" * 32, 7, "image/png", 3, 2) for i in due])


def test_batch_is_counted_live(engine: Engine, alice: FlaskClient) -> None:
    """Counts by state, images and money are those of this moment."""
    made = hand_in(alice, *edits(3), max_in_flight=9, notify_url="https://shop.example/hook")
    with engine.begin() as connection:
        worked(connection, failing=1)

    found = alice.get(made["links"]["self"]).json

    assert {state: number for state, number in found["counts"].items() if number} == {"failed": 1, "stored": 2}
    assert (found["images"]["stored"], found["cost"], found["submissions"]) == (4, 0.12, 3)
    assert (found["limits"]["max_in_flight"], found["notify_url"]) == (9, "https://shop.example/hook")
    assert found["state"] == "running"


def test_edits_are_listed_by_page_and_by_what_went_wrong(engine: Engine, alice: FlaskClient) -> None:
    """Every edit is on one page, in order; filters find those of a state, an error or a name."""
    path = hand_in(alice, *edits(7))["links"]["edits"]
    with engine.begin() as connection:
        worked(connection, failing=2)

    seen, cursor = [], None
    while True:
        page = alice.get(path, query_string={"limit": 3, **({"cursor": cursor} if cursor else {})}).json
        seen += [edit["position"] for edit in page["edits"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == list(range(7))

    def positions(**query: str) -> list[int]:
        return [edit["position"] for edit in alice.get(path, query_string=query).json["edits"]]

    assert positions(state="failed") == positions(error_type="content_policy_violation") == [0, 1]
    assert positions(custom_id="e4") == [4]
    assert positions(error_type="other") == []
    assert alice.get(path, query_string={"state": "failed"}).json["edits"][0]["errors"][0]["attempt"] == 1


def test_results_tell_everything_and_failed_ones_go_in_again(engine: Engine, alice: FlaskClient) -> None:
    """One line an edit, with addresses in storage; the failed lines are a batch as they are."""
    given = [{**EDIT, "custom_id": "hat", "seed": 5}, {**EDIT, "prompt": "gr\u00fcn \u2028 \U0001f600"}, EDIT]
    links = hand_in(alice, *given)["links"]
    path = links["results"]
    with engine.begin() as connection:
        worked(connection, failing=1)

    response = alice.get(path)
    found = [json.loads(line) for line in response.data.splitlines()]
    failed = alice.get(path, query_string={"state": "failed"}).data
    again = alice.post("/v1/batches", data=b"{}\n" + failed, content_type=NDJSON)

    assert response.mimetype == NDJSON
    assert [line["edit"] for line in found] == given
    assert [line["state"] for line in found] == ["failed", "stored", "stored"]
    assert found[0]["errors"][0]["type"] == "content_policy_violation"
    assert (found[0]["seed"], found[1]["cost"]) == (5, 0.06)
    key = found[1]["images"][1]["storage_key"]
    image_id = found[1]["images"][1]["id"]
    assert found[1]["images"][1] == {
        "index": 1,
        "id": image_id,
        "url": f"http://localhost{links['self']}/images/{image_id}",
        "storage_key": key,
        "sha256": "ab" * 32,
        "bytes": 7,
        "type": "image/png",
        "width": 3,
        "height": 2,
    }
    assert again.status_code == 201
    path = again.json["links"]["results"]
    assert [json.loads(line)["edit"] for line in alice.get(path).data.splitlines()] == given[:1]


def test_results_of_many_pages_are_whole(engine: Engine, alice: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """No edit falls between two pages, whether the number or the size of the edits ends one."""
    path = hand_in(alice, *edits(50, prompt="x" * 1000))["links"]["results"]
    for limit, value in (("PAGE_EDITS", 7), ("PAGE_BYTES", 3_000), ("PAGE_BYTES", 1)):
        monkeypatch.setattr(f"intake.results.{limit}", value)
        assert [json.loads(line)["position"] for line in alice.get(path).data.splitlines()] == list(range(50))
        rest = alice.get(path, query_string={"after": "20"}).data.splitlines()
        assert [json.loads(line)["position"] for line in rest] == list(range(21, 50))
        rest = alice.get(path, query_string={"after": "20", "state": "pending"}).data.splitlines()
        assert [json.loads(line)["position"] for line in rest] == list(range(21, 50))
    assert alice.get(path, query_string={"after": "49"}).data == b""
    problem(alice.get(path, query_string={"after": "-1"}), 422)


def test_a_page_of_results_is_bounded_as_it_is_sent(engine: Engine, alice: FlaskClient) -> None:
    """Prompts that the database stores at a hundredth of their size are bounded as text, which is what memory holds."""
    made = alice.post("/v1/batches", data=lines({}, *edits(30, prompt="x" * 1_000_000)), content_type=NDJSON)
    batch_id = UUID(made.json["batch_id"])
    pages = [len(page) for page in results(engine, batch_id, link_files("s3://p/q"))]
    assert sum(pages) > 30_000_000
    assert max(pages) < 6_000_000


def test_addresses_in_storage_are_addresses(engine: Engine, alice: FlaskClient) -> None:
    """Whatever the store's own address looks like, what a caller is given can be asked for; encoded once, not twice."""
    batch_id = UUID(hand_in(alice, {**EDIT, "custom_id": "hat"})["batch_id"])
    with engine.begin() as connection:
        worked(connection, failing=0)
    for store, url in [
        ("file:///srv/all%20images/100%25", "file:///srv/all%20images/100%25/"),
        ("s3://bucket/a pr\u00e4fix", "s3://bucket/a%20pr%C3%A4fix/"),
    ]:
        (line,) = b"".join(results(engine, batch_id, link_files(store))).splitlines()
        assert [image["url"].startswith(url) for image in json.loads(line)["images"]] == [True, True]


def test_steering(engine: Engine, alice: FlaskClient) -> None:
    """Pause, resume, hurry, retry, cancel: each says what it did, and may be asked again."""
    made = hand_in(alice, *edits(4))
    path = made["links"]["self"]
    with engine.begin() as connection:
        worked(connection, failing=2)
    hand_in(alice)

    assert [alice.post(f"{path}/pause").json["state"] for _ in range(2)] == ["paused"] * 2
    assert alice.get("/v1/batches", query_string={"state": "paused"}).json["batches"][0]["batch_id"] == made["batch_id"]
    assert [alice.post(f"{path}/resume").json["state"] for _ in range(2)] == ["running"] * 2
    assert alice.patch(path, json={"priority": 7}).json["priority"] == 7
    assert alice.post(f"{path}/retry", json={"error_types": ["other"]}).json["edits"] == 0
    assert alice.post(f"{path}/retry").json == {"batch_id": made["batch_id"], "edits": 2}
    assert alice.post(f"{path}/cancel").json == {"batch_id": made["batch_id"], "edits": 2}
    assert alice.post(f"{path}/cancel").json["edits"] == 0
    assert problem(alice.post(f"{path}/retry"), 409)["type"] == "urn:darkroom:problem:conflict"
    assert alice.get(path).json["state"] == "cancelled"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{"priority": 40000}', 422),
        ('{"priority": true}', 422),
        ('{"priority": "1"}', 422),
        ("{}", 422),
        ("", 422),
        ('{"priority": 1, "name": "x"}', 422),
        ("[1]", 400),
        ("nonsense", 400),
        (f'{{"priority": 1, "x": "{"x" * 70_000}"}}', 413),
    ],
)
def test_changes_are_strict(body: str, status: int, engine: Engine, alice: FlaskClient) -> None:
    """What is no change changes nothing."""
    path = hand_in(alice, priority=1)["links"]["self"]
    problem(alice.patch(path, data=body, content_type="application/json"), status)
    problem(alice.patch(path, data="priority=1", content_type="application/x-www-form-urlencoded"), 415)
    assert rows(engine, "SELECT priority FROM batches") == [(1,)]


def test_batches_are_listed_newest_first(engine: Engine, alice: FlaskClient) -> None:
    """Page by page, each once; by name, time, state and metadata."""
    made = [hand_in(alice, name=f"n{n % 2}", metadata={"n": n}) for n in range(5)]
    ids = [batch["batch_id"] for batch in reversed(made)]
    with engine.begin() as connection:  # of one moment: the id decides
        connection.exec_driver_sql("UPDATE batches SET created_at = (SELECT max(created_at) FROM batches)")

    seen, query = [], {"limit": "2"}
    while True:
        page = alice.get("/v1/batches", query_string=query).json
        seen += [batch["batch_id"] for batch in page["batches"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert sorted(seen) == sorted(ids)

    def listed(**query: str) -> set[str]:
        return {batch["name"] for batch in alice.get("/v1/batches", query_string=query).json["batches"]}

    assert listed(name="n1") == {"n1"}
    assert listed(metadata="n=4") == {"n0"}
    assert listed(created_after="2020-01-01T00:00:00Z", state="running") == {"n0", "n1"}
    assert listed(created_before="2020-01-01T00:00:00Z") == listed(state="finished") == set()


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=%2B5",
        "limit=1e1",
        "cursor=abc",
        "cursor=W10=",
        "cursor=bnVsbA==",
        "name=%00",
        "name=a&name=b",
        "state=done",
        "created_after=1700000000",
        "created_after=2026-11-22",
        "created_after=2026-11-22T10:00:00",
        "metadata=x",
        "order=asc",
    ],
)
def test_queries_are_strict(query: str, alice: FlaskClient) -> None:
    """A filter that is not understood is never passed over."""
    assert problem(alice.get(f"/v1/batches?{query}"), 422)["faults"]


def test_clients_do_not_see_each_other(engine: Engine, clients: tuple[FlaskClient, FlaskClient]) -> None:
    """Another's batch is like one that is not there, whatever is asked of it; their idempotency keys never meet."""
    alice, bob = clients
    made = hand_in(alice, idempotency_key="k")
    path = made["links"]["self"]
    before = rows(engine, "SELECT * FROM batches")

    def refusal(batch: str, method: str, rest: str) -> str:
        body = {"PATCH": {"priority": 1}}.get(
            method, {"edits": [EDIT]} if (method, rest) == ("POST", "/edits") else None
        )
        response = bob.open(f"/v1/batches/{batch}{rest}", method=method, json=body)
        return problem(response, 404)["detail"].replace(batch, "it")

    for method, rest in [
        ("GET", ""),
        ("PATCH", ""),
        ("GET", "/edits"),
        ("POST", "/edits"),
        ("GET", "/results"),
        *(("POST", f"/{verb}") for verb in ("cancel", "pause", "resume", "retry")),
    ]:
        assert refusal(made["batch_id"], method, rest) == refusal(str(uuid4()), method, rest)
    assert bob.get("/v1/batches").json["batches"] == []
    assert rows(engine, "SELECT * FROM batches") == before
    assert hand_in(bob, idempotency_key="k")["batch_id"] != made["batch_id"]
    assert alice.get(path).status_code == 200
    assert rows(engine, "SELECT client FROM batches ORDER BY client") == [("alice",), ("bob",)]


def test_list_of_batches_with_large_metadata(engine: Engine, alice: FlaskClient) -> None:
    """What was kept before metadata was bounded makes pages short, however well it compresses; none is left out."""
    made = {hand_in(alice, *edits(1), name=f"b{n}")["batch_id"] for n in range(7)}
    with engine.begin() as connection:
        connection.exec_driver_sql("""UPDATE batches SET metadata = jsonb_build_object('x', repeat('y', 700000))""")
    seen, query, sizes = [], {"limit": 100}, []
    while True:
        page = alice.get("/v1/batches", query_string=query).json
        sizes.append(len(page["batches"]))
        seen += [batch["batch_id"] for batch in page["batches"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]

    assert sizes == [2, 2, 2, 1]
    assert sorted(seen) == sorted(made)
