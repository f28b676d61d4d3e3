"""fal's two error shapes, built in one place: typed model errors and request errors (fal-protocol 5)."""

from collections.abc import Mapping, Sequence
from typing import Any

from .job import Verdict

DOCS = "https://docs.fal.ai/errors/#"
LONGEST_ECHO = 2000  # characters of `input` that are echoed; a data URI would make every 422 megabytes long

STATUS_OF_TYPE = {
    "internal_server_error": 500,
    "generation_timeout": 504,
    "downstream_service_error": 500,
    "downstream_service_unavailable": 500,
}
MAY_BE_RETRIED = frozenset(STATUS_OF_TYPE)

REQUEST_ERRORS = {
    "request_timeout": (504, "Request timed out"),
    "startup_timeout": (504, "Request did not start before its deadline"),
    "runner_disconnected": (503, "Runner disconnected"),
    "client_cancelled": (499, "Request was cancelled by the client"),
    "bad_request": (400, "Bad request"),
    "internal_error": (500, "Internal error"),
}


def detail(
    kind: str,
    loc: Sequence[str | int],
    msg: str,
    *,
    ctx: Mapping[str, Any] | None = None,
    given: Any = None,
) -> dict[str, Any]:
    """One entry of a `detail` list."""
    entry: dict[str, Any] = {"loc": list(loc), "msg": msg, "type": kind, "url": DOCS + kind}
    if ctx:
        entry["ctx"] = dict(ctx)
    if len(repr(given)) <= LONGEST_ECHO:
        entry["input"] = given
    return entry


def refused(details: Sequence[Mapping[str, Any]], *, seed: int | None = None, units: int = 0) -> Verdict:
    """The verdict of a model that did not make the picture; the first entry decides the status."""
    kind = details[0]["type"]
    return Verdict(
        status=STATUS_OF_TYPE.get(kind, 422),
        body={"detail": [dict(entry) for entry in details]},
        error_type=kind,
        error=details[0]["msg"],
        needs_retry=kind in MAY_BE_RETRIED,
        seed=seed,
        units=units,
    )


def request_error(kind: str, *, text: str | None = None, timeout_type: str | None = None) -> Verdict:
    """The verdict of the infrastructure: `{"detail", "error_type"}` (fal-protocol 5.3)."""
    status, default = REQUEST_ERRORS[kind]
    message = text or default
    return Verdict(
        status=status,
        body={"detail": message, "error_type": kind},
        error=message,
        error_type=kind,
        timeout_type=timeout_type,
        needs_retry=False,
    )


def not_found() -> Verdict:
    """An unknown path in a known application: accepted at submit, 404 as the outcome (fal-protocol 5.4)."""
    return Verdict(status=404, body={"detail": "Not found"}, error="Not found")
