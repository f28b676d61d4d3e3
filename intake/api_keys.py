"""Who is asking? API keys, kept as hashes, compared in constant time."""

import hashlib
import hmac
from ipaddress import ip_address

from core.errors import SettingsError
from intake.settings import IntakeSettings

LOCAL = "local"
"""The one client where there are no keys; also that of the command line."""
NAME_MAX = 255
"""Characters of a client's name, as many as a batch keeps."""
KEY_MIN = 12
"""Characters of a key, at least: with the bound on the rate of strangers, too many to be guessed."""


class ApiKeys:
    """The clients by the hashes of their keys."""

    def __init__(self, settings: IntakeSettings) -> None:
        """Take the keys out of the settings.

        Raises:
            SettingsError: they are wrong, or missing where strangers could reach us.
        """
        given = settings.darkroom_api_keys
        self._clients = _read(given.get_secret_value()) if given else {}
        self.required = bool(self._clients)
        if not self.required and not is_loopback(settings.bind_host):
            raise SettingsError(
                f"DARKROOM_API_KEYS is not set; without keys the intake API listens on loopback only, "
                f"and BIND_HOST is {settings.bind_host}."
            )

    def client(self, authorization: str | None) -> str | None:
        """Whose key the header `Authorization` carries; None where it is nobody's."""
        if not self.required:
            return LOCAL
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        found, digest = None, _digest(key.strip())
        for known, client in self._clients.items():
            if hmac.compare_digest(known, digest):
                found = client
        return found


def _read(pairs: str) -> dict[bytes, str]:
    clients: dict[bytes, str] = {}
    for pair in filter(None, map(str.strip, pairs.split(","))):
        name, _, key = pair.partition(":")
        if not 0 < len(name) <= NAME_MAX or not key or not pair.isascii() or not pair.isprintable():
            raise SettingsError("DARKROOM_API_KEYS is wrong (it must be a comma list of name:key, in ASCII).")
        if len(key) < KEY_MIN:
            raise SettingsError(f"DARKROOM_API_KEYS is wrong ({name} has a key of fewer than {KEY_MIN} characters).")
        if clients.setdefault(_digest(key), name) != name:
            raise SettingsError(f"DARKROOM_API_KEYS is wrong ({name} has the key of another client).")
    return clients


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
