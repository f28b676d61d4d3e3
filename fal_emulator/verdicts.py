"""fal's two error shapes, built in one place: typed model errors and request errors (provider-protocol 5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .job import Verdict

DOCS = "https://docs.fal.ai/errors/#"
LONGEST_ECHO = 2000  # characters of `input` that are echoed; a data URI would make every 422 megabytes long


@dataclass(frozen=True, slots=True)
class ModelError:
    """One of fal's typed errors, as a model that edits images may give it."""

    status: int
    loc: tuple[str | int, ...]
    msg: str
    ctx: Mapping[str, Any] = field(default_factory=dict)


FLAGGED = "The content could not be processed because it contained material flagged by a content checker."
NOT_FETCHED = "Failed to download the file. Please check if the URL is accessible and try again."
FIRST = ("body", "image_urls", 0)
MODEL_ERRORS = {
    "content_policy_violation": ModelError(
        422, ("body", "image_urls"), FLAGGED, {"extra_info": {"reason": "partner_validation_failed"}}
    ),
    "internal_server_error": ModelError(500, ("body",), "Internal server error"),
    "downstream_service_error": ModelError(500, ("body",), "Downstream service error"),
    "downstream_service_unavailable": ModelError(500, ("body",), "Downstream service unavailable"),
    "generation_timeout": ModelError(504, ("body",), "Generation timed out"),
    "file_download_error": ModelError(422, FIRST, NOT_FETCHED),
    "no_media_generated": ModelError(422, ("body", "prompt"), "No image was generated"),
    "image_load_error": ModelError(422, FIRST, "Failed to load the image. Please ensure it is a valid image file."),
    "image_too_small": ModelError(422, FIRST, "Image too small", {"min_height": 14, "min_width": 14}),
    "image_too_large": ModelError(422, FIRST, "Image too large", {"max_height": 8192, "max_width": 8192}),
    "file_too_large": ModelError(422, FIRST, "File too large", {"max_size": 10 * 2**20}),
    "face_detection_error": ModelError(422, FIRST, "Could not detect a face in the image"),
    "unsupported_image_format": ModelError(
        422, FIRST, "Unsupported image format", {"supported_formats": ["png", "jpeg", "webp"]}
    ),
    "feature_not_supported": ModelError(422, ("body",), "This combination of inputs is not supported"),
}
"""Those of provider-protocol 5.2 that fit this model; what is wrong with a field's value, `arguments` says itself."""
MAY_BE_RETRIED = frozenset(kind for kind, error in MODEL_ERRORS.items() if error.status >= 500)

REQUEST_ERRORS = {
    "request_timeout": (504, "Request timed out"),
    "startup_timeout": (504, "Request did not start before its deadline"),
    "runner_scheduling_failure": (503, "No runner could be scheduled"),
    "runner_connection_timeout": (503, "Connection to the runner timed out"),
    "runner_disconnected": (503, "Runner disconnected"),
    "runner_connection_refused": (503, "Runner refused the connection"),
    "runner_connection_error": (503, "Connection to the runner failed"),
    "runner_incomplete_response": (502, "Runner sent an incomplete response"),
    "runner_server_error": (500, "Runner failed"),
    "client_disconnected": (499, "Client disconnected"),
    "client_cancelled": (499, "Request was cancelled by the client"),
    "bad_request": (400, "Bad request"),
    "internal_error": (500, "Internal error"),
}
"""All of provider-protocol 5.3."""


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


def model_error(kind: str, given: Any = None, *, position: int = 0, **ctx: Any) -> dict[str, Any]:
    """The entry of a typed error; `position` is that of the image it is about, `ctx` what the table cannot know."""
    error = MODEL_ERRORS[kind]
    loc = [position if part == 0 else part for part in error.loc]
    return detail(kind, loc, error.msg, ctx={**error.ctx, **ctx}, given=given)


def refused(details: Sequence[Mapping[str, Any]], *, seed: int | None = None, units: int = 0) -> Verdict:
    """The verdict of a model that did not make the image; the first entry decides the status."""
    kind = details[0]["type"]
    return Verdict(
        status=MODEL_ERRORS[kind].status if kind in MODEL_ERRORS else 422,
        body={"detail": [dict(entry) for entry in details]},
        error_type=kind,
        error=details[0]["msg"],
        needs_retry=kind in MAY_BE_RETRIED,
        seed=seed,
        units=units,
    )


def request_error(kind: str, *, timeout_type: str | None = None) -> Verdict:
    """The verdict of the infrastructure: `{"detail", "error_type"}` (provider-protocol 5.3)."""
    status, message = REQUEST_ERRORS[kind]
    return Verdict(
        status=status,
        body={"detail": message, "error_type": kind},
        error=message,
        error_type=kind,
        timeout_type=timeout_type,
        needs_retry=False,
    )


def not_found() -> Verdict:
    """An unknown path in a known application: accepted at submit, 404 as the outcome (provider-protocol 5.4)."""
    return Verdict(status=404, body={"detail": "Not found"}, error="Not found")
