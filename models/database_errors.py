"""What an error of the database means: one place decides, by SQLSTATE, for every process.

SQLAlchemy's and psycopg's classes do not tell it: a server that is read-only raises an `InternalError`, one that is
shutting down an `OperationalError`, and a statement too complex is an `OperationalError` too. So the five characters
that the server sends are asked (PostgreSQL, appendix A). Only where there are none, because no server answered, the
class decides.
"""

import re
from collections.abc import Iterable

import psycopg
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, TimeoutError

UNDEFINED_TABLE = "42P01"
LOCK_NOT_AVAILABLE = "55P03"

AWAY_CLASSES = frozenset({"08", "53", "57"})
"""Connection lost or refused by a pooler; out of disk, memory or connections; shutting down, starting up, a statement
that was cut off by a timeout or by an administrator."""
AWAY_STATES = frozenset(
    {
        "25006",  # read-only: a standby, or a primary that was demoted, or that protects a full disk
        "25P03",  # we were idle in a transaction for too long: a machine that was suspended
        "25P04",  # a transaction timeout of the server's administrator
        "40001",  # serialization failure, also a conflict with recovery on a standby
        "40P01",  # deadlock
        "55P03",  # a lock was not free in time
        "58030",  # an I/O error beneath the server
    }
)
"""Conditions that end by themselves, or by what an administrator does: the same step may succeed later."""
NOT_AFTER_A_RETRY = frozenset({"53400"})
"""Of a class above, but mended only by a change of configuration (a limit of temporary files, say)."""
STALE_CONNECTION = frozenset({"25006", "57P01", "57P02", "57P03", "57P05"})
"""After these a kept connection leads to the wrong server, or to none."""

DATABASE_ERRORS = (DBAPIError, TimeoutError, psycopg.Error)
"""Whatever a statement of ours may raise: from SQLAlchemy, from its pool, or from psycopg itself (COPY)."""
_NO_SERVER = (OperationalError, InterfaceError, TimeoutError, psycopg.OperationalError, psycopg.InterfaceError)


_ADVICE = {
    "certificate verify failed": "sslrootcert in DATABASE_URL must name the authority that vouches for the server",
    "does not match host name": "DATABASE_URL must name the server as its certificate does",
    "root certificate file": "sslrootcert in DATABASE_URL names it; sslrootcert=system takes the machine's authorities",
    "server does not support SSL": "turn TLS on there, or leave sslmode out of DATABASE_URL",
    "no encryption": "the server may want TLS: add sslmode=require to DATABASE_URL",
    "client certificate": "name one with sslcert and sslkey in DATABASE_URL",
    "unknown ca": "the server does not know who vouches for sslcert in DATABASE_URL",
    "certificate authentication failed": "sslcert in DATABASE_URL must be made out to its user",
    "private key file": "sslkey in DATABASE_URL names it",
    "password authentication failed": "fix the user or the password in DATABASE_URL",
    "no password supplied": "DATABASE_URL needs a password",
    r'^(.*FATAL: +)?(database|role) "[^"]*" does not exist': "fix DATABASE_URL, or make it",
}
"""What libpq or the server says when nobody gets in -> what to set."""


def original(error: BaseException) -> BaseException:
    """The driver's own error, which SQLAlchemy wraps."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def sqlstate(error: BaseException) -> str | None:
    """The five characters that the server sent; None where no server answered."""
    found = getattr(original(error), "sqlstate", None)
    return found if isinstance(found, str) else None


def is_away(error: BaseException) -> bool:
    """Whether the database cannot do it for now, so that the same step may succeed later."""
    if not isinstance(error, DATABASE_ERRORS):
        return False
    state = sqlstate(error)
    if state is None:
        return isinstance(error, _NO_SERVER)
    return (state[:2] in AWAY_CLASSES or state in AWAY_STATES) and state not in NOT_AFTER_A_RETRY


def reason(error: BaseException) -> str:
    """The first line of what the server or the driver said, without its last full stop; it names no parameter."""
    lines = [line.strip() for line in str(original(error)).strip().splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(original(error)).__name__


def advise(error: BaseException) -> str:
    """What to set so that a connection can be had, as `; …`; nothing where the reason tells no more."""
    said = reason(error)
    return next((f"; {advice}" for words, advice in _ADVICE.items() if re.search(words, said)), "")


_TROUBLES = {None: "does not answer", "25006": "is read-only", "53100": "has no room left on its disk"}


def explain(error: BaseException) -> str | None:
    """One sentence for a person; None where the error is a mistake of ours."""
    state = sqlstate(error)
    if is_away(error):
        return f"The database {_TROUBLES.get(state, 'cannot do it now')}: {reason(error)}."
    match state:
        case "42501":
            return f"The database role lacks a right: {reason(error)}{_missing(error)}; see docs/deploy.md, Rights."
        case "42P01":
            return f"The database lacks a part of darkroom's schema: {reason(error)}; run `darkroom migrate`."
        case "3F000":
            hint = "see search_path in DATABASE_URL, and the role's rights"
            return f"The database has no schema to work in: {reason(error)}; {hint}."
        case "42704" | "22023" | "55P02" if _sets_options(error):
            return f"The database refuses one of the options in DATABASE_URL: {reason(error)}."
        case "53400" | "26000" | "42P05":
            hint = "; behind a pooler, add pgbouncer=true to DATABASE_URL" if state != "53400" else ""
            return f"The database refuses the statement: {reason(error)}{hint}."
    return None


def _sets_options(error: BaseException) -> bool:
    """Whether it was the statement that sets them behind a pooler; without one they are refused with the connection."""
    return isinstance(error, DBAPIError) and "set_config(name" in (error.statement or "")


def _missing(error: BaseException) -> str:
    """Which right the statement needs, as far as it can be read from it."""
    said = re.search(r"permission denied for (\w+) (\S+)", reason(error))
    statement = (error.statement if isinstance(error, DBAPIError) else None) or ""
    if not said:
        return ""
    kind, name = said[1], said[2].strip('"')
    if kind == "schema":
        return " (CREATE)" if re.match(r"\s*(CREATE|ALTER|DROP)\b", statement, re.IGNORECASE) else " (USAGE)"
    rights = list(_rights(statement, name)) if kind in ("table", "view", "sequence") else []
    return f" ({', '.join(rights)})" if rights else ""


def _rights(statement: str, table: str) -> Iterable[str]:
    name = rf'(?:\w+\.)?"?{re.escape(table)}"?\b'
    wanted = {"INSERT": "INSERT INTO", "UPDATE": "(?<!FOR )UPDATE(?: ONLY)?", "DELETE": "DELETE FROM"}
    found = [right for right, words in wanted.items() if re.search(rf"{words}\s+{name}", statement, re.IGNORECASE)]
    return found or ["SELECT"]
