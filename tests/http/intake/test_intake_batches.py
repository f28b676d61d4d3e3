"""Batches handed in over HTTP: what is written, what is refused, and that a refusal writes nothing."""

import json
from collections.abc import Iterator
from decimal import Decimal

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine

from tests.http.conftest import Away
from tests.support.api_client import EDIT, NDJSON, counts, edits, hand_in, intake_app, lines, problem
from tests.support.receiving import rows


@pytest.fixture
def api(database_url: str) -> Iterator[FlaskClient]:
    """Someone on this machine, where no keys are needed."""
    with intake_app(database_url, intake_max_bytes=10_000_000) as app:
        yield app.test_client()


def post_lines(api: FlaskClient, *objects: object, **options: str):
    return api.post("/v1/batches", data=lines(*objects), content_type=NDJSON, query_string=options)


def test_document_becomes_a_batch(engine: Engine, api: FlaskClient) -> None:
    """Header and edits stand in the database before the answer, for the client that has no name of its own."""
    made = hand_in(api, *edits(2), name="catalogue", priority=3, max_cost=1.5, metadata={"season": "autumn"})

    assert (made["edits"], made["skipped"], made["existing"]) == (2, 0, False)
    assert rows(engine, "SELECT id::text, name, client, priority, max_cost, metadata FROM batches") == [
        (made["batch_id"], "catalogue", "local", 3, Decimal("1.5"), {"season": "autumn"})
    ]
    assert rows(engine, "SELECT position, custom_id, arguments FROM edits ORDER BY position") == [
        (0, "e0", EDIT),
        (1, "e1", EDIT),
    ]


def test_what_is_polled_is_planned_once(api: FlaskClient) -> None:
    """A question that comes again and again stays prepared; a transaction that is rolled back would forget it."""
    link = hand_in(api, *edits(1))["links"]["self"]
    for _ in range(8):
        assert api.get(link).status_code == 200

    engine = api.application.extensions["darkroom"].engine
    assert any(
        "AS batch_id" in statement for (statement,) in rows(engine, "SELECT statement FROM pg_prepared_statements")
    )


def test_lines_become_the_same_batch(engine: Engine, api: FlaskClient) -> None:
    """The two forms are one order: under one key the second finds what the first made."""
    key = {"Idempotency-Key": "k-1"}
    first = api.post("/v1/batches", json={"name": "a", "edits": edits(3)}, headers=key)
    second = api.post("/v1/batches", data=lines({"name": "a"}, *edits(3)), content_type=NDJSON, headers=key)

    assert (first.status_code, second.status_code) == (201, 200)
    assert first.headers["Location"] == second.headers["Location"] == first.json["links"]["self"]
    assert second.json == {**first.json, "existing": True}
    assert counts(engine) == (1, 3)


def test_same_key_for_something_else_is_a_conflict(engine: Engine, api: FlaskClient) -> None:
    """A key that stands for another order neither runs this one nor hides it behind the first."""
    api.post("/v1/batches", json={"edits": edits(2)}, headers={"Idempotency-Key": "k"})

    response = api.post("/v1/batches", json={"edits": edits(3)}, headers={"Idempotency-Key": "k"})

    assert problem(response, 409)["type"] == "urn:darkroom:problem:idempotency-conflict"
    assert counts(engine) == (1, 2)


def test_all_faults_come_at_once_with_their_lines(engine: Engine, api: FlaskClient) -> None:
    """A manifest is mended in one go: every fault has its line in the body, its name and its reason."""
    good, bad = {**EDIT, "custom_id": "a"}, {**EDIT, "custom_id": "b", "seed": "x", "image_urls": []}

    found = problem(post_lines(api, {}, good, bad, {"prompt": "x"}), 422)

    assert found["type"] == "urn:darkroom:problem:faults"
    assert [(fault["line"], fault.get("custom_id"), fault["field"]) for fault in found["faults"]] == [
        (3, "b", "image_urls"),
        (3, "b", "seed"),
        (4, None, "image_urls"),
    ]
    assert counts(engine) == (0, 0)


def test_faults_are_shown_up_to_a_limit(engine: Engine, api: FlaskClient) -> None:
    """A wrong file of very many lines has a bounded answer."""
    assert len(problem(post_lines(api, {}, *[{}] * 5000), 422)["faults"]) == 1000


