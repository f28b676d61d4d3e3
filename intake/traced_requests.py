"""A span for each request of the API, through OpenTelemetry's own instrumentation of Flask."""

from flask import Flask, request
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span

NOT_THE_API = r"^https?://[^/]+/(?!v1/)"
"""Addresses without spans: the page asks for its parts every few seconds, as health checks and Prometheus do."""


def trace_requests(app: Flask, provider: TracerProvider) -> None:
    """Trace the requests of one application, each in the trace that its caller names, or in a new one."""
    FlaskInstrumentor.instrument_app(  # type: ignore[no-untyped-call]
        app,
        request_hook=_hide_path,
        tracer_provider=provider,
        excluded_urls=NOT_THE_API,
        enable_commenter=False,
    )


def _hide_path(span: Span, _: dict[str, str]) -> None:
    """A path that is no route of ours may be anything, as may the method, so they name no span."""
    if request.url_rule is None:
        span.update_name("HTTP")
