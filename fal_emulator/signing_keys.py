"""The Ed25519 keys: one signs, the published ones stand in the JWKS, all survive a restart."""

import time
import uuid
from typing import Any

from nacl.signing import SigningKey

from .signing import public_x
from .store import Store


class SigningKeys:
    """The key ring of the emulator."""

    def __init__(self, store: Store, *, padded: bool) -> None:
        self._store = store
        self._padded = padded
        rows = store.rows("SELECT kid, seed FROM keys WHERE published ORDER BY created_at, rowid")
        self._ring = [(str(kid), SigningKey(bytes(seed))) for kid, seed in rows]
        if not self._ring:
            self.rotate(keep_old=False)

    @property
    def current(self) -> SigningKey:
        """The key that signs now."""
        return self._ring[-1][1]

    def rotate(self, *, keep_old: bool) -> str:
        """Sign with a new key from now on; with `keep_old` the previous one stays published beside it."""
        kid, key = uuid.uuid4().hex[:16], SigningKey.generate()
        kept = self._ring[-1:] if keep_old else []
        self._store.write("UPDATE keys SET published = 0")
        for old, _ in kept:
            self._store.write("UPDATE keys SET published = 1 WHERE kid = ?", (old,))
        self._store.write("INSERT INTO keys VALUES (?, ?, ?, 1)", (kid, bytes(key), time.time()))
        self._ring = [*kept, (kid, key)]
        return kid

    def jwks(self) -> dict[str, Any]:
        """The published keys; no request names one, so a verifier tries them all (provider-protocol 4.2)."""
        return {
            "keys": [
                {"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": kid, "x": public_x(key, padded=self._padded)}
                for kid, key in reversed(self._ring)
            ]
        }