def test_faulty_lines_may_be_skipped(engine: Engine, api: FlaskClient) -> None:
    """With on_invalid=skip the good edits go, the others stand beside them as failed, each with its reason."""
    response = post_lines(api, {}, EDIT, {"prompt": "x"}, EDIT, on_invalid="skip")

    assert response.status_code == 201
    assert (response.json["edits"], response.json["skipped"]) == (3, 1)
    page = api.get(response.json["links"]["edits"], query_string={"state": "failed"}).json
    assert [(edit["position"], edit["errors"][0]["type"]) for edit in page["edits"]] == [(1, "invalid_input")]


def test_dry_run_tells_and_writes_nothing(engine: Engine, api: FlaskClient) -> None:
    """What it would come to at worst and likely, with the warnings, from the same reading of the same lines."""
    response = post_lines(api, {}, {**EDIT, "max_images": 3}, {**EDIT, "image_size": "square"}, dry_run="true")

    assert response.status_code == 200
    estimate = response.json
    assert (estimate["edits"], estimate["images_least"], estimate["images_most"]) == (2, 2, 4)
    assert (estimate["cost_likely"], estimate["cost_worst"]) == (0.06, 0.12)
    assert "image_size" in estimate["warnings"][0]
    assert counts(engine) == (0, 0)
    problem(post_lines(api, {}, {}, dry_run="true"), 422)


DEEP = b'{"edits": ' + b"[" * 100_000
REFUSED = {
    "no type": (b"{}", None, 415),
    "another type": (lines(EDIT), "text/csv", 415),
    "a form": (b"edits=1", "application/x-www-form-urlencoded", 415),
    "nothing": (b"", "application/json", 400),
    "no lines": (b"", NDJSON, 400),
    "no edit": (b'{"edits": []}', "application/json", 422),
    "a header and no edit": (b"{}\n", NDJSON, 422),
    "no edits": (b"{}", "application/json", 422),
    "edits that are no list": (b'{"edits": {}}', "application/json", 422),
    "an edit that is no object": (b'{"edits": [1]}', "application/json", 422),
    "a list": (b"[]", "application/json", 400),
    "no JSON in the middle": (b'{"edits": [{"prompt" 1}]}', "application/json", 400),
    "cut": (json.dumps({"edits": [EDIT]}).encode()[:-9], "application/json", 400),
    "a cut line": (lines({}, EDIT, EDIT)[:-9], NDJSON, 422),
    "nested without end": (DEEP, "application/json", 400),
    "nested too deeply to be kept": (b'{"metadata": ' + b'{"a":' * 300 + b"1" + b"}" * 301, "application/json", 400),
    "a doubled field": (b'{"name": "a", "name": "b", "edits": []}', "application/json", 400),
    "NaN": (b'{"metadata": {"a": NaN}, "edits": []}', "application/json", 400),
    "a number without end": (b'{"priority": 1' + b"0" * 5000 + b', "edits": []}', "application/json", 400),
    "a huge number": (b'{"priority": 1' + b"0" * 300 + b', "edits": []}', "application/json", 422),
    "a number that is infinite": (b'{"metadata": {"a": 1e999}, "edits": []}', "application/json", 422),
    "NUL": (b'{"name": "a\\u0000", "edits": []}', "application/json", 422),
    "NUL in metadata": (b'{"metadata": {"a\\u0000": 1}, "edits": []}', "application/json", 422),
    "half a surrogate pair": (b'{"name": "\\ud800", "edits": []}', "application/json", 422),
    "no UTF-8": (b'{"name": "\xff"}', "application/json", 400),
    "a client in the body": (b'{"client": "bob", "edits": []}', "application/json", 422),
    "an unknown field": (b'{"nmae": "x", "edits": []}', "application/json", 422),
    "a header line that is too long": (b'{"name": "' + b"x" * 70_000 + b'"}\n' + lines(EDIT), NDJSON, 413),
    "a document that is too long": (b" " * 9_000_000, "application/json", 413),
    "lines that are too long": (b" " * 10_000_001, NDJSON, 413),
}


FAULTY_EDITS = ("an edit that is no object", "a cut line")
"""Of these, what may be skipped."""


@pytest.mark.parametrize(
    ("name", "on_invalid"),
    [(name, how) for name in REFUSED for how in ("fail", "skip") if how == "fail" or name not in FAULTY_EDITS],
)
def test_what_cannot_be_read_is_refused(name: str, on_invalid: str, engine: Engine, api: FlaskClient) -> None:
    """Each with its status, a problem, and nothing written; skipping mends no header and no document."""
    body, content_type, status = REFUSED[name]

    response = api.post(f"/v1/batches?on_invalid={on_invalid}", data=body, content_type=content_type)

    found = problem(response, status)
    assert "Traceback" not in response.text
    assert "SELECT" not in response.text
    assert found.get("detail")
    assert counts(engine) == (0, 0)


