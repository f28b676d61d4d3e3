"""The provider's answer in our words: bytes in, values out; callbacks and polls bring the same JSON.

Pure, and total: whatever the bytes are, the answer is a value or `Unreadable`. Judges only what became of one
submission; what follows for its edit is decided in `decisions.py`. A result that the provider no longer has
(404 on the result GET) is no verdict about the job: the caller handles it before it asks here.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from core.errors import DarkroomError
from models.seedream import EditOutput, Image

MESSAGE_MAX = 500
"""Characters of a message that are kept; the whole answer stays in `callbacks.body`."""
ENTRIES_MAX = 10
"""Entries of an error list that a message is made from."""
UNITS_MAX = 1000
"""Units that one request may be charged for; one has at most 36 images."""
FILE_DATA_MAX = 1024 * 1024
"""Characters of an image's `file_data` that are kept; of more, nothing is."""
NAME_MAX = 200
"""Characters an identifier or an error type may have; the provider's are far shorter."""


class Unreadable(DarkroomError):
    """The delivery is signed, but it is no answer that the provider documents."""


class Kind(StrEnum):
    """What became of a submission."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNFETCHED = "unfetched"
    """It ended or may have ended, but this answer does not carry how: fetch the result (again)."""


class Retry(StrEnum):
    """Whether the same edit may be paid for once more after this error."""

    NEVER = "never"
    ONCE = "once"
    TRANSIENT = "transient"


@dataclass(frozen=True, slots=True)
class DeclaredImage:
    """One image as the provider declares it; nothing of it is believed before the bytes are read."""

    url: str
    content_type: str | None = None
    file_name: str | None = None
    file_size: int | None = None
    width: int | None = None
    height: int | None = None
    file_data: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one submission; `images` only where it succeeded, `error_type` only where it did not."""

    kind: Kind
    images: tuple[DeclaredImage, ...] = ()
    seed: int | None = None
    error_type: str | None = None
    message: str | None = None
    retry: Retry = Retry.NEVER
    billable_units: Decimal | None = None
    """Units that the provider says it charges for, on a result; a callback does not tell."""
    may_be_charged: bool = False
    """Refused by the model after it began to run; such a 422 may be charged (provider-protocol 6), and nothing says it
    is not."""


@dataclass(frozen=True, slots=True)
class CallbackBody:
    """One callback. Correlate by `request_id`: the gateway's changes with each retry (provider-protocol 4.1)."""

    request_id: str
    gateway_request_id: str | None
    verdict: Verdict


_NEVER = """
    content_policy_violation no_media_generated image_too_small image_too_large image_load_error face_detection_error
    file_too_large greater_than greater_than_equal less_than less_than_equal multiple_of sequence_too_short
    sequence_too_long one_of feature_not_supported invalid_archive archive_file_count_below_minimum
    archive_file_count_exceeds_maximum audio_duration_too_long audio_duration_too_short video_duration_too_long
    video_duration_too_short unsupported_audio_format unsupported_image_format unsupported_video_format missing
    literal_error string_type list_type int_parsing value_error value_error.missing input_value_error invalid_api_key
    bad_request client_cancelled client_disconnected
"""
_ONCE = "file_download_error"
_TRANSIENT = """
    internal_server_error generation_timeout downstream_service_error downstream_service_unavailable request_timeout
    startup_timeout runner_scheduling_failure runner_connection_timeout runner_disconnected runner_connection_refused
    runner_connection_error runner_incomplete_response runner_server_error internal_error concurrent_requests_limit
"""
ERRORS: Mapping[str, Retry] = {
    **dict.fromkeys(_NEVER.split(), Retry.NEVER),
    **dict.fromkeys(_ONCE.split(), Retry.ONCE),
    **dict.fromkeys(_TRANSIENT.split(), Retry.TRANSIENT),
}
"""Every error type that provider-protocol section 5 names. `downstream_service_error` comes with 400 or 500 and is
transient either way; `file_download_error` is typed permanent but was seen for the provider's own files."""

_CANCELLED = frozenset({"client_cancelled", "client_disconnected"})
_ABOUT_US = frozenset({401, 403, 408, 429})
"""Where no type says otherwise these concern our key, our balance or our pace, not the edit (provider-protocol 5.4)."""
_STATUS_IN_TEXT = re.compile(r"status code: ([1-5]\d\d)\b")


def read_callback(body: bytes) -> CallbackBody:
    """One callback's verdict (provider-protocol 4.1).

    Raises:
        Unreadable: it is no JSON object, names no request, or says neither OK nor ERROR.
    """
    document = _parsed(body)
    if not isinstance(document, dict):
        raise Unreadable("The delivery is no JSON object.")
    request_id = _name(document.get("request_id"))
    if request_id is None:
        raise Unreadable("The delivery names no request.")
    payload, error = document.get("payload"), document.get("error")
    match document.get("status"):
        case "OK":
            verdict = _read_success(payload, document.get("payload_error"))
        case "ERROR" if payload is None:
            # no word about what failed, and so none that it was not charged: the result GET tells
            verdict = Verdict(Kind.UNFETCHED, message=_text(error))
        case "ERROR":
            # `error` is no stable contract, its number is all we take from it, and only where no type is known
            found = _STATUS_IN_TEXT.search(error) if isinstance(error, str) else None
            verdict = _read_failure(payload, int(found[1]) if found else None, other_message=error)
        case _:
            raise Unreadable("The delivery says neither OK nor ERROR.")
    return CallbackBody(request_id, _name(document.get("gateway_request_id")), verdict)


