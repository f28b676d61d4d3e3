"""What the provider answers becomes the right verdict through both entry points, and nothing it answers can hurt us."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.seedream import INT32_MAX, INT64_MAX
from models.verdict import (
    ERRORS,
    FILE_DATA_MAX,
    MESSAGE_MAX,
    Kind,
    Retry,
    Unreadable,
    Verdict,
    read_callback,
    read_result,
)

SAMPLES = [
    sample
    for sample in sorted((Path(__file__).parents[2] / "samples").iterdir())
    if not (sample / "status").read_text().startswith("submit")  # what a submit is answered is tests/http's
]
REQUEST = "8f1c3c52-6a1e-4a0e-9d55-0d5a7c1f2b11"


def _delivery(**fields: object) -> bytes:
    return json.dumps({"request_id": REQUEST, "gateway_request_id": REQUEST, "status": "OK", **fields}).encode()


def _as_callback(status: int, body: bytes) -> bytes:
    """The same outcome as a callback carries it (provider-protocol 4.1)."""
    error = None if status < 400 else f"Invalid status code: {status}"
    return _delivery(status="ERROR" if error else "OK", payload=json.loads(body), error=error)


def _words(verdict: Verdict) -> dict[str, Any]:
    words: dict[str, Any] = json.loads(json.dumps(asdict(verdict)))
    return words


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_every_recorded_answer_gets_its_verdict_by_callback_and_by_poll(sample: Path) -> None:
    """A result that is fetched and the same result in a callback mean the same."""
    status, body = (sample / "status").read_text().strip(), (sample / "body.json").read_bytes()
    expected = json.loads((sample / "expected.json").read_text())

    if status == "callback":
        assert _words(read_callback(body).verdict) == expected
    else:
        assert _words(read_result(int(status), body)) == expected
        assert _words(read_callback(_as_callback(int(status), body)).verdict) == expected


def test_every_error_type_of_the_table_has_a_sample() -> None:
    """A type whose retry rule nobody has seen applied is a guess about money."""
    seen = {json.loads((sample / "expected.json").read_text())["error_type"] for sample in SAMPLES}

    assert set(ERRORS) <= seen


def test_only_named_types_are_paid_for_again() -> None:
    """The whole list of what may cost a second attempt, so that a type cannot slip into it unnoticed."""
    assert {type_ for type_, retry in ERRORS.items() if retry is Retry.ONCE} == {"file_download_error"}
    assert {type_ for type_, retry in ERRORS.items() if retry is Retry.TRANSIENT} == {
        "internal_server_error",
        "generation_timeout",
        "downstream_service_error",
        "downstream_service_unavailable",
        "request_timeout",
        "startup_timeout",
        "runner_scheduling_failure",
        "runner_connection_timeout",
        "runner_disconnected",
        "runner_connection_refused",
        "runner_connection_error",
        "runner_incomplete_response",
        "runner_server_error",
        "internal_error",
        "concurrent_requests_limit",
    }


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(502, b"<html><center>nginx</center></html>", id="page of a proxy"),
        pytest.param(503, b"", id="nothing"),
        pytest.param(500, b'{"error": {"type": "x", "message": "y"}}', id="another API's form"),
        pytest.param(401, b'{"detail": "invalid key credentials"}', id="our key"),
        pytest.param(403, b'{"detail": "User is locked. Reason: Exhausted balance."}', id="our balance"),
        pytest.param(429, b'{"detail": "Too many requests"}', id="our pace"),
        pytest.param(400, b'{"detail": "Request is still in progress"}', id="not finished"),
        pytest.param(302, b"", id="redirect"),
        pytest.param(200, b"<html></html>", id="page with 200"),
        pytest.param(200, b'{"detail": "?"}', id="no output"),
    ],
)
def test_what_is_not_the_jobs_voice_ends_no_job(status: int, body: bytes) -> None:
    """Trouble on the way to a result is asked about again; a paid image is not thrown away or paid for twice."""
    assert read_result(status, body).kind is Kind.UNFETCHED


def test_the_header_names_the_type_where_the_body_is_silent() -> None:
    """An empty 504 with the provider's own header is its verdict."""
    verdict = read_result(504, b"", "startup_timeout")

    assert (verdict.kind, verdict.error_type, verdict.retry) == (Kind.FAILED, "startup_timeout", Retry.TRANSIENT)


def test_the_bodys_own_type_outranks_the_header() -> None:
    """The model's word decides about money, not the gateway's summary of it."""
    body = b'{"detail": [{"loc": ["body"], "msg": "no", "type": "content_policy_violation"}]}'

    assert read_result(422, body, "internal_error").error_type == "content_policy_violation"


