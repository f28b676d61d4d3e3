"""The doctor's checks of the database: can it be used, and does what stands in it add up?"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine

from cli import migrate
from cli.batches.batch_text import why_paused
from cli.batches.progress import duration, lane_pauses, provider_pause, when
from cli.doctor.check_result import CheckResult, failure, ok, warning
from cli.output import plural
from core.errors import DatabaseError
from models.database import check_schema
from models.database_errors import DATABASE_ERRORS, advise, reason
from models.queries.batches import NOTIFIED_CLIENTS
from models.queries.health import (
    ACCOUNTS,
    AUDITED_ACCOUNTS,
    CLOCK,
    MISSING_RIGHTS,
    OVERDUE_BY_STATE,
    PING,
    READ_ONLY,
    SERVER_VERSION,
    WITHOUT_TIMEOUT,
)
from models.tables import metadata
from webhook_receiver.signature import TOLERANCE

CLOCK_WARNING = 5.0
"""Seconds that the clocks may differ before somebody should look."""
FOR_GOOD = ("invalid_key", "locked")
"""Reasons of a pause that no waiting mends."""


def connectivity(engine: Engine) -> Iterator[CheckResult]:
    """Whether it answers, and stands at our schema."""
    try:
        with engine.connect() as connection:
            version = connection.exec_driver_sql(SERVER_VERSION).scalar_one()
            read_only = connection.exec_driver_sql(READ_ONLY).scalar_one() == "on"
    except DATABASE_ERRORS as error:
        advice = "Start PostgreSQL, or fix DATABASE_URL; everything stands still until it answers, and nothing is lost."
        yield failure("database", f"PostgreSQL does not answer: {reason(error)}{advise(error)}.", advice)
        return
    if read_only:
        advice = "A standby, or a server that protects a full disk: fix it, or let DATABASE_URL name the primary."
        yield failure("database", "PostgreSQL is read-only; everything stands still, and nothing is lost.", advice)
        return
    yield ok("database", f"PostgreSQL {str(version).split()[0]} answers")
    try:
        check_schema(engine, migrate.newest())
    except DatabaseError as error:
        yield failure("schema", str(error))
        return
    lacking = missing_rights(engine)
    if lacking:
        sentence = f"The role may not {'; '.join(lacking)}."
        yield failure("rights", sentence, "Grant these rights as docs/deploy.md says; edits stand still until then.")
        return
    yield ok("schema", f"at {migrate.newest()}, the newest")


def missing_rights(engine: Engine) -> list[str]:
    """What the role may not do with our tables, as `INSERT, UPDATE on edits`."""
    rights = ("SELECT", "INSERT", "UPDATE", "DELETE")
    with engine.connect() as connection:
        found = connection.exec_driver_sql(MISSING_RIGHTS, (list(metadata.tables), list(rights)))
        return [f"{lacking} on {name}" for name, lacking in found]


def contents(engine: Engine, *, audit: bool) -> Iterator[CheckResult]:
    """What stands in it."""
    for name, check in (
        ("clock", clock_difference),
        ("account", account),
        ("pauses", pauses),
        ("accounting", audit_rows if audit else accounting),
        ("overdue", overdue),
    ):
        try:
            yield from check(engine)
        except DATABASE_ERRORS as error:
            yield warning(name, f"The database did not answer this question: {reason(error)}.", "Try again later.")


def clock_difference(engine: Engine) -> Iterator[CheckResult]:
    """How far this machine's clock is from the database's; stamps of callbacks are judged by the receiver's own."""
    with engine.connect() as connection:
        connection.exec_driver_sql(PING)  # so that connecting is not measured
        before = datetime.now(UTC)
        theirs = connection.exec_driver_sql(CLOCK).scalar_one()
        after = datetime.now(UTC)
    seconds = (theirs - (before + (after - before) / 2)).total_seconds()
    if abs(seconds) < CLOCK_WARNING:
        yield ok("clock", f"{abs(seconds):.1f} s from the database's")
        return
    word = "behind" if seconds > 0 else "ahead of"
    sentence = f"This machine's clock is {duration(abs(seconds))} {word} the database's."
    limit = TOLERANCE.total_seconds()
    advice = f"Set the clocks by NTP; where the receiver's is wrong by {limit:.0f} s, no callback is believed."
    yield (failure if abs(seconds) >= limit else warning)("clock", sentence, advice)


def account(engine: Engine) -> Iterator[CheckResult]:
    """Whether the provider's account is paused."""
    with engine.connect() as connection:
        pause = provider_pause(connection)
    if pause is None:
        yield ok("account", "not paused")
        return
    since, again = when(pause["paused_at"]), when(pause["retry_at"])
    sentence = f"Paused since {since}, {why_paused(pause).rstrip('.')}; next try {again}."
    if pause["reason"] in FOR_GOOD:
        yield failure("account", sentence, "Mend it with the provider, then run `darkroom resume --provider`.")
    else:
        yield warning("account", sentence, "It is tried again by itself; `darkroom resume --provider` tries at once.")


def notified_clients(engine: Engine) -> list[str]:
    """Clients with batches of the last 30 days whose ends are to be told."""
    with engine.connect() as connection:
        return list(connection.exec_driver_sql(NOTIFIED_CLIENTS).scalars())


def pauses(engine: Engine) -> Iterator[CheckResult]:
    """What of a lane stands still because the store, a disk or one model refuses."""
    with engine.connect() as connection:
        rows = lane_pauses(connection)
    for row in rows:
        since, again, why = when(row["paused_at"]), when(row["retry_at"]), why_paused(row).rstrip(".")
        sentence = f"{row['lane']} ({row['subject']}) has stood still since {since}, {why}; next try {again}."
        advice = "Mend what it says; nothing fails meanwhile, and it goes on by itself."
        yield (failure if row["lane"] == "download" else warning)("pauses", sentence, advice)
    if not rows:
        yield ok("pauses", "no lane stands still")


def accounting(engine: Engine) -> Iterator[CheckResult]:
    """Whether everything adds up, by the counters."""
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(ACCOUNTS).all()
    return _report_accounts(rows)


def audit_rows(engine: Engine) -> Iterator[CheckResult]:
    """The same by the rows themselves, with the counters held against them; as long as it takes."""
    with engine.begin() as connection:
        connection.exec_driver_sql(WITHOUT_TIMEOUT)
        rows = connection.exec_driver_sql(AUDITED_ACCOUNTS).all()
    return _report_accounts(rows)


def _report_accounts(rows: Sequence[Any]) -> Iterator[CheckResult]:
    wrong = [row for row in rows if row.difference]
    for row in wrong:
        advice = "This must not be, whatever died: a mistake of darkroom's. Keep the logs and report it."
        yield failure("accounting", f"{row.identity}: {row.difference} unexplained.", advice)
    if not wrong:
        yield ok("accounting", f"all {len(rows)} accounts balance")


def overdue(engine: Engine) -> Iterator[CheckResult]:
    """What has waited longer than its state may last."""
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(OVERDUE_BY_STATE).all()
    for row in rows:
        sentence = f"{plural(row.rows, row.what)} {row.state}, late by up to {duration(row.late)}."
        yield warning("overdue", sentence, "After an outage this shrinks by itself; if it grows, see the lanes below.")
    if not rows:
        yield ok("overdue", "nothing waits longer than it may")
