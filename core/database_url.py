"""`DATABASE_URL`, read once: what libpq makes of it, what darkroom adds, and whether a pooler is named.

libpq itself takes the URL apart, so whatever PostgreSQL's own clients take is taken (several hosts, sockets, TLS,
service files). What it does not know is refused in one sentence that names the part.
"""

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote

from core.errors import SettingsError

if TYPE_CHECKING:
    from sqlalchemy import URL

SCHEMES = ("postgresql://", "postgresql+psycopg://", "postgres://")
POOLER = "pgbouncer"
"""Of our own: `pgbouncer=true` says that a pooler stands between. Several hosting services print it in their URLs."""
CHOICES = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer", "require"),
}
NUMBERS = ("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count")
ADVICE = {
    "schema": "name the schema as options=-csearch_path%3DNAME",
    "search_path": "name the schema as options=-csearch_path%3DNAME",
    "currentSchema": "name the schema as options=-csearch_path%3DNAME",
    "ssl": "use sslmode=require or sslmode=verify-full",
}
"""What people bring from other clients -> what it is called here."""


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """Where the database is, as libpq's own parameters."""

    parameters: dict[str, str]
    session: dict[str, str] = field(default_factory=dict)
    """Run-time settings that the URL asks for in `options`, as `-c name=value`."""
    flags: str = ""
    """Whatever else stands in `options`."""
    pooled: bool | None = None
    """Whether a pooler stands between; None: found out when connecting."""

    def options(self, session: dict[str, str]) -> str:
        """The startup option with these settings; those of the URL win."""
        merged = {**session, **self.session}
        return " ".join([self.flags, *(f"-c {name}={_escape(value)}" for name, value in merged.items())]).strip()

    @property
    def url(self) -> "URL":
        """For SQLAlchemy, which shows it; connections are made from `parameters`."""
        from sqlalchemy import URL  # here: `darkroom up` starts its servers without it

        known = ("user", "password", "host", "port", "dbname")
        user, password, host, port, name = (self.parameters.get(key) for key in known)
        query = {key: value for key, value in self.parameters.items() if key not in known}
        if self.session or self.flags:
            query["options"] = self.options({})
        if host and (host.startswith("/") or "," in host):
            query["host"], host = host, None
            if port:
                query["port"], port = port, None
        if self.pooled is not None:
            query[POOLER] = str(self.pooled).lower()
        return URL.create("postgresql+psycopg", user, password, host, int(port) if port else None, name, query)


def parse_database_url(url: str) -> DatabaseAddress:
    """Read a database URL.

    Raises:
        SettingsError: it cannot be used; the sentence names the part, and never the password.
    """
    try:
        return read_database_url(url)
    except ValueError as error:
        raise SettingsError(f"DATABASE_URL is wrong ({error}).") from None


def read_database_url(url: str) -> DatabaseAddress:
    """The same, for a validator.

    Raises:
        ValueError: why it cannot be used.
    """
    import psycopg  # here: a command without a database starts without it
    from psycopg.conninfo import conninfo_to_dict

    url = url.strip()
    scheme = next((scheme for scheme in SCHEMES if url.startswith(scheme)), None)
    if scheme is None:
        quoted = "; it stands in quotes, write it without" if url[:1] in ("'", '"') else ""
        raise ValueError(f"it must start with postgresql://{quoted}")
    rest, pooled = _take_pooler(url.removeprefix(scheme))
    try:
        parameters = {name: str(value) for name, value in conninfo_to_dict(f"postgresql://{rest}").items()}
    except (psycopg.ProgrammingError, UnicodeError) as error:
        raise ValueError(_why(str(error))) from None
    if any("\0" in value for value in parameters.values()):
        raise ValueError("it holds a zero byte")
    _check(parameters)
    session, flags = _split_options(parameters.pop("options", ""))
    return DatabaseAddress(parameters, session, flags, pooled)