def read_result(status: int, body: bytes, error_type: str | None = None, billable_units: str | None = None) -> Verdict:
    """The verdict in the answer to a result GET.

    `error_type` is its header `X-Fal-Error-Type`, `billable_units` its `X-Fal-Billable-Units`: both as they came.

    A 4xx or 5xx is the job's own verdict (provider-protocol 2.4), unless the answer is not about the job: a proxy's
    page, a complaint about our key or our pace, or "still in progress". Believing these would end, and perhaps pay
    again for, a job that succeeded; they are `unfetched`.
    """
    verdict, units = _read_result(status, body, error_type), _units(billable_units)
    if units is None or verdict.kind is Kind.UNFETCHED:
        return verdict
    return replace(verdict, billable_units=units, may_be_charged=False)


def _units(text: str | None) -> Decimal | None:
    """What a header says of units; anything but a small number says nothing."""
    try:
        units = Decimal((text or "").strip())
    except InvalidOperation:
        return None
    return units if units.is_finite() and 0 <= units <= UNITS_MAX else None


def _read_result(status: int, body: bytes, error_type: str | None) -> Verdict:
    document = _parsed(body)
    if 200 <= status < 300:
        return _read_success(document)
    named = _name(error_type)
    if status < 400 or (named is None and not _speaks_of_the_job(status, document)):
        return Verdict(
            Kind.UNFETCHED, message=_text(_read_message(document)[1] or f"the result GET was answered {status}")
        )
    return _read_failure(document, status, header=named)


def _speaks_of_the_job(status: int, document: object) -> bool:
    type_, message = _read_message(document)
    if type_ is None and message is None:
        return False
    in_progress = status == 400 and "still in progress" in (message or "")
    return type_ is not None or not (status in _ABOUT_US or in_progress)


def _read_success(payload: object, other_message: object = None) -> Verdict:
    try:
        output = EditOutput.model_validate(payload)
    except ValidationError:
        return Verdict(Kind.UNFETCHED, message=_text(other_message) or "the answer carries no readable list of images")
    if not output.images:
        return Verdict(
            Kind.FAILED, seed=output.seed, error_type="no_images", message="The provider returned no images."
        )
    return Verdict(Kind.SUCCEEDED, images=tuple(map(_declared, output.images)), seed=output.seed)


def _declared(image: Image) -> DeclaredImage:
    data = image.file_data if len(image.file_data or "") <= FILE_DATA_MAX else None
    return DeclaredImage(
        image.url, image.content_type, image.file_name, image.file_size, image.width, image.height, data
    )


def _read_failure(
    payload: object, status: int | None, *, header: str | None = None, other_message: object = None
) -> Verdict:
    type_, text = _read_message(payload)
    error_type = type_ or header or _type_from_status(status)
    message = _text(text) or _text(other_message) or "The provider gave no reason."
    kind = Kind.CANCELLED if status == 499 or error_type in _CANCELLED else Kind.FAILED
    retry = ERRORS.get(error_type) or _by_status(status, payload)
    refused_by_the_model = kind is Kind.FAILED and (status == 422 if status else _lists_faults(payload))
    return Verdict(kind, error_type=error_type, message=message, retry=retry, may_be_charged=refused_by_the_model)


def _type_from_status(status: int | None) -> str:
    if status == 499:
        return "client_cancelled"
    return f"http_{status}" if status else "unknown_error"


def _by_status(status: int | None, payload: object) -> Retry:
    if status is None:
        # a list is the model's refusal of the input (422); without one the infrastructure speaks
        status = 422 if _lists_faults(payload) else 500
    return Retry.TRANSIENT if status >= 500 or status in _ABOUT_US else Retry.NEVER


def _lists_faults(payload: object) -> bool:
    return isinstance(payload, dict) and isinstance(payload.get("detail"), list)


def _read_message(payload: object) -> tuple[str | None, str | None]:
    """Type and message of an error body in any form (provider-protocol 5.1); the first entry of a list names it."""
    if not isinstance(payload, dict):
        return None, None
    type_, detail = _name(payload.get("error_type")), payload.get("detail")
    if isinstance(detail, str):
        return type_, detail
    entries = [entry for entry in detail if isinstance(entry, dict)] if isinstance(detail, list) else []
    if not entries:
        return type_, None
    return _name(entries[0].get("type")) or type_, "; ".join(filter(None, map(_sentence, entries[:ENTRIES_MAX])))


def _sentence(entry: Mapping[str, Any]) -> str:
    loc, msg = entry.get("loc"), entry.get("msg")
    place = [str(part) for part in loc if isinstance(part, str | int)] if isinstance(loc, list) else []
    return ": ".join(filter(None, (".".join(place).removeprefix("body."), msg if isinstance(msg, str) else "")))


def _parsed(body: bytes) -> object:
    """The JSON value; for what is none, None: no answer of the provider is a bare null."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):  # not JSON, not Unicode, a number of more than 4300 digits; nested too deeply
        return None


def _text(value: object) -> str | None:
    """Text that PostgreSQL can hold, bounded; None for what is no text or says nothing."""
    if not isinstance(value, str):
        return None
    kept = value[: 2 * MESSAGE_MAX].replace("\0", "").encode(errors="replace").decode().strip()
    return (kept if len(kept) <= MESSAGE_MAX else kept[: MESSAGE_MAX - 1] + "…") or None


def _name(value: object) -> str | None:
    """An identifier or error type as it came, or None: half of one would match nothing."""
    if isinstance(value, str) and 0 < len(value) <= NAME_MAX and value.isprintable():
        return value
    return None
