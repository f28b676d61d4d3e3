"""What one accepted POST became: the request as the emulator keeps it, and the verdict that ends it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

IN_QUEUE = "IN_QUEUE"
IN_PROGRESS = "IN_PROGRESS"
COMPLETED = "COMPLETED"

Body = Mapping[str, Any] | list[Any] | None


@dataclass(slots=True)
class Job:
    """One accepted request; the fields are the columns of the table `requests`, in its order."""

    seq: int
    request_id: str
    endpoint_id: str
    app_id: str
    origin: str
    webhook_url: str | None
    seed: int | None
    low_priority: bool
    start_by: float | None
    no_retry: bool
    store_io: bool
    direct: bool
    lifecycle: str | None
    headers: str
    markers: str
    injected: str
    submitted_at: float
    started_at: float | None = None
    ended_at: float | None = None
    attempts: int = 0
    gateway_request_id: str = ""
    cancelled_at: float | None = None
    status: int | None = None
    error: str | None = None
    error_type: str | None = None
    timeout_type: str | None = None
    needs_retry: bool | None = None
    inference_time: float | None = None
    images: str = "[]"
    billed_units: int = 0
    result_bytes: int = 0
    webhook_state: str = "none"
    webhook_tries: int = 0
    webhook_status: int | None = None
    webhook_signed_at: int | None = None
    delivered_at: float | None = None

    @property
    def state(self) -> str:
        """The queue's word for where the request is; COMPLETED is the only terminal one (provider-protocol 2.2)."""
        if self.ended_at is not None:
            return COMPLETED
        return IN_QUEUE if self.started_at is None else IN_PROGRESS

    def note_fault(self, kind: str) -> None:
        """Remember on the request itself which fault it met."""
        self.injected = f"{self.injected},{kind}" if self.injected else kind


COLUMNS = tuple(f.name for f in fields(Job))


@dataclass(slots=True, frozen=True)
class HostedImage:
    """One produced image, as the reply names it and as it lies on disk."""

    url: str
    sha256: str
    content_type: str
    file_name: str
    size: int
    width: int
    height: int


@dataclass(slots=True, frozen=True)
class Verdict:
    """How a run ended: what the result GET replays and what is charged."""

    status: int
    body: Body
    units: int = 0
    hosted: tuple[HostedImage, ...] = ()
    seed: int | None = None
    error: str | None = None
    error_type: str | None = None
    timeout_type: str | None = None
    needs_retry: bool | None = None
    inference_time: float | None = None
    injected: tuple[str, ...] = field(default=())

    def body_bytes(self) -> bytes:
        """The body as the result GET sends it."""
        return json.dumps(self.body).encode()
