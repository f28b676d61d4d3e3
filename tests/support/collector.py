"""A collector of traces for the tests: OTLP over HTTP on loopback, or in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from core import tracing
from core.span_export import GuardedExporter
from tests.support.servers import Peer, Wire, serve


@dataclass(frozen=True)
class Seen:
    """A span as it reached a collector; ids in hex, times in nanoseconds since 1970."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    began: int
    ended: int
    links: tuple[str, ...]
    attributes: dict[str, Any] = field(hash=False)


def read_spans(wire: Wire) -> list[Seen]:
    """Every span that was exported to a server until now, in the order of their beginning."""
    found = []
    for request in list(wire.received):
        assert (request.method, request.target) == ("POST", "/v1/traces")
        for process in ExportTraceServiceRequest.FromString(request.body).resource_spans:
            service = next(
                each.value.string_value for each in process.resource.attributes if each.key == "service.name"
            )
            found += [_read(service, span) for scope in process.scope_spans for span in scope.spans]
    return sorted(found, key=lambda span: span.began)


def _read(service: str, span: Any) -> Seen:
    attributes = {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}
    return Seen(
        service,
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        tuple(link.span_id.hex() for link in span.links),
        attributes,
    )


def take_spans(peer: Peer) -> bool:
    """The script of a collector that takes everything."""
    return peer.reply(200, b"", content_type="application/x-protobuf")


@contextmanager
def collecting() -> Iterator[Wire]:
    """A collector on a free port."""
    with serve(take_spans) as wire:
        yield wire


class Spans:
    """What this process would export, while it traces."""

    def __init__(self, provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
        self.provider, self._exporter = provider, exporter

    def all(self) -> list[ReadableSpan]:
        """In the order of their ends."""
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]


@contextmanager
def tracing_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    """This process traces, into memory, through everything but the wire."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(GuardedExporter(exporter)))
    monkeypatch.setattr(tracing, "_provider", provider)
    yield Spans(provider, exporter)
    provider.shutdown()
