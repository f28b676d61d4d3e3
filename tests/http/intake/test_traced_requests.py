"""The trace of a batch begins with the request that brought it, or goes on from its caller's."""

import re
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from intake.traced_requests import trace_requests
from tests.support.api_client import ALICE, EDIT, KEYS, hand_in, intake_app
from tests.support.collector import Spans, tracing_here
from tests.support.receiving import rows

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HOSTILE = {
    "another version that nobody wrote": f"ff-{TRACE}-{PARENT}-01",
    "more behind it": f"00-{TRACE}-{PARENT}-01-" + "a" * 100_000,
    "no trace": f"00-{'0' * 32}-{PARENT}-01",
    "no parent": f"00-{TRACE}-{'0' * 16}-01",
    "capitals": f"00-{TRACE.upper()}-{PARENT}-01",
    "too short": f"00-{TRACE}-{PARENT}",
    "a control character": f"00-{TRACE}-{PARENT}-01\x00",
    "SQL": "'; DROP TABLE batches; --",
    "other digits": f"00-{TRACE}-{PARENT}-0१",
    "nothing": "",
}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    """This process traces."""
    with tracing_here(monkeypatch) as spans:
        yield spans


@pytest.fixture
def client(spans: Spans, database_url: str) -> Iterator[FlaskClient]:
    """The API, with a key, traced as `create_server` does it."""
    with intake_app(database_url, darkroom_api_keys=KEYS, intake_max_bytes=5000) as app:
        trace_requests(app, spans.provider)
        client = app.test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {ALICE}"
        yield client


def remembered(engine: Engine) -> list[str | None]:
    return [row[0] for row in rows(engine, "SELECT traceparent FROM batches ORDER BY created_at")]


def test_a_batch_goes_on_in_its_callers_trace(client: FlaskClient, spans: Spans, engine: Engine) -> None:
    """The batch belongs to the request's own span, and that one to the caller's; however late its calls come."""
    client.environ_base["HTTP_TRACEPARENT"] = f"00-{TRACE}-{PARENT}-01"
    hand_in(client)
    [span] = spans.all()
    assert (span.name, span.kind) == ("POST /v1/batches", SpanKind.SERVER)
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    assert remembered(engine) == [f"00-{TRACE}-{span.context.span_id:016x}-01"]


def test_what_the_caller_leaves_out_of_its_trace_stays_out(client: FlaskClient, spans: Spans, engine: Engine) -> None:
    """Its decision is remembered with the batch, so that no lane traces what nobody keeps."""
    client.environ_base["HTTP_TRACEPARENT"] = f"00-{TRACE}-{PARENT}-00"
    hand_in(client)
    assert spans.all() == []
    assert [text[-3:] for text in remembered(engine) if text] == ["-00"]


@pytest.mark.parametrize("given", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_traceparent_is_ignored(given: str, client: FlaskClient, spans: Spans, engine: Engine) -> None:
    """The batch is taken, and has a trace of its own."""
    client.environ_base["HTTP_TRACEPARENT"] = given
    client.environ_base["HTTP_TRACESTATE"] = client.environ_base["HTTP_BAGGAGE"] = given
    hand_in(client)
    [span] = spans.all()
    [text] = remembered(engine)
    assert span.parent is None
    assert text == f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-03"
    assert TRACE not in text


def test_an_existing_batch_keeps_its_trace(client: FlaskClient, spans: Spans, engine: Engine) -> None:
    """A caller that asks again gets its batch, and what is in flight does not change its trace."""
    for _ in range(2):
        client.post("/v1/batches", json={"edits": [EDIT]}, headers={"Idempotency-Key": "one"})
    first, _ = spans.all()
    assert remembered(engine) == [f"00-{first.context.trace_id:032x}-{first.context.span_id:016x}-03"]


def test_only_the_api_is_traced(client: FlaskClient, spans: Spans) -> None:
    """The page that refreshes itself, and whoever looks whether we live, would hide everything else."""
    for path in ("/", "/livez", "/healthz", "/metrics", "/openapi.json", "/docs", "/nothing", "//v1/", "/x?/v1/"):
        client.get(path)
    assert spans.all() == []
    client.get("/v1/batches")
    assert [span.name for span in spans.all()] == ["GET /v1/batches"]


def test_no_secret_in_a_span(client: FlaskClient, spans: Spans, engine: Engine) -> None:
    """Key, prompt, address, query, a path that is no route, and the words of an error that nobody expected."""
    hand_in(client, {"prompt": "MARK", "image_urls": ["https://example.com/MARK.png?token=MARK"]}, name="MARK")
    client.post("/v1/batches?MARK=MARK", json={"edits": [{"prompt": "MARK"}]}, headers={"User-Agent": "MARK"})
    client.post("/v1/MARK")
    client.get("/v1/batches/MARK/edits", headers={"Host": "MARK"})
    client.open("/v1/batches", method="MARK")
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE batches ADD CHECK (name <> 'MARK') NOT VALID")
    try:
        assert client.post("/v1/batches", json={"name": "MARK", "edits": [EDIT]}).status_code == 500
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE batches DROP CONSTRAINT batches_name_check")
    assert spans.all()[-1].status.status_code is StatusCode.ERROR
    assert len(spans.all()) == 6
    text = "".join(span.to_json() for span in spans.all())
    assert re.findall("MARK|" + ALICE, text) == []


def test_the_database_takes_no_other(client: FlaskClient, engine: Engine) -> None:
    """Whatever writes a batch one day, what the lanes read is a traceparent."""
    hand_in(client)
    for given in ("too short", "more behind it", "capitals", "SQL", "other digits", "nothing"):
        with pytest.raises(IntegrityError), engine.begin() as connection:
            connection.exec_driver_sql("UPDATE batches SET traceparent = %s", (HOSTILE[given],))
