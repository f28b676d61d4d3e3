"""A delivery is believed only with a signature of one of the provider's keys; the keys come from one URL, sparingly."""

import base64
import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from core.errors import SignatureError
from webhook_receiver.signature import VALUE_MAX, Signed, verify

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = SigningKey(bytes(range(32)))
PUBLIC = bytes(KEY.verify_key)
OTHER = SigningKey(bytes(range(1, 33)))
BODY = b'{"request_id": "r-1", "status": "OK"}'

VECTOR_X = "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
VECTOR_HEADERS = {
    "x-fal-webhook-request-id": "6a3e5e3c-0000-4000-8000-000000000001",
    "x-fal-webhook-user-id": "github|12345",
    "x-fal-webhook-timestamp": "1767225600",
    "x-fal-webhook-signature": (
        "9c369da17519c1675ee329ee89c6055339c5954833769ca703df152a611355fd"
        "8c3a77a1f8b7306ecf1bac7d3fbfaef9c72c05474e90df1a792c3df098fbda0b"
    ),
}
VECTOR_BODY = (
    b'{"error": null, "gateway_request_id": "6a3e5e3c-0000-4000-8000-000000000001", "payload": {"images": '
    b'[{"url": "https://v3b.fal.media/files/b/x/y.png"}], "seed": 746406749}, '
    b'"request_id": "6a3e5e3c-0000-4000-8000-000000000001", "status": "OK"}'
)


def signed(*, at: datetime = NOW, key: SigningKey = KEY, body: bytes = BODY, **override: str | None) -> dict[str, str]:
    """A valid set of headers, of which one part may be overridden after signing (None: left out).

    Parts: `request_id`, `user_id`, `timestamp`, `signature`.
    """
    parts = {"request_id": "r-1", "user_id": "github|1", "timestamp": str(int(at.timestamp()))}
    message = "\n".join((*parts.values(), hashlib.sha256(body).hexdigest())).encode()
    parts["signature"] = key.sign(message).signature.hex()
    changed = {**parts, **override}
    return {f"x-fal-webhook-{name.replace('_', '-')}": value for name, value in changed.items() if value is not None}


def check(headers: dict[str, str], *, body: bytes = BODY, keys: tuple[bytes, ...] = (PUBLIC,), now: datetime = NOW):
    return verify(body, headers, keys, now)


def test_known_vector() -> None:
    """The vector of provider-protocol 4.2, made with OpenSSL, is accepted to the byte and gives its four facts."""
    found = verify(VECTOR_BODY, VECTOR_HEADERS, [base64.urlsafe_b64decode(VECTOR_X)], NOW)

    assert len(VECTOR_BODY) == 241
    assert found == Signed("6a3e5e3c-0000-4000-8000-000000000001", "github|12345", NOW, stale=False)


@pytest.mark.parametrize("part", ["request_id", "user_id", "timestamp", "signature"])
@pytest.mark.parametrize("value", [None, "", "\t", "a\nb", "x" * (VALUE_MAX + 1), "\ud800", "nul\0"])
def test_header_missing_or_malformed(part: str, value: str | None) -> None:
    """A header that is absent, empty, too long or not plain text is refused, whichever of the four it is."""
    with pytest.raises(SignatureError, match=f"x-fal-webhook-{part.replace('_', '-')} is missing or malformed"):
        check(signed(**{part: value}))


@pytest.mark.parametrize(
    "changes",
    [{"request_id": "r-2"}, {"user_id": "github|2"}, {"timestamp": str(int(NOW.timestamp()) + 1)}],
    ids=["request id", "user id", "timestamp"],
)
def test_every_signed_part_counts(changes: dict[str, str]) -> None:
    """What is changed after signing breaks the signature, whichever part it is."""
    check(signed())
    with pytest.raises(SignatureError, match="no valid signature"):
        check(signed(**changes))


@pytest.mark.parametrize("body", [BODY + b"\n", BODY.replace(b": ", b":"), b"", BODY.upper()])
def test_every_byte_of_the_body_counts(body: bytes) -> None:
    """A body that was re-serialised, or otherwise touched, is refused."""
    with pytest.raises(SignatureError, match="no valid signature"):
        check(signed(), body=body)


def test_parts_cannot_be_shifted_into_each_other() -> None:
    """A newline inside a value, which could move the border between two parts, is refused before any key is tried."""
    parts = signed()
    moved = {
        **parts,
        "x-fal-webhook-request-id": "r-1\ngithub|1",
        "x-fal-webhook-user-id": parts["x-fal-webhook-timestamp"],
    }
    with pytest.raises(SignatureError, match="malformed"):
        check(moved)


