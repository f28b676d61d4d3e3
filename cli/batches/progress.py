"""What a batch looks like from outside: rows of the view `batch_progress`, and how their numbers are shown.

Reads only; every number that is shown can be had by anyone with one query of the same view.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine

from core.errors import NotFound
from models.pauses import list_pauses
from models.states import EditState

FINAL_LAST = (EditState.STORED, EditState.FAILED, EditState.CANCELLED)
SHOWN_ERRORS = 10
COLOURS = {EditState.STORED: "green", EditState.FAILED: "red", EditState.CANCELLED: "yellow"}

Row = Mapping[str, Any]


def find_batch(engine: Engine, wanted: str) -> str:
    """The id of the batch meant by a whole id, by a beginning that only one id has, or by `last`.

    Raises:
        NotFound: none, or more than one.
    """
    with engine.connect() as connection:
        if wanted == "last":
            answer = connection.exec_driver_sql("SELECT id FROM batches ORDER BY created_at DESC, id LIMIT 1")
        else:
            query = "SELECT id FROM batches WHERE starts_with(id::text, %s) LIMIT 2"
            answer = connection.exec_driver_sql(query, (wanted.lower(),))
        found = answer.scalars().all()
    if not found:
        raise NotFound("There is no batch yet." if wanted == "last" else f"There is no batch {wanted}.")
    if len(found) > 1:
        raise NotFound(f"More than one batch begins with {wanted}; give more of its id.")
    return str(found[0])


_ROWS = """
    SELECT *, (SELECT reason FROM provider_status WHERE paused_at IS NOT NULL) AS provider_paused FROM batch_progress
"""


def progress_of(engine: Engine, batch_id: str) -> Row:
    """The batch's row of the view `batch_progress`, and why the provider's account is paused, if it is."""
    with engine.connect() as connection:
        query = f"{_ROWS} WHERE batch_id = %s"
        return dict(connection.exec_driver_sql(query, (batch_id,)).mappings().one())


def newest_batches(engine: Engine, limit: int) -> list[Row]:
    """The same for the newest batches, newest first."""
    with engine.connect() as connection:
        query = f"{_ROWS} ORDER BY created_at DESC LIMIT %s"
        return [dict(row) for row in connection.exec_driver_sql(query, (limit,)).mappings()]


def provider_pause(connection: Connection) -> Row | None:
    """Since when and why the provider's account is paused, and when it is tried again; None where it is not."""
    query = "SELECT paused_at, reason, message, retry_at, probes FROM provider_status WHERE paused_at IS NOT NULL"
    row = connection.exec_driver_sql(query).mappings().first()
    return dict(row) if row else None


def lane_pauses(connection: Connection) -> list[Row]:
    """What of which lane stands still for a trouble of ours or of one model, the oldest first."""
    return [pause._asdict() for pause in list_pauses(connection)]


def last_notification(connection: Connection, batch_id: str) -> Row | None:
    """The newest message that the batch's caller is owed or was told; None where there is none."""
    query = """
        SELECT event, attempt, created_at, due_at, delivered_at, last_status, last_error
        FROM notifications WHERE batch_id = %s ORDER BY created_at DESC LIMIT 1
    """
    row = connection.exec_driver_sql(query, (batch_id,)).mappings().first()
    return dict(row) if row else None


def errors_of(engine: Engine, batch_id: str) -> list[Row]:
    """The latest error of each edit that is not stored, grouped by type."""
    query = """
        SELECT type, count(*) AS edits, count(*) FILTER (WHERE state = 'failed') AS failed, min(message) AS example
        FROM edit_errors WHERE batch_id = %s AND latest AND state <> 'stored'
        GROUP BY type ORDER BY edits DESC, type LIMIT %s
    """
    with engine.connect() as connection:
        return [dict(row) for row in connection.exec_driver_sql(query, (batch_id, SHOWN_ERRORS)).mappings()]


def unanswered_of(connection: Connection, batch_id: str) -> list[Row]:
    """What the provider was asked about in vain, and why, the most frequent reasons first."""
    query = """
        SELECT state, reason, count(*) AS submissions, min(asked_again_at) AS asked_again_at
        FROM unanswered WHERE batch_id = %s GROUP BY state, reason ORDER BY submissions DESC, reason LIMIT %s
    """
    return [dict(row) for row in connection.exec_driver_sql(query, (batch_id, SHOWN_ERRORS)).mappings()]


def done(row: Row) -> int:
    """Edits that are final."""
    return sum(int(row[state]) for state in FINAL_LAST)


def all_stored(row: Row) -> bool:
    """Whether the batch went as well as it can."""
    return bool(row["stored"] == row["edits"])


def counts(row: Row) -> str:
    """The edits by state, those that occur, in the order in which they pass through; with markup."""
    parts = [(state, int(row[state])) for state in EditState]
    shown = [f"[{COLOURS.get(state, 'default')}]{number} {state}[/]" for state, number in parts if number]
    return ", ".join(shown) or "none"


def as_text(value: object) -> str:
    """A column's value for people; nothing for NULL."""
    if isinstance(value, datetime):
        return f"{value.astimezone():%Y-%m-%d %H:%M:%S}"
    return "" if value is None else str(value)


def when(moment: datetime) -> str:
    """A moment in local time, and how far from now that is."""
    seconds = (datetime.now(UTC) - moment).total_seconds()
    distance = f"{duration(seconds)} ago" if seconds >= 0 else f"in {duration(-seconds)}"
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S} ({distance})"


def duration(seconds: float) -> str:
    """Seconds in a form for people."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} days"
