"""Who is asking? API keys, kept as hashes, compared in constant time."""

import hashlib
import hmac
from ipaddress import ip_address
from typing import NamedTuple

from core.errors import SettingsError
from intake.settings import IntakeSettings

LOCAL = "local"
"""The one client where there are no keys; also that of the command line."""
NAME_MAX = 255
"""Characters of a client's name, as many as a batch keeps."""
KEY_MIN = 12
"""Characters of a key, at least: with the bound on the rate of strangers, too many to be guessed."""


class Client(NamedTuple):
    """Whose key it is."""

    name: str
    operator: bool
    """Whether the page shows, and lets steer, the batches of all clients."""


class ApiKeys:
    """The clients by the hashes of their keys."""

    def __init__(self, settings: IntakeSettings) -> None:
        """Take the keys out of the settings.

        Raises:
            SettingsError: they are wrong, or missing where strangers could reach us.
        """
        given, operators = settings.darkroom_api_keys, settings.darkroom_operator_keys
        self._clients: dict[bytes, Client] = {}
        if given:
            self._read("DARKROOM_API_KEYS", given.get_secret_value(), operator=False)
        if operators:
            self._read("DARKROOM_OPERATOR_KEYS", operators.get_secret_value(), operator=True)
        self.required = bool(self._clients)
        if not self.required and not is_loopback(settings.bind_host):
            raise SettingsError(
                f"DARKROOM_API_KEYS is not set; without keys the intake API listens on loopback only, "
                f"and BIND_HOST is {settings.bind_host}."
            )

    def client(self, authorization: str | None) -> str | None:
        """Whose key the header `Authorization` carries; None where it is nobody's."""
        client = self.identify(authorization)
        return client.name if client else None

    def identify(self, authorization: str | None) -> Client | None:
        """The same, with whether it is an operator; where there are no keys everybody is."""
        if not self.required:
            return Client(LOCAL, operator=True)
        scheme, _, key = (authorization or "").partition(" ")
        return self.find(key.strip()) if scheme.lower() == "bearer" else None

    def find(self, key: str) -> Client | None:
        """Whose key it is; None where it is nobody's."""
        found, digest = None, _digest(key)
        for known, client in self._clients.items():
            if hmac.compare_digest(known, digest):
                found = client
        return found

    def derive_secret(self, purpose: bytes) -> bytes:
        """32 bytes that only who has all keys can make, and slowly; others where a key is added or taken away."""
        return hashlib.scrypt(b"".join(sorted(self._clients)), salt=purpose, n=2**14, r=8, p=1, dklen=32)

    def key_id(self, key: str, secret: bytes) -> str:
        """A name for a key that says nothing about it to whoever has not the secret."""
        return _key_id(_digest(key), secret)

    def by_id(self, key_id: str, secret: bytes) -> Client | None:
        """Whose key has this name; None where there is none (any more)."""
        found = {_key_id(digest, secret): client for digest, client in self._clients.items()}
        return found.get(key_id)

    def _read(self, setting: str, pairs: str, *, operator: bool) -> None:
        for pair in filter(None, map(str.strip, pairs.split(","))):
            name, _, key = pair.partition(":")
            if not 0 < len(name) <= NAME_MAX or not key or not pair.isascii() or not pair.isprintable():
                raise SettingsError(f"{setting} is wrong (it must be a comma list of name:key, in ASCII).")
            if len(key) < KEY_MIN:
                raise SettingsError(f"{setting} is wrong ({name} has a key of fewer than {KEY_MIN} characters).")
            client = Client(name, operator)
            if self._clients.setdefault(_digest(key), client) != client:
                raise SettingsError(f"{setting} is wrong ({name} has the key of another client).")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _key_id(digest: bytes, secret: bytes) -> str:
    return hmac.new(secret, digest, hashlib.sha256).hexdigest()[:32]


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
