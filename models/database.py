"""One engine per process from a URL, with bounded waits; straight to the server, or through a pooler.

Hot paths send plain SQL through the driver (`connection.exec_driver_sql`): sets in, sets out, no ORM. Who only reads
commits too (`engine.begin()`): after a rollback the driver forgets every statement that the connection had prepared,
and planning some of them takes ten times as long as running them. Nothing depends on a session: no LISTEN, no temporary
table, no advisory lock that outlives its transaction. So a pooler may hand every transaction to another server
connection.
"""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine import ExceptionContext

from core.database_url import DatabaseAddress, parse_database_url
from core.errors import DatabaseError
from models.database_errors import (
    DATABASE_ERRORS,
    STALE_CONNECTION,
    UNDEFINED_TABLE,
    advise,
    explain,
    is_away,
    reason,
    sqlstate,
)
from models.statements import Statement

CONNECT_TIMEOUT = 5
"""Seconds to wait for a connection; the callers' own retries do the rest."""
STATEMENT_TIMEOUT = 30_000
"""Milliseconds a statement may take; every statement of ours is bounded to a set far below this."""
LOCK_TIMEOUT = 10_000
"""Milliseconds to wait for a row or advisory lock before the step is tried again later."""

PLANNING = {"enable_seqscan": "off"}
"""Every statement of ours that reads a large table finds its rows by an index (`Statement.index`). A planner that has
seen a table only when it was small would read all of it instead, and keep that plan: on a new database for the minutes
until the server's first look at it, in which a first batch of 100 000 edits comes."""

SILENCE_MAX = 60.0
"""Seconds for which the database may be away while somebody watches."""

Found = TypeVar("Found")


