"""Is this delivery the provider's? Pure: bytes, headers, keys and a clock in; a value or one error out.

The rule (provider-protocol 4.2): Ed25519 over request id, user id, timestamp and the hex SHA-256 of the raw body,
joined by newlines; no key id is sent, any key of the set may match. A valid signature proves that the provider
sent it, not that it is about us: account, token and request id are judged elsewhere.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from core.errors import SignatureError

TOLERANCE = timedelta(seconds=300)
"""Past and future; outside it the body is not believed, because it may be a replay."""
VALUE_MAX = 200
"""Characters of a header value; the provider's are shorter than 130."""


@dataclass(frozen=True, slots=True)
class Signed:
    """What the signature vouches for, beside the body."""

    request_id: str
    user_id: str
    signed_at: datetime
    stale: bool


def verify(body: bytes, headers: Mapping[str, str], keys: Iterable[bytes], now: datetime) -> Signed:
    """Check one delivery.

    Args:
        body: the raw bytes as received, never re-serialised.
        headers: of the request, names in lower case.
        keys: raw 32-byte Ed25519 public keys.
        now: aware.

    Raises:
        SignatureError: a header is missing or malformed, or no key matches.
    """
    request_id = _header(headers, "x-fal-webhook-request-id")
    user_id = _header(headers, "x-fal-webhook-user-id")
    timestamp = _header(headers, "x-fal-webhook-timestamp")
    signature = _signature(_header(headers, "x-fal-webhook-signature"))
    signed_at = _moment(timestamp)
    message = "\n".join((request_id, user_id, timestamp, hashlib.sha256(body).hexdigest())).encode()
    if not any(_matches(key, message, signature) for key in keys):
        raise SignatureError
    return Signed(request_id, user_id, signed_at, stale=is_stale(signed_at, now))


def is_stale(signed_at: datetime, received_at: datetime) -> bool:
    """Whether what was signed then is not believed when it comes now."""
    return abs(received_at - signed_at) > TOLERANCE


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name, "")
    if not 0 < len(value) <= VALUE_MAX or not value.isprintable():
        raise SignatureError(f"{name} is missing or malformed.")
    return value


def _signature(value: str) -> bytes:
    try:
        signature = bytes.fromhex(value)
    except ValueError:
        raise SignatureError("The signature is not hexadecimal.") from None
    if len(signature) != 64:
        raise SignatureError("The signature has not 64 bytes.")
    return signature


def _moment(value: str) -> datetime:
    if not (value.isascii() and value.isdigit() and len(value) <= 12):
        raise SignatureError("The timestamp is no number of seconds.")
    try:
        return datetime.fromtimestamp(int(value), UTC)
    except (OverflowError, ValueError, OSError):
        raise SignatureError("The timestamp is out of range.") from None


def _matches(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        VerifyKey(key).verify(message, signature)
    except (BadSignatureError, ValueError, TypeError):
        return False
    return True