def _take_pooler(rest: str) -> tuple[str, bool | None]:
    """The URL without our own parameter, and what it said."""
    place, mark, query = rest.partition("?")
    kept, pooled = [], None
    for part in query.split("&") if mark else ():
        name, _, value = part.partition("=")
        if unquote(name) == POOLER:
            if value.lower() not in ("true", "false"):
                raise ValueError(f"{POOLER} must be true or false")
            pooled = value.lower() == "true"
        elif part:
            kept.append(part)
    return place + ("?" + "&".join(kept).replace("+", "%20") if kept else ""), pooled  # as forms encode a space


def _why(said: str) -> str:
    """libpq's reason without what it quotes of the URL, which may be a password."""
    unknown = re.search(r'invalid URI query parameter: "([^"]*)"', said)
    if unknown:
        name = unknown[1]
        return f"it has the parameter {name}, which PostgreSQL's client does not know" + (
            f"; {ADVICE[name]}" if name in ADVICE else ""
        )
    for text, why in {
        "forbidden value %00": "it holds a zero byte",
        "unexpected spaces": "a blank stands in it; in a password or path it is written %20",
        "percent": "a % in it is not followed by two hexadecimal digits; a % in a password is written %25",
        "unexpected character": "something stands where only : or / may; in a password @ is written %40, / is written "
        "%2F, : is written %3A, ? is written %3F and # is written %23",
        'matching "]"': 'an address of IPv6 needs its "]"',
        "key/value separator": "a parameter after ? has no value, or more than one =",
    }.items():
        if text in said:
            return why
    return "it must be like postgresql://user:password@host:5432/name"


def _check(parameters: dict[str, str]) -> None:
    if "@" in parameters.get("host", "") + parameters.get("port", ""):
        raise ValueError("an @ in a user name or password must be written as %40")
    for port in parameters.get("port", "").split(","):
        if port and not (port.isascii() and port.isdigit() and 0 < int(port[:9]) < 65536):
            raise ValueError(
                "the port is no number from 1 to 65535; a / or # in a password must be written as %2F or %23"
            )
    hosts, ports = parameters.get("host", "").split(","), parameters.get("port", "").split(",")
    if 1 < len(ports) != len(hosts):
        raise ValueError(f"it names {len(hosts)} hosts and {len(ports)} ports")
    for name, choices in CHOICES.items():
        if parameters.get(name, choices[0]) not in choices:
            raise ValueError(f"{name} is one of {', '.join(choices)}")
    if parameters.get("sslrootcert") == "system" and parameters.get("sslmode", "verify-full") != "verify-full":
        raise ValueError("sslrootcert=system needs sslmode=verify-full")
    for name in NUMBERS:
        if not re.fullmatch(r"-?\d{1,9}", parameters.get(name, "0")):
            raise ValueError(f"{name} must be a number of seconds")


def _split_options(options: str) -> tuple[dict[str, str], str]:
    """`-c name=value` and `--name=value` as settings; whatever else as it is."""
    session: dict[str, str] = {}
    rest: list[str] = []
    words = [re.sub(r"\\(.)", r"\1", word) for word in re.findall(r"(?:\\.|[^\s\\])+", options)]
    while words:
        word = words.pop(0)
        given = words.pop(0) if word == "-c" and words else word.removeprefix("-c") if word[:2] == "-c" else word[2:]
        name, equals, value = given.partition("=")
        if word[:2] in ("-c", "--") and equals and re.fullmatch(r"[A-Za-z_][\w.-]*", name):
            session[name.replace("-", "_")] = value
        elif word[:2] in ("-c", "--"):
            raise ValueError("options must be like -c name=value")
        else:
            rest.append(_escape(word))
    return session, " ".join(rest)


def _escape(value: str) -> str:
    return re.sub(r"([\\\s])", r"\\\1", value)


def hide_password(url: str) -> str:
    """The URL for people to see; all that may be a password is hidden, also where the URL is malformed."""
    shown = re.sub(r"(://[^:/?#]*):.*@", r"\1:***@", url, flags=re.DOTALL)
    shown = re.sub(r"^(https?://)[^:/?#@]+@", r"\1***@", shown)  # at a proxy, a name alone may be a token
    return re.sub(r"([?&][^=&]*password[^=&]*=)[^&]*", r"\1***", shown, flags=re.IGNORECASE)
