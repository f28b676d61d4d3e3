"""The signature of a webhook: pure functions from bytes to bytes (provider-protocol 4.2)."""

import base64
import hashlib

from nacl.signing import SigningKey


def message(request_id: str, user_id: str, timestamp: int, body: bytes) -> bytes:
    """What is signed; the raw body goes in as its SHA-256, so no byte of it may be re-serialised."""
    return "\n".join((request_id, user_id, str(timestamp), hashlib.sha256(body).hexdigest())).encode()


def sign(key: SigningKey, request_id: str, user_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The four headers that prove a delivery."""
    signature = key.sign(message(request_id, user_id, timestamp, body)).signature
    return {
        "X-Fal-Webhook-Request-Id": request_id,
        "X-Fal-Webhook-User-Id": user_id,
        "X-Fal-Webhook-Timestamp": str(timestamp),
        "X-Fal-Webhook-Signature": signature.hex(),
    }


def public_x(key: SigningKey, *, padded: bool) -> str:
    """The `x` of the JWK; the live service keeps the base64 padding, against RFC 7518."""
    text = base64.urlsafe_b64encode(bytes(key.verify_key)).decode()
    return text if padded else text.rstrip("=")
