"""One engine per process from a URL, with bounded waits.

Hot paths send plain SQL through the driver (`connection.exec_driver_sql`): sets in, sets out, no ORM.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, OperationalError, ProgrammingError

from models.errors import DatabaseError, SettingsError

CONNECT_TIMEOUT = 5
"""Seconds to wait for a connection; the callers' own retries do the rest."""
STATEMENT_TIMEOUT = 30_000
"""Milliseconds a statement may take; every statement of ours is bounded to a set far below this."""
LOCK_TIMEOUT = 10_000
"""Milliseconds to wait for a row or advisory lock before the step is tried again later."""

SILENCE_MAX = 60.0
"""Seconds for which the database may be away while somebody watches."""

Found = TypeVar("Found")


def patiently(look: Callable[[], Found]) -> Found:
    """What `look` finds, again and again while the database is away, as when its server restarts.

    Raises:
        OperationalError: it stays away for `SILENCE_MAX`.
    """
    deadline = time.monotonic() + SILENCE_MAX
    while True:
        try:
            return look()
        except OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def parse_url(url: str) -> URL:
    """The URL with our driver named.

    Raises:
        SettingsError: it is no database URL.
    """
    try:
        return make_url(url).set(drivername="postgresql+psycopg")
    except ArgumentError:
        raise SettingsError("DATABASE_URL is no database URL; expected postgresql://user:password@host/name.") from None


def make_engine(url: str, *, application: str, pool_size: int = 5) -> Engine:
    """An engine whose connections carry `application` as their name and give up in time.

    `pool_pre_ping` costs one round trip per checkout and lets a process outlive a restart of the server.
    """
    options = f"-c statement_timeout={STATEMENT_TIMEOUT} -c lock_timeout={LOCK_TIMEOUT}"
    return create_engine(
        parse_url(url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT,
        pool_pre_ping=True,
        hide_parameters=True,  # an error's text goes into logs; the parameters hold prompts, tokens and URLs
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT,
            "application_name": application,
            "options": options,
        },
    )


def check_schema(engine: Engine, revision: str) -> None:
    """Make sure that the database can be reached and stands at `revision`.

    Raises:
        DatabaseError: it cannot be reached, holds no schema, or another one.
    """
    try:
        with engine.connect() as connection:
            found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    except ProgrammingError:
        raise DatabaseError("The database has no darkroom schema; run `darkroom migrate`.") from None
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise DatabaseError(f"The database cannot be reached: {reason}.") from None
    if found != revision:
        raise DatabaseError(
            f"The database's schema is at {found}, this darkroom needs {revision}; run `darkroom migrate`."
        )
