"""How spans leave a process: few attributes, never a text of somebody else's, and at nobody's expense.

Work never waits for a collector: spans wait in a bounded queue, what finds no place in it is dropped, and an export
has a deadline. Imported only where tracing is on (`core/tracing.py`).
"""

import atexit
import logging
import sys
import time
from collections.abc import Sequence

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_NAMESPACE, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import Status
from opentelemetry.util.re import parse_env_headers

from core.settings import TracingSettings, read_network

# the standard logger, for the command line configures no other
log = logging.getLogger(__name__)

EXPORT_TIMEOUT = 3.0
"""Seconds for one export with all its tries."""
CLOSE_WITHIN = 3.0
"""Seconds after the end of the work in which an export may still begin."""
OWN = "darkroom."
"""How the names of our own attributes begin."""
KEPT = frozenset(
    {
        *("http.method", "http.request.method", "http.route", "http.status_code", "http.response.status_code"),
        *("celery.action", "celery.state", "celery.task_name", "messaging.message.id", "error.type"),
    }
)
"""What is kept of what the instrumentations collect. They also know addresses, queries, and the texts of errors."""


def make_provider(service: str, settings: TracingSettings) -> TracerProvider:
    """What makes this process's spans and hands them over, until the process ends."""
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # `GuardedExporter` says it, once
    exporter = GuardedExporter(_make_exporter(settings))
    provider = TracerProvider(
        ParentBasedTraceIdRatio(settings.otel_traces_sampler_arg),
        Resource.create({SERVICE_NAME: service, SERVICE_NAMESPACE: "darkroom"}),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))

    def close() -> None:
        exporter.close_soon()
        provider.shutdown()

    atexit.register(close)
    return provider


def _make_exporter(settings: TracingSettings) -> SpanExporter:
    if settings.otel_traces_exporter == "console":
        # where the logs are, for standard output belongs to what a command answers
        return ConsoleSpanExporter(out=sys.stderr, formatter=lambda span: span.to_json(indent=None) + "\n")
    url, secret, network = settings.otel_exporter_otlp_endpoint, settings.otel_exporter_otlp_headers, read_network()
    session = requests.Session()
    session.trust_env = False  # `core/network.py` says why
    if proxy := network.proxy_for(url):
        session.proxies = {"http": proxy, "https": proxy}
    return OTLPSpanExporter(
        f"{url}/v1/traces",
        certificate_file=network.ca_file,
        headers=parse_env_headers(secret.get_secret_value(), liberal=True) if secret else None,
        timeout=EXPORT_TIMEOUT,
        session=session,
    )


class GuardedExporter(SpanExporter):
    """Another exporter, which is given nothing but what may be seen, and whose trouble is told once."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._failing = False
        self._closed_at = float("inf")

    def close_soon(self) -> None:
        """Begin no export any more in a while: the process has to end, whatever is left."""
        self._closed_at = time.monotonic() + CLOSE_WITHIN

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Hand over a set of spans."""
        if time.monotonic() > self._closed_at:
            return SpanExportResult.FAILURE
        result = self._exporter.export([strip_span(span) for span in spans])
        failing = result is not SpanExportResult.SUCCESS
        if failing and not self._failing:
            log.warning("The collector takes no traces; work goes on without them.")
        self._failing = failing
        return result

    def shutdown(self) -> None:
        """The end of it."""
        self._exporter.shutdown()


def strip_span(span: ReadableSpan) -> ReadableSpan:
    """The same span with those attributes only that hold no secret: no event, and no word with its status, for both
    quote errors."""
    attributes = span.attributes or {}
    return ReadableSpan(
        span.name,
        span.context,
        span.parent,
        span.resource,
        {name: value for name, value in attributes.items() if name in KEPT or name.startswith(OWN)},
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