@pytest.mark.parametrize("value", ["zz" * 64, "ab" * 63, "ab" * 65, "0x" + "ab" * 63, "é" * 128, "ab" * 63 + "a"])
def test_signature_that_is_none(value: str) -> None:
    """Only 64 bytes in hexadecimal are a signature."""
    with pytest.raises(SignatureError, match=r"not hexadecimal|not 64 bytes"):
        check(signed(signature=value))


def test_signature_in_capitals() -> None:
    """Lower case was seen, but case is no part of hexadecimal."""
    check(signed(signature=signed()["x-fal-webhook-signature"].upper()))


@pytest.mark.parametrize(
    "value", ["-1", "+1767225600", "1767225600.0", "1e9", "0x10", "١٧٦٧", "²", " 1767225600", "now"]
)
def test_timestamp_that_is_no_number(value: str) -> None:
    """Only a plain run of ASCII digits is a timestamp; what int() would take besides is refused."""
    with pytest.raises(SignatureError, match=r"no number of seconds|malformed"):
        check(signed(timestamp=value))


@pytest.mark.parametrize("value", ["999999999999", "9999999999999", "9" * 200])
def test_timestamp_beyond_the_calendar(value: str) -> None:
    """A number that no clock can show is refused, not a crash."""
    with pytest.raises(SignatureError, match=r"out of range|no number of seconds"):
        check(signed(timestamp=value))


@pytest.mark.parametrize(
    ("age", "stale"),
    [(300, False), (301, True), (-300, False), (-301, True), (0, False), (7 * 86_400, True)],
)
def test_stale_outside_of_300_seconds(age: int, stale: bool) -> None:
    """Up to 300 s old, or ahead, a delivery is fresh; a second more and it is stale, though validly signed."""
    assert check(signed(at=NOW - timedelta(seconds=age))).stale is stale


def test_stale_counts_fractions_of_our_clock() -> None:
    """Our clock is not cut to seconds: 300.001 s is outside."""
    headers = signed(at=NOW)
    assert not check(headers, now=NOW + timedelta(seconds=300)).stale
    assert check(headers, now=NOW + timedelta(seconds=300, milliseconds=1)).stale


@pytest.mark.parametrize("keys", [(PUBLIC, bytes(OTHER.verify_key)), (bytes(OTHER.verify_key), PUBLIC)])
def test_any_key_of_the_set_may_match(keys: tuple[bytes, ...]) -> None:
    """No key id is sent, so the order of the published keys does not matter."""
    assert check(signed(), keys=keys).request_id == "r-1"


@pytest.mark.parametrize("keys", [(), (bytes(OTHER.verify_key),), (b"short",), (bytes(32),), (b"\xff" * 32,)])
def test_no_key_matches(keys: tuple[bytes, ...]) -> None:
    """No key, another key, or one that is no point on the curve: refused, never a crash."""
    with pytest.raises(SignatureError, match="no valid signature"):
        check(signed(), keys=keys)


def test_signature_by_the_neutral_key_is_refused() -> None:
    """The all-zero-like key and signature, valid under sloppy verifiers for any message, are refused."""
    neutral = bytes([1]) + bytes(31)
    with pytest.raises(SignatureError):
        check(signed(signature=(neutral + bytes(32)).hex()), keys=(neutral,))


anything = st.text(st.characters(exclude_categories=()), max_size=VALUE_MAX + 5)
near = st.sampled_from([*signed().values(), "", "0" * 128, "1767225600"])


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(signed(), anything | near)), st.binary(max_size=40))
@example(dict.fromkeys(signed(), "٣"), b"")
def test_whatever_the_headers_are(headers: dict[str, str], body: bytes) -> None:
    """Arbitrary headers are refused with the one error and nothing else; none is believed."""
    with pytest.raises(SignatureError):
        check(headers, body=body)


@given(st.binary(max_size=200), st.text("abcdef-0123456789|", min_size=1, max_size=VALUE_MAX))
def test_whatever_is_signed_is_accepted(body: bytes, name: str) -> None:
    """A genuine signature is accepted over any body and any printable names."""
    parts = (name, name, str(int(NOW.timestamp())), hashlib.sha256(body).hexdigest())
    headers = signed(request_id=name, user_id=name, signature=KEY.sign("\n".join(parts).encode()).signature.hex())
    assert check(headers, body=body).user_id == name
