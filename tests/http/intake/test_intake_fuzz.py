"""Whatever is sent to the intake at random: an answer in the documented form, nothing half written, no row lost.

The API, the page and its forms, and what machines ask: /metrics, /livez, /healthz.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from tests.support.api_client import ALICE, EDIT
from tests.support.pages import HTML, OLGA, create_batch, page_app, sign_in, token_of
from tests.support.receiving import rows

ODD = [
    "",
    "0",
    "-1",
    "1e3",
    "9" * 40,
    "null",
    "%00",
    "\0",
    "é",
    "\ud7ff",
    "帽" * 50,
    "'--",
    "a,b",
    "[]",
    "{",
    "../..",
    "x" * 3000,
]
WORDS = st.sampled_from(ODD) | st.text(st.characters(codec="utf-8"), max_size=12)
PATHS = [
    *("/", "/system", "/sign-in", "/sign-out", "/metrics", "/livez", "/healthz", "/docs", "/openapi.json"),
    *("/batches/{}", "/batches/{}/edits/0", "/batches/{}/images/1", "/batches/{}/edits/0/inputs/0/thumbnail"),
    *(f"{place}/batches/{{}}/{name}" for place in ("", "/v1") for name in ("cancel", "pause", "resume", "retry")),
    *("/v1/batches", "/v1/batches/{}", "/v1/batches/{}/edits", "/v1/batches/{}/results"),
]
"""Each entry; {} is a batch that is there, or what somebody types in its place."""
QUERIES = [
    "state",
    "cursor",
    "after",
    "limit",
    "name",
    "client",
    "error",
    "error_type",
    "next",
    "dry_run",
    "on_invalid",
]
HEADERS = {
    "Authorization": [f"Bearer {ALICE}", f"Bearer {OLGA}", f"bearer  {ALICE} ", "Bearer", "Basic x", "Bearer é"],
    "Accept": ["text/html", "application/openmetrics-text; version=1.0.0", "*/*;q=x", "text/plain;version=0.0.4", ";"],
    "Idempotency-Key": ["k", "x" * 300, "é", "celery-task:1"],
    "Content-Type": ["application/json", "application/x-ndjson", "application/x-www-form-urlencoded", "text/csv", ";"],
    "Origin": ["https://evil.example", "http://localhost", "null", ""],
    "Sec-Fetch-Site": ["cross-site", "same-origin", "none", "x"],
    "Host": ["localhost", "evil.example", "[::1", "a@b", "localhost:http"],
    "X-Forwarded-Proto": ["https", "x"],
}
BODIES = [
    json.dumps({"edits": [EDIT, EDIT]}),
    json.dumps({"name": "n", "priority": 1, "edits": [{**EDIT, "seed": 1}]}),
    f"{{}}\n{json.dumps(EDIT)}\n{json.dumps(EDIT)}\n",
    json.dumps({"error_types": ["x"]}),
    json.dumps({"priority": 3}),
    f"key={OLGA}&next=/system",
    "token=TOKEN",
]


class Sent(NamedTuple):
    """One request."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    signed_in: bool


@st.composite
def requests(draw: st.DrawFn) -> Sent:
    """A request that is nearly right."""
    body = draw(st.sampled_from(BODIES)).encode()
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(WORDS).encode() + body[at + draw(st.integers(0, 5)) :]
    headers = draw(st.dictionaries(st.sampled_from(sorted(HEADERS)), st.integers(0, 5), max_size=4))
    return Sent(
        draw(st.sampled_from(["GET", "POST", "POST", "PATCH", "HEAD", "PUT", "DELETE", "OPTIONS"])),
        draw(st.sampled_from(PATHS)).replace("{}", draw(st.sampled_from(["BATCH", "BATCH", "BATCH", "x", "0" * 32]))),
        draw(st.dictionaries(st.sampled_from(QUERIES), WORDS, max_size=3)),
        {name: HEADERS[name][place % len(HEADERS[name])] for name, place in headers.items()},
        body,
        draw(st.booleans()),
    )


@pytest.fixture
def app(database_url: str, tmp_path: Path) -> Iterator[Flask]:
    with page_app(database_url, tmp_path, intake_rate="1000000/second") as app:
        yield app


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=requests())
def test_whatever_is_sent(app: Flask, engine: Engine, sent: Sent) -> None:
    before = written(engine)
    if not before:
        with engine.begin() as connection:
            create_batch(connection, [{}, {}], client="alice")
        before = written(engine)
    browser = sign_in(app, OLGA) if sent.signed_in else app.test_client()
    path = sent.path.replace("BATCH", str(min(before)))
    body = sent.body
    if sent.signed_in and b"TOKEN" in body:
        body = body.replace(b"TOKEN", token_of(browser.get("/", headers=HTML)).encode())
    headers = {name: value.encode().decode("latin-1") for name, value in sent.headers.items()}
    answer = browser.open(path, method=sent.method, query_string=sent.query, headers=headers, data=body)
    assert answer.status_code < 500 or path == "/healthz", (answer.status_code, answer.data)
    assert b"Traceback" not in answer.data
    if answer.status_code >= 400 and sent.method != "HEAD":
        assert answer.mimetype in ("application/problem+json", "text/html", "application/json"), answer.mimetype
    check_rows(answer, before, written(engine))
    answer.close()


def written(engine: Engine) -> dict[Any, int]:
    """Each batch, and how many edits it has."""
    return dict(rows(engine, "SELECT batch_id, count(*) FROM edits GROUP BY 1"))  # type: ignore[arg-type]


def check_rows(answer: Any, before: dict[Any, int], after: dict[Any, int]) -> None:
    """What an answer says was written is there, and nothing else."""
    more = sum(after.values()) - sum(before.values())
    said = answer.get_json(silent=True) if answer.status_code == 201 else None
    assert more == (said["edits"] if said else 0), (answer.status_code, answer.text)
