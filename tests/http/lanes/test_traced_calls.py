"""Every call of a lane is seen in the trace of its batch, and nobody outside learns of the trace."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID

import pytest
import requests
from opentelemetry.trace import StatusCode
from sqlalchemy import Engine

from core.tracing import start_span
from tests.support.collector import Spans, collecting, read_spans, tracing_here
from tests.support.lane_runner import Emulator, all_are, lane_runner, make_edits, stand
from tests.support.receiving import rows
from tests.support.servers import LONGEST, Peer, Script, serve
from worker import traced_calls
from worker.webhook_sender import WebhookSender
from worker.webhook_signing import Signer, new_secret, read_secrets

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
TELLING = {"traceparent", "tracestate", "baggage"}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    """This process traces."""
    with tracing_here(monkeypatch) as spans:
        yield spans


def make_traced(engine: Engine, *prompts: str) -> UUID:
    """A batch that belongs to a trace."""
    batch = make_edits(engine, prompts)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE batches SET traceparent = %s WHERE id = %s", (TRACEPARENT, batch))
    return batch


def test_calls_of_an_edit_are_in_its_trace(engine: Engine, emulator: Emulator, tmp_path: Path, spans: Spans) -> None:
    """Submit, callback and download, each below the request that brought the batch, and what came of it."""
    batch = make_traced(engine, "one")
    make_edits(engine, ["of a batch without a trace"])
    with lane_runner(engine, emulator, tmp_path) as worker:
        worker.work_until(all_are(engine, stored=2))
    [(edit, request)] = rows(
        engine,
        f"SELECT e.id, s.request_id FROM edits e JOIN submissions s ON s.edit_id = e.id WHERE batch_id = '{batch}'",
    )
    about = {"darkroom.batch": str(batch), "darkroom.attempt": 1, "darkroom.edit": edit}
    assert {span.name: dict(span.attributes) for span in spans.all()} == {
        "submit": {**about, "darkroom.outcome": "accepted", "darkroom.request": request},
        "callback": {**about, "darkroom.outcome": "applied", "darkroom.request": request},
        "download": {**about, "darkroom.outcome": "stored"},
    }
    assert {f"{span.context.trace_id:032x} {span.parent.span_id:016x}" for span in spans.all()} == {f"{TRACE} {PARENT}"}
    [submit], [callback], [download] = map(spans.named, ("submit", "callback", "download"))
    assert submit.start_time < callback.start_time < callback.end_time < download.start_time < download.end_time


def test_what_fails_is_seen_to(engine: Engine, emulator: Emulator, tmp_path: Path, spans: Spans) -> None:
    """Each attempt has its number, and a call that came to nothing the error, without its words."""
    make_traced(engine, "[[fault:reset_before_accept]]")
    with lane_runner(engine, emulator, tmp_path, without_callbacks=True, submit_start_timeout=1, run_allowance=0.5,
                     delivery_allowance=0.5) as worker:  # fmt: skip
        worker.work_until(lambda: len(spans.named("submit")) > 1)
    first, second = spans.named("submit")[:2]
    assert (first.attributes["darkroom.outcome"], first.status.status_code) == ("UnknownOutcome", StatusCode.ERROR)
    assert (first.attributes["darkroom.attempt"], second.attributes["darkroom.attempt"]) == (1, 2)
    assert not any(span.events or span.status.description for span in spans.all())


def test_the_provider_learns_nothing_of_a_trace(
    engine: Engine, emulator: Emulator, tmp_path: Path, spans: Spans
) -> None:
    """Neither its queue nor the host of its images gets a header that only we and our caller know."""

    def forward(peer: Peer) -> bool:
        got = peer.request
        headers = {name: value for name, value in got.headers.items() if name not in ("host", "connection")}
        answer = requests.request(got.method, emulator.url + got.target, headers=headers, data=got.body, timeout=60)
        body = answer.content.replace(emulator.url.encode(), wire.url.encode())
        return peer.reply(answer.status_code, body, content_type=answer.headers["Content-Type"])

    make_traced(engine, "one", "two")
    with serve(forward) as wire:
        places = dict.fromkeys(("fal_queue_url", "fal_api_url"), wire.url)
        with lane_runner(engine, emulator, tmp_path, without_callbacks=True, **places) as worker:
            worker.work_until(all_are(engine, stored=2))
    assert {span.name for span in spans.all()} == {"submit", "poll", "download"}
    assert {request.method for request in wire.received} == {"GET", "POST"}
    assert any(request.target.endswith(".png") for request in wire.received), "images came another way"
    assert [request.target for request in wire.received if TELLING & set(request.headers)] == []


def test_a_caller_is_told_its_trace(spans: Spans) -> None:
    """Whoever handed the batch in with a trace of its own finds the notification in it."""
    secrets = read_secrets(new_secret())
    with serve(lambda peer: peer.reply(200)) as wire:
        sender = WebhookSender(Signer(secrets), ("127.0.0.1",))
        span = start_span("notify", traced_calls.SpanKind.CLIENT, attributes={}, traceparent=TRACEPARENT)
        with traced_calls.use_span(span, end_on_exit=True):
            assert sender.deliver(f"{wire.url}/hook", "1", "{}", client="local").error is None
        assert sender.deliver(f"{wire.url}/hook", "2", "{}", client="local").error is None
    inside, outside = (request.headers.get("traceparent") for request in wire.received)
    assert inside == f"00-{TRACE}-{span.get_span_context().span_id:016x}-01"
    assert outside is None


def test_no_secret_in_a_span(engine: Engine, emulator: Emulator, tmp_path: Path, spans: Spans) -> None:
    """No prompt, no key, no address, and no submission's id: it is what lets a callback in."""
    make_traced(engine, "MARK", "MARK [[fail:content_policy_violation]]", "MARK [[fault:nginx_502_after]]")
    with lane_runner(engine, emulator, tmp_path, poll_after=0.2, fal_key="id:MARK") as worker:
        worker.work_until(lambda: not {"submitted", "submitting", "pending", "ready"} & set(stand(engine)))
    tokens = [str(row[0]) for row in rows(engine, "SELECT id FROM submissions")]
    text = "".join(span.to_json() for span in spans.all())
    assert "callback" in text
    assert [word for word in (*tokens, "MARK", "http://", "example.com") if word in text] == []