def test_a_delivery_keeps_both_request_ids_apart() -> None:
    """`request_id` stays the same when the provider retries inside, the gateway's does not."""
    delivery = read_callback(_delivery(gateway_request_id="other", payload=None))

    assert (delivery.request_id, delivery.gateway_request_id) == (REQUEST, "other")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\xfe\xfa", id="no text"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[1]", id="list"),
        pytest.param(b"[" * 200_000, id="nested too deeply"),
        pytest.param(b'{"a":' * 200_000, id="objects nested too deeply"),
        pytest.param(b'{"request_id": ' + b"9" * 5000 + b"}", id="endless number"),
        pytest.param(b'{"status": "OK", "payload": null}', id="no request"),
        pytest.param(_delivery(request_id=7), id="request is a number"),
        pytest.param(_delivery(request_id="a\0b"), id="NUL in the request"),
        pytest.param(_delivery(request_id="\ud800"), id="lone surrogate in the request"),
        pytest.param(_delivery(request_id="x" * 100_000), id="endless request"),
        pytest.param(_delivery(status="COMPLETED"), id="neither OK nor ERROR"),
        pytest.param(_delivery(status=None), id="no status"),
    ],
)
def test_what_is_no_delivery_is_unreadable(body: bytes) -> None:
    """A signed delivery that makes no sense is one named error, so that the receiver keeps it and answers 200."""
    with pytest.raises(Unreadable):
        read_callback(body)


def test_a_message_is_bounded_and_fit_for_the_database() -> None:
    """PostgreSQL holds no NUL and no half of a pair, and nobody reads a megabyte of error."""
    message = read_result(400, json.dumps({"detail": "a\0b\ud800" + "x" * 10**6}).encode()).message

    assert message is not None
    assert message.startswith("ab?xxx")
    assert len(message) == MESSAGE_MAX


def test_an_image_url_that_the_database_cannot_hold_is_fetched_again() -> None:
    """A NUL in the address cannot be recorded, and dropping the one image would hide a paid result."""
    payload = {"images": [{"url": "https://v3b.fal.media/a"}, {"url": "https://v3b.fal.media/\0"}], "seed": 1}

    assert read_callback(_delivery(payload=payload)).verdict.kind is Kind.UNFETCHED


# -- whatever the bytes are -------------------------------------------------------------------------------------

_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=8)
_json = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
)
_image = st.fixed_dictionaries(
    {"url": st.just("https://v3b.fal.media/x.png") | _json},
    optional=dict.fromkeys(("content_type", "file_name", "file_size", "file_data", "width", "height"), _json),
)
_output = st.fixed_dictionaries({}, optional={"images": st.lists(_image, max_size=3) | _json, "seed": _json})
_entry = st.fixed_dictionaries({}, optional={"loc": _json, "msg": _json, "type": _json | st.sampled_from([*ERRORS])})
_trouble = st.fixed_dictionaries({}, optional={"detail": st.lists(_entry | _json) | _json, "error_type": _json})
_json_documents = _json | st.fixed_dictionaries(
    {
        "request_id": st.just(REQUEST) | _json,
        "status": st.sampled_from(["OK", "ERROR"]) | _json,
        "payload": _output | _trouble | _json,
    },
    optional={"error": _json, "payload_error": _json, "gateway_request_id": _json},
)


def _texts(verdict: Verdict) -> Iterator[str | None]:
    yield from (verdict.error_type, verdict.message)
    for image in verdict.images:
        yield from (image.url, image.content_type, image.file_name)


def _assert_recordable(verdict: Verdict) -> None:
    """Every value fits its column, and the verdict does not contradict itself."""
    for text in filter(None, _texts(verdict)):
        assert b"\0" not in text.encode()
    for image in verdict.images:
        assert all(side is None or 0 < side <= INT32_MAX for side in (image.width, image.height))
        assert image.file_size is None or 0 < image.file_size <= INT64_MAX
    assert verdict.seed is None or abs(verdict.seed) <= INT64_MAX
    assert bool(verdict.images) == (verdict.kind is Kind.SUCCEEDED)
    assert (verdict.error_type is not None) == (verdict.kind in (Kind.FAILED, Kind.CANCELLED))
    assert verdict.kind is Kind.FAILED or verdict.retry is Retry.NEVER


def test_file_data_of_an_image_is_kept() -> None:
    """Bytes that came inside the answer; more than a row should hold are not."""
    for data, kept in (("aGk=", "aGk="), ("x" * (FILE_DATA_MAX + 1), None)):
        document = {"images": [{"url": "https://v3.fal.media/x.png", "file_data": data}]}
        assert read_result(200, json.dumps(document).encode()).images[0].file_data == kept


@given(st.binary() | st.text().map(str.encode))
def test_no_bytes_break_the_reader(body: bytes) -> None:
    """Arbitrary bytes are a verdict or `Unreadable`, through either entry point."""
    with suppress(Unreadable):
        _assert_recordable(read_callback(body).verdict)
    for status in (200, 422, 500):
        _assert_recordable(read_result(status, body))


@given(_json_documents)
@example({"request_id": REQUEST, "status": "ERROR", "payload": {"detail": [{"type": "x" * 1000, "loc": [[]]}]}})
def test_no_json_breaks_the_reader(document: object) -> None:
    """Any JSON, NaN and lone surrogates among it, is a verdict that the database can hold, or `Unreadable`."""
    body = json.dumps(document).encode()
    with suppress(Unreadable):
        _assert_recordable(read_callback(body).verdict)


@given(st.integers(100, 599), _output | _trouble, st.none() | st.text())
def test_no_answer_to_a_result_get_breaks_the_reader(status: int, document: object, header: str | None) -> None:
    """Whatever status, body and header come together, the poll lane gets a verdict that it can record."""
    _assert_recordable(read_result(status, json.dumps(document).encode(), header))
