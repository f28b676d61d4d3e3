"""Standard Webhooks signatures of what we send: the secrets, and the three headers.

https://github.com/standard-webhooks/standard-webhooks, scheme v1 (HMAC-SHA256); the library signs.
"""

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime
from secrets import token_bytes

from standardwebhooks import Webhook

PREFIX = "whsec_"
SECRET_BYTES = range(24, 65)
"""How long the specification wants a secret to be."""


def read_secrets(text: str) -> tuple[bytes, ...]:
    """The secrets of a comma list.

    The library's own reading is lenient: it skips what is no base64, so that a typing error would sign with
    another key than the one that was meant.

    Raises:
        ValueError: there is none, or one is malformed; quotes none of it.
    """
    return tuple(_secret(part.strip()) for part in text.split(",") if part.strip()) or _none()


def _none() -> tuple[bytes, ...]:
    raise ValueError("it holds no secret")


def _secret(text: str) -> bytes:
    encoded = text.removeprefix(PREFIX)
    try:
        secret = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not text.startswith(PREFIX) or len(secret) not in SECRET_BYTES:
        raise ValueError(f"each secret must be {PREFIX} and the base64 of 24 to 64 random bytes")
    return secret


def new_secret() -> str:
    """A secret that nobody else knows."""
    return PREFIX + base64.b64encode(token_bytes(32)).decode()


class Signer:
    """Signs with every secret, the first one first, so that a receiver may know the old or the new one."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._webhooks = [Webhook(secret) for secret in secrets]

    def headers(self, message_id: str, body: str) -> dict[str, str]:
        """The headers that make `body`, sent now as UTF-8, a signed message."""
        now = datetime.now(UTC)
        signatures = [webhook.sign(message_id, now, body) for webhook in self._webhooks]
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signatures),
        }
