"""One trace from the caller's own request to the stored image, through every process, as a real collector gets it."""

import json
import signal
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import psycopg
import pytest
import requests
from celery import Celery
from PIL import Image

from tests.support.collector import Seen, collecting, read_spans
from tests.support.running_stack import Stack, eventually
from tests.support.servers import Peer, Wire, serve
from worker.lanes import LANES

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"
MARK = "MARK6183"
"""In whatever no span may show."""


@pytest.fixture(scope="module")
def collector() -> Iterator[Wire]:
    """Takes what is exported."""
    with collecting() as wire:
        yield wire


@pytest.fixture(scope="module")
def caller() -> Iterator[Wire]:
    """The other service: it has an input image, and hears of its batch."""
    image = BytesIO()
    Image.new("RGB", (64, 64), "red").save(image, "PNG")

    def answer(peer: Peer) -> bool:
        return peer.reply(200, image.getvalue(), content_type="image/png")

    with serve(answer) as wire:
        yield wire


@pytest.fixture(scope="module")
def stack(clean_environment: None, collector: Wire) -> Iterator[Stack]:
    """A stack that traces."""
    with tempfile.TemporaryDirectory(prefix="darkroom-traces-") as folder:
        stack = Stack(Path(folder) / "home")
        stack.variables |= {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_EXPORTER_OTLP_HEADERS": f"x-collector-key={MARK}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "FAL_KEY": f"id:{MARK}",
            "NOTIFY_PRIVATE_HOSTS": "127.0.0.1",
        }
        stack.start()
        yield stack
        stack.end(signal.SIGTERM, within=20)


def environment(stack: Stack) -> dict[str, str]:
    return dict(line.split("=", 1) for line in stack.run("env").stdout.splitlines())


def document(caller: Wire) -> dict[str, object]:
    return {
        "name": MARK,
        "notify_url": f"{caller.url}/hook?token={MARK}",
        "edits": [{"prompt": MARK, "image_urls": [f"{caller.url}/in.png?token={MARK}"]}],
    }


def spans_of(collector: Wire, trace: str) -> dict[str, Seen]:
    """The spans of one trace, by name; the first of each."""
    return {span.name: span for span in reversed(read_spans(collector)) if span.trace == trace}


CALLS = {"submit", "callback", "download", "notify"}


def test_one_trace_from_request_to_image(stack: Stack, collector: Wire, caller: Wire) -> None:
    """An edit handed in over HTTP: what every process did for it hangs below the request, and that below its caller."""
    answer = requests.post(
        f"http://127.0.0.1:{stack.intake_port}/v1/batches",
        json=document(caller),
        headers={"traceparent": TRACEPARENT},
        timeout=60,
    )
    assert answer.status_code == 201, answer.text
    assert eventually(lambda: set(spans_of(collector, TRACE)) == {"POST /v1/batches", *CALLS}), stack.said
    seen = spans_of(collector, TRACE)
    request = seen.pop("POST /v1/batches")
    assert request.parent == CALLER
    assert {span.parent for span in seen.values()} == {request.id}
    in_order = [request, *(seen[name] for name in ("submit", "callback", "download", "notify"))]
    assert [span.service for span in in_order] == [
        "darkroom-intake", "darkroom-worker", "darkroom-receiver", "darkroom-worker", "darkroom-worker",
    ]  # fmt: skip
    assert in_order == sorted(in_order, key=lambda span: span.began)
    assert all(span.attributes["darkroom.batch"] == answer.json()["batch_id"] for span in seen.values())
    assert [span.attributes.get("darkroom.outcome") for span in in_order[1:]] == [
        "accepted", "applied", "stored", "delivered",
    ]  # fmt: skip
    turns = {span.id: span.name for span in read_spans(collector)}
    assert [turns.get(link) for link in seen["submit"].links] == ["run/darkroom.submit"]
    [message] = [received for received in caller.received if received.method == "POST"]
    assert message.headers["traceparent"] == f"00-{TRACE}-{seen['notify'].id}-01"


def test_command_line_begins_a_trace(stack: Stack, collector: Wire, caller: Wire) -> None:
    """A batch from the command line has a trace of its own, and nothing of it is on standard output."""
    done = stack.run("edit", "--prompt", MARK, "--image", f"{caller.url}/in.png?token={MARK}", "--json")
    assert json.loads(done.stdout)["edits"] == 1

    def traces() -> list[dict[str, Seen]]:
        roots = [span for span in read_spans(collector) if span.name == "hand in a batch"]
        return [spans_of(collector, root.trace) for root in roots]

    assert eventually(lambda: any({"submit", "callback", "download"} <= set(trace) for trace in traces()))
    [trace] = traces()
    root = trace.pop("hand in a batch")
    assert (root.service, root.parent) == ("darkroom-cli", "")
    assert {span.parent for span in trace.values()} == {root.id}


def test_message_of_a_broker_goes_on_in_its_trace(stack: Stack, collector: Wire, caller: Wire) -> None:
    """A service whose Celery is instrumented sends the header by itself."""
    trace = TRACE[::-1]
    url = environment(stack)["REDIS_URL"]
    with Celery(broker=url, backend=url) as broker:
        headers = {"traceparent": f"00-{trace}-{CALLER}-01"}
        broker.send_task("darkroom.create_batch", [document(caller)], queue="intake", headers=headers).get(timeout=60)
    assert eventually(lambda: {"run/darkroom.create_batch", *CALLS} == set(spans_of(collector, trace)))
    seen = spans_of(collector, trace)
    task = seen.pop("run/darkroom.create_batch")
    assert task.parent == CALLER
    assert {span.parent for span in seen.values()} == {task.id}


def test_no_secret_leaves(stack: Stack, collector: Wire) -> None:
    """No prompt, key, address or token of all that was handed in above; the collector gets its own key."""
    with psycopg.connect(environment(stack)["DATABASE_URL"]) as connection:
        tokens = [str(row[0]) for row in connection.execute("SELECT id FROM submissions")]
    assert len(tokens) == 3
    bodies = b"".join(request.body for request in collector.received)
    assert [word for word in (MARK, *tokens, "in.png") if word.encode() in bodies] == []
    assert {request.headers["x-collector-key"] for request in collector.received} == {MARK}


def test_page_names_what_is_seen(collector: Wire) -> None:
    """docs/tracing.md has every span, service and attribute of the traces above."""
    page = (Path(__file__).parents[3] / "docs" / "tracing.md").read_text()
    seen = read_spans(collector)
    turns = {f"run/darkroom.{lane}" for lane in LANES}
    names = {span.name for span in seen} - turns | {span.service for span in seen}
    names |= {name for span in seen for name in span.attributes if name.startswith("darkroom.")}
    assert {name for name in names if f"`{name}`" not in page} == set()