@pytest.mark.parametrize("depth", [60, 70, 255, 480, 900, 940, 980])
def test_nesting_never_breaks_us(depth: int, engine: Engine, api: FlaskClient) -> None:
    """However deep a faulty line is, and whatever our own depth, it is a fault or an edit, never our error."""
    line = b'{"prompt": ' + b"[" * depth + b"]" * depth + b"}\n"
    response = api.post("/v1/batches?on_invalid=skip", data=b"{}\n" + line, content_type=NDJSON)
    assert response.status_code == 201


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("on_invalid=maybe", "on_invalid"),
        ("dry_run=yes", "dry_run"),
        ("dry=1", "dry"),
        ("dry_run=true&dry_run=true", "dry_run"),
    ],
)
def test_options_are_strict(query: str, field: str, engine: Engine, api: FlaskClient) -> None:
    """A mistyped dry_run must not cost money."""
    found = problem(api.post(f"/v1/batches?{query}", json={"edits": [EDIT]}), 422)
    assert [fault["field"] for fault in found["faults"]] == [field]
    assert counts(engine) == (0, 0)


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\xe9"])
def test_key_that_cannot_be_kept(key: str, engine: Engine, api: FlaskClient) -> None:
    """A key is refused rather than shortened or passed over."""
    problem(api.post("/v1/batches", json={"edits": [EDIT]}, headers={"Idempotency-Key": key}), 422)
    other = api.post("/v1/batches", json={"idempotency_key": "a", "edits": [EDIT]}, headers={"Idempotency-Key": "b"})
    problem(other, 422)
    assert counts(engine) == (0, 0)


def test_edits_are_added(engine: Engine, api: FlaskClient) -> None:
    """In both forms, once for each key, at the end of the batch; a name that is taken there is a fault."""
    made = hand_in(api, *edits(2))
    path, key = made["links"]["edits"], {"Idempotency-Key": "more"}
    more = [{**EDIT, "custom_id": "new"}, EDIT]

    first = api.post(path, json={"edits": more}, headers=key)
    again = api.post(path, data=lines(*more), content_type=NDJSON, headers=key)
    other = api.post(path, json={"edits": [EDIT]}, headers=key)
    taken = api.post(path, data=lines(EDIT, {**EDIT, "custom_id": "e1"}), content_type=NDJSON)

    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json == {**first.json, "existing": True}
    assert problem(other, 409)["type"] == "urn:darkroom:problem:idempotency-conflict"
    assert [(fault["line"], fault["field"]) for fault in problem(taken, 422)["faults"]] == [(2, "custom_id")]
    problem(api.post(path, json={"edits": [EDIT], "name": "x"}), 422)
    assert counts(engine) == (1, 4)
    assert rows(engine, "SELECT custom_id FROM edits ORDER BY position") == [("e0",), ("e1",), ("new",), (None,)]


def test_nothing_is_added_to_what_is_over(engine: Engine, api: FlaskClient) -> None:
    """A cancelled batch takes no more edits, and says so."""
    made = hand_in(api)
    api.post(made["links"]["self"] + "/cancel")

    found = problem(api.post(made["links"]["edits"], json={"edits": [EDIT]}), 409)

    assert "cancelled" in found["detail"]
    assert counts(engine) == (1, 1)


def test_without_a_database_it_asks_to_come_again(engine: Engine, api: FlaskClient, database_away: Away) -> None:
    """503 with a time to come again, in every route, and no word of SQL; afterwards all is well by itself."""
    made = hand_in(api)
    with database_away():
        for method, path in (("POST", "/v1/batches"), ("GET", made["links"]["self"]), ("GET", "/livez")):
            response = api.open(path, method=method, json={"edits": [EDIT]} if method == "POST" else None)
            assert "darkroom" not in problem(response, 503)["detail"]
            assert int(response.headers["Retry-After"]) > 0
    hand_in(api)
    assert counts(engine) == (2, 2)


def test_metadata_is_bounded(engine: Engine, api: FlaskClient) -> None:
    """Every list and every notification carries it: 64 KiB are kept, a byte more is refused, in either form."""
    fits = {"x": "é" * ((64 * 1024 - len('{"x": ""}')) // 2)}
    assert hand_in(api, EDIT, metadata=fits)["edits"] == 1
    response = api.post("/v1/batches", json={"edits": [EDIT], "metadata": {"x": fits["x"] + "éé"}})

    assert "at most 65536 are kept" in json.dumps(problem(response, 422))
    assert counts(engine) == (1, 1)
