"""Traces: one for each batch, from the request that brought it to its images (docs/tracing.md).

While tracing is off, nothing here imports OpenTelemetry, and a caller pays for one comparison.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from core.settings import TracingSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Link, Span, SpanKind

_provider: "TracerProvider | None" = None
"""This process's, once it has begun to trace."""

Attributes = Mapping[str, str | int]


def start_tracing(service: str, settings: TracingSettings) -> "TracerProvider | None":
    """Trace from now on, if the settings say so; called after a fork, which the exporter's thread would not survive.

    Returns what a standard instrumentation wants to be given; None where tracing is off.
    """
    global _provider
    if settings.otel_traces_exporter == "none":
        return None
    from core.span_export import make_provider

    _provider = make_provider(service, settings)
    return _provider


def is_tracing() -> bool:
    """Whether this process traces."""
    return _provider is not None


def current_traceparent() -> str | None:
    """What continues the span that is under way in this thread, as W3C's `traceparent`; None where there is none."""
    if _provider is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


def current_links() -> "list[Link]":
    """What leads from another trace to the span that is under way in this thread; none where there is none."""
    from opentelemetry.trace import Link, get_current_span

    context = get_current_span().get_span_context()
    return [Link(context)] if context.is_valid else []


def start_span(
    name: str,
    kind: "SpanKind",
    *,
    attributes: Attributes,
    traceparent: str | None = None,
    began: int | None = None,
    links: "list[Link] | None" = None,
) -> "Span":
    """A span that somebody has to end, in the trace of `traceparent`, or in a new one. Only while tracing.

    `began`: nanoseconds since 1970, unless it begins now.
    """
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    assert _provider is not None
    carrier = {"traceparent": traceparent} if traceparent else {}
    context = TraceContextTextMapPropagator().extract(carrier, Context())
    tracer = _provider.get_tracer("darkroom")
    return tracer.start_span(name, context, kind, dict(attributes), links, began)


@contextmanager
def trace_command(name: str) -> Iterator[None]:
    """The span of what a person does at the command line, which begins a trace; nothing while tracing is off."""
    if _provider is None:
        yield
        return
    from opentelemetry.trace import SpanKind, use_span

    with use_span(start_span(name, SpanKind.INTERNAL, attributes={}), end_on_exit=True):
        yield
