"""A span for each call of a lane, in the trace of the batch that it is made for.

One statement a claim finds the traces. Trouble in here is logged and costs a span, never a reply: that of a paid POST
is worth more.
"""

from collections.abc import Sequence
from typing import Generic

import structlog
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, use_span

from core.tracing import current_links, start_span
from models.traces import TraceOrigin, find_origins
from worker.lane import CallingLane, Item
from worker.lane_loop import Reply, reason

log = structlog.get_logger()


class TracedCalls(Generic[Item, Reply]):
    """A lane as the loop sees it, its calls traced; made where the turn's own span is under way."""

    def __init__(self, lane: CallingLane[Item, Reply]) -> None:
        self.width, self.lease, self.longest_turn = lane.width, lane.lease, lane.longest_turn
        self.record, self.renew, self.has_backlog = lane.record, lane.renew, lane.has_backlog
        self._lane = lane
        self._name = type(lane).__module__.rpartition(".")[2]
        self._links = current_links()
        self._origins: dict[object, TraceOrigin] = {}

    def claim(self, free: int) -> Sequence[Item]:
        """What the lane claims; the traces of it are looked up at once."""
        items = self._lane.claim(free)
        if items:
            try:
                with self._lane.engine.begin() as connection:
                    origins = find_origins(connection, self._lane.traces, [item.id for item in items])
            except Exception as error:  # the items are claimed, and are worked on whatever happens here
                log.warning("calls_not_traced", calls=len(items), reason=reason(error))
            else:
                self._origins |= {origin.id: origin for origin in origins}
        return items

    def perform(self, item: Item) -> Reply:
        """The call, between the begin and the end of its span."""
        origin = self._origins.pop(item.id, None)
        if origin is None:
            return self._lane.perform(item)
        span = start_span(
            self._name,
            SpanKind.CLIENT,
            attributes=origin.attributes(),
            traceparent=origin.traceparent,
            links=self._links,
        )
        # what is raised is the loop's to tell; of it the span keeps that it was
        with use_span(span, end_on_exit=True, record_exception=False):
            reply = self._lane.perform(item)
            self._describe(span, reply)
            return reply

    def _describe(self, span: Span, reply: Reply) -> None:
        try:
            outcome, failed, request_id = self._lane.describe(reply)
        except Exception as error:
            log.error("call_not_described", lane=self._name, reason=reason(error))
            return
        span.set_attribute("darkroom.outcome", outcome)
        if request_id:
            span.set_attribute("darkroom.request", request_id)
        if failed:
            span.set_status(Status(StatusCode.ERROR))
