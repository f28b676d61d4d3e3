"""Standard Webhooks signatures of what we send: the secrets, and the three headers.

https://github.com/standard-webhooks/standard-webhooks, scheme v1 (HMAC-SHA256); the library signs.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from secrets import token_bytes

from standardwebhooks import Webhook

PREFIX = "whsec_"
SECRET_BYTES = range(24, 65)
"""How long the specification wants a secret to be."""


EVERYONE = ""
"""Stands for every client that has no secret of its own."""


def read_secrets(text: str) -> dict[str, tuple[bytes, ...]]:
    """The secrets of a comma list by client: `whsec_…` for everyone, `client:whsec_…` for one client alone.

    The library's own reading is lenient: it skips what is no base64, so that a typing error would sign with
    another key than the one that was meant.

    Raises:
        ValueError: there is none, one is malformed, or two clients have the same; quotes none of it.
    """
    secrets: dict[str, tuple[bytes, ...]] = {}
    owners: dict[bytes, str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        client, _, encoded = part.rpartition(":")
        secret = _secret(encoded)
        if owners.setdefault(secret, client) != client:
            raise ValueError("two clients have the same secret")
        secrets[client] = (*secrets.get(client, ()), secret)
    if not secrets:
        raise ValueError("it holds no secret")
    return secrets


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
    """Signs with every secret of a client, the first one first, so that a receiver may know the old or the new one.

    A client with a secret of its own gets no signature that another client could have made.
    """

    def __init__(self, secrets: Mapping[str, Sequence[bytes]]) -> None:
        self._webhooks = {client: [Webhook(secret) for secret in mine] for client, mine in secrets.items()}

    @property
    def clients(self) -> frozenset[str] | None:
        """For whom it can sign; None: for everyone."""
        return None if EVERYONE in self._webhooks else frozenset(self._webhooks)

    def headers(self, message_id: str, body: str, client: str) -> dict[str, str]:
        """The headers that make `body`, sent now as UTF-8 to a client for whom it can sign, a signed message."""
        now = datetime.now(UTC)
        webhooks = self._webhooks.get(client) or self._webhooks[EVERYONE]
        signatures = [webhook.sign(message_id, now, body) for webhook in webhooks]
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signatures),
        }