def test_work_goes_on_where_traces_cannot_be_found(
    engine: Engine, emulator: Emulator, tmp_path: Path, spans: Spans
) -> None:
    """What is claimed is worked on and what is committed is answered: spans are lost, no submission is left behind."""
    make_traced(engine, "one", "and one whose callback comes later")
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE batches RENAME traceparent TO elsewhere")
    try:
        with lane_runner(engine, emulator, tmp_path, max_in_flight=1) as worker:
            worker.work_until(all_are(engine, stored=2))
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE batches RENAME elsewhere TO traceparent")
    assert spans.all() == []
    assert rows(engine, "SELECT effect FROM callbacks") == [("applied",)] * 2


LEAVE = """
import sys, time
from core.logs import configure_logs
from opentelemetry.trace import SpanKind
from core.settings import TracingSettings, load
from core.tracing import start_span, start_tracing
configure_logs()
start_tracing("darkroom-test", load(TracingSettings))
for number in range(10_000):
    start_span("call", SpanKind.CLIENT, attributes={}).end()
    if number % 1000 == 0:
        time.sleep(0.2)
print("worked")
"""


IN_TROUBLE: dict[str, Script] = {
    "away": lambda peer: None,
    "silent": lambda peer: peer.silence(10 * LONGEST),
    "refuses": lambda peer: peer.reply(401, b"MARK"),
    "cuts": lambda peer: peer.reset(),
}


def test_a_collector_in_trouble_holds_nobody_up() -> None:
    """Processes work on, say so in one line, and end; they wait for neither queue nor answer."""
    with ExitStack() as stack:
        wires = {name: stack.enter_context(serve(script)) for name, script in IN_TROUBLE.items()}
        leaving = {name: stack.enter_context(leave(name, wire.url)) for name, wire in wires.items()}
        said = {
            name: (*process.communicate(timeout=4 * LONGEST), process.returncode) for name, process in leaving.items()
        }
    for name, (printed, complained, status) in said.items():
        assert (status, printed) == (0, "worked\n"), name
        assert complained.count("\n") <= 1, complained
        assert "The collector takes no traces" in complained
        assert "MARK" not in complained
        assert (name == "away") == (not wires[name].received)


def leave(collector: str, url: str) -> subprocess.Popen[str]:
    """A process that traces, and then ends."""
    environment = {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1" if collector == "away" else url,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-key=MARK",
        "OTEL_BSP_MAX_QUEUE_SIZE": "20000",
    }
    command = (sys.executable, "-c", LEAVE)
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_what_a_process_did_last_is_exported() -> None:
    """A command of the command line is over before any schedule."""
    with collecting() as wire:
        environment = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": wire.url}
        code = LEAVE.replace("10_000", "10")
        subprocess.run(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.DEVNULL, timeout=120, check=True
        )
    assert [span.name for span in read_spans(wire)] == ["call"] * 10
