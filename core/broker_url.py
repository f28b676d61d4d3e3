"""`REDIS_URL`, read once, in the form that each library wants.

redis-py, Celery's broker and Celery's result backend read the same address differently: a socket is `unix://` to one
and `redis+socket://` to the others, and of TLS one checks certificates by default, one does not, and one refuses to
start unless it is told. So the address is taken apart here, and every library gets its parts in its own form.
"""

import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from core.errors import SettingsError

PORT = 6379
TCP, TLS, SOCKET = ("redis",), ("rediss",), ("unix", "redis+socket")
CERT_REQS = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}
FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
TLS_PARAMETERS = ("ssl_cert_reqs", "ssl_check_hostname", *FILES)
DATABASE_PARAMETERS = ("db", "virtual_host")


class BrokerAddress(NamedTuple):
    """Where Redis is."""

    url: str
    """For redis-py."""
    celery_url: str
    """For Celery's broker and result backend."""
    tls: Mapping[str, Any] | None
    """The TLS options, whose names are the same in all three; None without TLS."""

    def celery_settings(self) -> dict[str, Any]:
        """Celery's own settings of this address."""
        settings: dict[str, Any] = {"broker_url": self.celery_url, "result_backend": self.celery_url}
        if self.tls is not None:
            settings |= {"broker_use_ssl": dict(self.tls), "redis_backend_use_ssl": dict(self.tls)}
        return settings


def parse_broker_url(url: str) -> BrokerAddress:
    """Read an address of Redis.

    Raises:
        SettingsError: it cannot be used; the sentence names the part, and never the password.
    """
    try:
        return read_broker_url(url)
    except ValueError as error:
        raise SettingsError(f"REDIS_URL is wrong ({error}).") from None


def read_broker_url(url: str) -> BrokerAddress:
    """The same, for a validator.

    Raises:
        ValueError: why it cannot be used.
    """
    url = url.strip()
    scheme = url.partition("://")[0]
    if "://" not in url or scheme not in (*TCP, *TLS, *SOCKET):
        quoted = "; it stands in quotes, write it without" if url[:1] in ("'", '"') else ""
        raise ValueError(f"it must start with redis://, rediss://, unix:// or redis+socket://{quoted}")
    if "#" in url:
        raise ValueError("a # in a password must be written as %23")
    if any(character.isspace() or not character.isprintable() for character in url) or "%00" in url:
        raise ValueError("it holds a space or a control character; a space is written %20")
    try:
        parts = urlsplit(f"redis{url.removeprefix(scheme)}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("the port is no number from 1 to 65535, or a / in a password is not written as %2F") from None
    query = _query(parts.query, scheme)
    login = _login(parts.username, parts.password)
    if scheme in SOCKET:
        return _socket(host, parts.path, login, query)
    if ";" in url or "," in parts.netloc:
        raise ValueError("it names several servers; name one")
    if port == 0:
        raise ValueError("the port is no number from 1 to 65535")
    database = _database(parts.path.strip("/") or query.get("db") or query.get("virtual_host") or "0")
    place = f"[{host}]" if ":" in host else quote(unquote(host))
    address = f"{scheme}://{login}{place or '127.0.0.1'}:{port or PORT}/{database}"
    return BrokerAddress(address, address, _tls(query) if scheme in TLS else None)


def _socket(host: str, path: str, login: str, query: Mapping[str, str]) -> BrokerAddress:
    if host or len(path) < 2:
        raise ValueError("the path of a socket is absolute: unix:///run/redis.sock")
    database = _database(query.get("db") or query.get("virtual_host") or "0")
    place = f"{login}{quote(unquote(path))}"
    return BrokerAddress(f"unix://{place}?db={database}", f"redis+socket://{place}?virtual_host={database}", None)


def _login(user: str | None, password: str | None) -> str:
    if not user and not password:
        return ""
    secret = f":{quote(unquote(password), safe='')}" if password else ""
    return f"{quote(unquote(user or ''), safe='')}{secret}@"


def _query(text: str, scheme: str) -> dict[str, str]:
    query = dict(parse_qsl(text, keep_blank_values=True))
    for name in query:
        if name in TLS_PARAMETERS and scheme not in TLS:
            raise ValueError(f"{name} is for TLS, which starts with rediss://")
        if name not in (*TLS_PARAMETERS, *DATABASE_PARAMETERS):
            known = ", ".join((*TLS_PARAMETERS, "db"))
            raise ValueError(f"it has the parameter {name}, which is not known; known are {known}")
    return query


def _database(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise ValueError("the database after the last / must be a number, like 0")
    return int(text)


def _tls(query: Mapping[str, str]) -> dict[str, Any]:
    wanted = query.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if wanted not in CERT_REQS:
        raise ValueError("ssl_cert_reqs is one of required, optional, none")
    check = query.get("ssl_check_hostname", "true").lower()
    if check not in ("true", "false"):
        raise ValueError("ssl_check_hostname must be true or false")
    options: dict[str, Any] = {
        "ssl_cert_reqs": CERT_REQS[wanted],
        "ssl_check_hostname": check == "true" and wanted != "none",
    }
    for name in FILES:
        if name in query:
            options[name] = _readable(name, query[name])
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise ValueError("ssl_keyfile needs ssl_certfile")
    return options


def _readable(name: str, path: str) -> str:
    try:
        with open(path, "rb"):
            return path
    except OSError as error:
        raise ValueError(f"{name} names {path}, which cannot be read: {error.strerror}") from None
