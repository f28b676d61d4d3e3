"""A span for each delivery about a submission of ours, from when it was verified to its commit."""

import time
from collections.abc import Sequence

import structlog
from opentelemetry.trace import SpanKind
from sqlalchemy import Engine

from core.tracing import start_span
from models.database_errors import original
from models.traces import TRACES_OF_SUBMISSIONS, TraceOrigin, find_origins
from webhook_receiver.recording import read_token
from webhook_receiver.waves import Recorded

log = structlog.get_logger()


class DeliveryTracer:
    """Traces sets of deliveries, each after its commit, when whoever sent them is answered already."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __call__(self, deliveries: Sequence[Recorded]) -> None:
        """Trace what is committed at this moment; raises nothing."""
        ended, now = time.time_ns(), time.monotonic()
        try:
            origins = self._find_origins(deliveries)
            for recorded in deliveries:
                if (origin := origins.get(read_token(recorded.delivery.token))) is not None:
                    _trace(recorded, origin, began=ended - int((now - recorded.since) * 1e9), ended=ended)
        except Exception as error:
            log.warning("deliveries_not_traced", deliveries=len(deliveries), reason=type(original(error)).__name__)

    def _find_origins(self, deliveries: Sequence[Recorded]) -> dict[object, TraceOrigin]:
        tokens = {token for recorded in deliveries if (token := read_token(recorded.delivery.token)) is not None}
        if not tokens:
            return {}
        with self._engine.begin() as connection:
            return {origin.id: origin for origin in find_origins(connection, TRACES_OF_SUBMISSIONS, list(tokens))}


def _trace(recorded: Recorded, origin: TraceOrigin, *, began: int, ended: int) -> None:
    span = start_span(
        "callback",
        SpanKind.SERVER,
        attributes={
            **origin.attributes(),
            "darkroom.outcome": recorded.effect.value,
            "darkroom.request": recorded.delivery.signed.request_id,
        },
        traceparent=origin.traceparent,
        began=began,
    )
    span.end(ended)