def retry_while_unavailable(look: Callable[[], Found]) -> Found:
    """What `look` finds, again and again while the database is away, as when its server restarts.

    Raises:
        sqlalchemy.exc.DBAPIError: it stays away for `SILENCE_MAX`, or does not do it for another reason.
    """
    deadline = time.monotonic() + SILENCE_MAX
    while True:
        try:
            return look()
        except DATABASE_ERRORS as error:
            if not is_away(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def parse_url(url: str) -> URL:
    """The URL with our driver named.

    Raises:
        SettingsError: it cannot be used.
    """
    return parse_database_url(url).url


SETTING_SOURCE = Statement("SELECT source FROM pg_settings WHERE name = %s")


SET_SESSION = Statement("SELECT set_config(name, value, true) FROM unnest(%s::text[], %s::text[]) AS s (name, value)")


class Connector:
    """Makes connections to one address, and finds out whether a pooler stands between.

    Our time limits go with the startup packet, which costs nothing. A pooler that shares server connections among
    transactions refuses such options (PgBouncer: "unsupported startup parameter") or drops them in silence. Either
    is noticed at the first connection; from then on the limits are set in each transaction, and no statement is
    prepared, because the next transaction may meet another server connection.
    """

    def __init__(self, address: DatabaseAddress, application: str, limits: dict[str, str]) -> None:
        self._session = {**limits, **address.session}
        self._options = address.options(limits)
        self._address, self.pooled = address, address.pooled
        several = "," in address.parameters.get("host", "")
        self._parameters: dict[str, Any] = {
            "connect_timeout": str(CONNECT_TIMEOUT),
            "application_name": application,
            # after a failover the name that stands first may be that of the standby
            **({"target_session_attrs": "read-write"} if several else {}),
            **address.parameters,
            **_trusted(address.parameters),
        }

    def connect(self) -> psycopg.Connection[Any]:
        """A new connection.

        Raises:
            psycopg.OperationalError: none can be had.
        """
        if not self.pooled:
            try:
                connection = psycopg.connect(**self._parameters, options=self._options)
            except psycopg.OperationalError as error:
                if self.pooled is False or "option" not in str(error):
                    raise
            else:
                if self.pooled is None:
                    self.pooled = not self._in_force(connection)
                if not self.pooled:
                    return connection
                connection.close()
        connection = psycopg.connect(**self._parameters, options=self._address.flags or None, prepare_threshold=None)
        self.pooled = True
        return connection

    def _in_force(self, connection: psycopg.Connection[Any]) -> bool:
        """Whether our startup options reached the server."""
        name = next(iter(self._session))
        found = connection.execute(SETTING_SOURCE, (name,)).fetchone()
        connection.rollback()
        return found == ("client",)

    def begin(self, connection: Connection) -> None:
        """Behind a pooler: the session's settings, for this transaction."""
        if self.pooled:
            names, values = list(self._session), list(self._session.values())
            connection.exec_driver_sql(SET_SESSION, (names, values))


def _trusted(parameters: dict[str, str]) -> dict[str, str]:
    """The machine's own authorities, where `sslrootcert=system` asks for them.

    The driver's wheel brings an OpenSSL that looks for them in a folder which exists nowhere.
    """
    if parameters.get("sslrootcert") != "system":
        return {}
    import ssl  # here: few need them

    import certifi

    return {"sslrootcert": ssl.get_default_verify_paths().cafile or certifi.where(), "sslmode": "verify-full"}


def make_engine(url: str, *, application: str, pool_size: int = 5, **limits: str) -> Engine:
    """An engine whose connections carry `application` as their name and give up in time.

    `pool_pre_ping` costs one round trip per checkout and lets a process outlive a restart of the server. `limits` are
    run-time settings of the server that take the place of our own.

    Raises:
        SettingsError: the URL cannot be used.
    """
    address = parse_database_url(url)
    ours = {"statement_timeout": str(STATEMENT_TIMEOUT), "lock_timeout": str(LOCK_TIMEOUT), **PLANNING}
    connector = Connector(address, application, {**ours, **limits})
    engine = create_engine(
        address.url,
        creator=connector.connect,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT,
        pool_pre_ping=True,
        hide_parameters=True,  # an error's text goes into logs; the parameters hold prompts, tokens and URLs
    )
    event.listen(engine, "begin", connector.begin)
    event.listen(engine, "handle_error", _forget_stale_connections)
    return engine


def _forget_stale_connections(context: ExceptionContext) -> None:
    """After a failover kept connections lead to a server that only reads: new ones are made."""
    if sqlstate(context.original_exception) in STALE_CONNECTION:
        context.is_disconnect = True


SCHEMA_REVISION = Statement("SELECT version_num FROM alembic_version")
UNUSABLE_SCHEMA = Statement("""
    SELECT nspname FROM pg_namespace JOIN pg_class ON relnamespace = pg_namespace.oid
    WHERE relname = 'alembic_version' AND NOT has_schema_privilege(pg_namespace.oid, 'USAGE') LIMIT 1
""")
"""A schema with our tables that the role may not even look into: to it they are not there."""


def check_schema(engine: Engine, revision: str) -> None:
    """Make sure that the database can be reached and stands at `revision`.

    Raises:
        DatabaseError: it cannot be reached, holds no schema, or another one, or may not be read.
    """
    try:
        with engine.connect() as connection:
            found = connection.exec_driver_sql(SCHEMA_REVISION).scalar()
    except DATABASE_ERRORS as error:
        if sqlstate(error) == UNDEFINED_TABLE:
            raise DatabaseError(_explain_no_tables(engine)) from None
        if sqlstate(error) is None and is_away(error):
            raise DatabaseError(f"The database cannot be reached: {reason(error)}{advise(error)}.") from None
        if sentence := explain(error):
            raise DatabaseError(sentence) from None
        raise
    if found != revision:
        raise DatabaseError(
            f"The database's schema is at {found}, this darkroom needs {revision}; run `darkroom migrate`."
        )


def _explain_no_tables(engine: Engine) -> str:
    with engine.connect() as connection:
        hidden = connection.exec_driver_sql(UNUSABLE_SCHEMA).scalar()
    if hidden:
        return f"The database role lacks a right: USAGE on schema {hidden}; see docs/deploy.md, Rights."
    return f"The database has no darkroom schema{_where(engine)}; run `darkroom migrate`."


def _where(engine: Engine) -> str:
    """In which schemas was looked, where the URL chooses them."""
    options = str(engine.url.query.get("options", ""))
    path = next((word.partition("=")[2] for word in options.split() if word.startswith("search_path=")), "")
    return f" in search_path {path}" if path else ""
