"""How requests leave this machine: through which proxy, and whose certificates are believed.

The usual variables are read once, in `settings.py`, and applied by hand, because the libraries' own reading of the
environment would bring along what must not be: passwords out of a netrc file, and proxies for this very machine.
"""

import ipaddress
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

LOOPBACK_NAMES = ("localhost", ".localhost")


class Network(NamedTuple):
    """The way out. Without a proxy and a file of authorities it is the direct one, checked as usual."""

    https_proxy: str | None = None
    http_proxy: str | None = None
    no_proxy: Sequence[str] = ()
    """Names, with all names beneath them; addresses; networks; each with or without a port."""
    ca_file: str | None = None

    @property
    def verify(self) -> str | bool:
        """What `requests` takes for it."""
        return self.ca_file or True

    def proxy_for(self, url: str) -> str | None:
        """The proxy for a URL, if it goes through one; what is on this machine never does."""
        parts = urlsplit(url)
        proxy = self.https_proxy if parts.scheme == "https" else self.http_proxy
        if proxy is None or not parts.hostname:
            return None
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return None if is_loopback(parts.hostname) or self._is_excepted(parts.hostname, port) else proxy

    def _is_excepted(self, host: str, port: int) -> bool:
        return any(_matches(entry, host, port) for entry in self.no_proxy)


def is_loopback(host: str) -> bool:
    """Whether a host name or literal address is this machine."""
    address = literal(host)
    if address is None:
        return host.lower().rstrip(".").endswith(LOOPBACK_NAMES[1]) or host.lower().rstrip(".") == LOOPBACK_NAMES[0]
    return address.is_loopback


def literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is, where it is no name."""
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None


def _matches(entry: str, host: str, port: int) -> bool:
    entry = entry.strip().lower()
    if entry == "*":
        return True
    address, network = literal(host), _network(entry)
    if network is not None:
        return address is not None and address.version == network.version and address in network
    name, colon, wanted = entry.rpartition(":")
    if colon and wanted.isdigit():
        return int(wanted) == port and _matches(name.strip("[]"), host, port)
    name = entry.removeprefix("*").strip(".")
    host = host.lower().rstrip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return None
