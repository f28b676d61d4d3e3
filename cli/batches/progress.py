"""What a batch looks like from outside: rows of the view `batch_progress`, and how their numbers are shown.

Reads only; every number that is shown can be had by anyone with one query of the same view.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine

from core.errors import NotFound
from models.pauses import list_pauses
from models.queries.batches import (
    BATCHES_BY_PREFIX,
    ERRORS_BY_TYPE,
    ERRORS_OF_BATCHES,
    LAST_NOTIFICATION,
    NEWEST_BATCH,
    PROGRESS_OF_BATCH,
    PROGRESS_OF_BATCHES,
    PROGRESS_OF_NEWEST,
    UNANSWERED_BY_REASON,
)
from models.queries.health import PROVIDER_PAUSE
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
            answer = connection.exec_driver_sql(NEWEST_BATCH)
        else:
            answer = connection.exec_driver_sql(BATCHES_BY_PREFIX, (wanted.lower(),))
        found = answer.scalars().all()
    if not found:
        raise NotFound("There is no batch yet." if wanted == "last" else f"There is no batch {wanted}.")
    if len(found) > 1:
        raise NotFound(f"More than one batch begins with {wanted}; give more of its id.")
    return str(found[0])


def progress_of(engine: Engine, batch_id: str) -> Row:
    """The batch's row of the view `batch_progress`, and why the provider's account is paused, if it is."""
    with engine.connect() as connection:
        return read_progress(connection, batch_id)


def read_progress(connection: Connection, batch_id: UUID | str) -> Row:
    """The same, as the transaction of the caller sees it."""
    return dict(connection.exec_driver_sql(PROGRESS_OF_BATCH, (batch_id,)).mappings().one())


def progress_of_all(engine: Engine, batch_ids: Sequence[str]) -> list[Row]:
    """The same for several batches, in their order, each with its `errors` by type, the most frequent first.

    Both are as of one moment: an error that is told beside counts without it would be told twice.
    """
    with engine.execution_options(isolation_level="REPEATABLE READ").begin() as connection:
        rows = connection.exec_driver_sql(PROGRESS_OF_BATCHES, (list(batch_ids),)).mappings().all()
        errors = connection.exec_driver_sql(ERRORS_OF_BATCHES, (list(batch_ids),)).mappings().all()
    by_type: dict[str, list[Row]] = {batch_id: [] for batch_id in batch_ids}
    for error in errors:
        shown = {name: error[name] for name in ("type", "edits", "failed", "example")}
        by_type[str(error["batch_id"])].append(shown)
    found = {str(row["batch_id"]): row for row in rows}
    return [{**found[batch_id], "errors": by_type[batch_id][:SHOWN_ERRORS]} for batch_id in batch_ids]


def newest_batches(engine: Engine, limit: int) -> list[Row]:
    """The same for the newest batches, newest first."""
    with engine.connect() as connection:
        return [dict(row) for row in connection.exec_driver_sql(PROGRESS_OF_NEWEST, (limit,)).mappings()]


def provider_pause(connection: Connection) -> Row | None:
    """Since when and why the provider's account is paused, and when it is tried again; None where it is not."""
    row = connection.exec_driver_sql(PROVIDER_PAUSE).mappings().first()
    return dict(row) if row else None


def lane_pauses(connection: Connection) -> list[Row]:
    """What of which lane stands still for a trouble of ours or of one model, the oldest first."""
    return [pause._asdict() for pause in list_pauses(connection)]


def last_notification(connection: Connection, batch_id: str) -> Row | None:
    """The newest message that the batch's caller is owed or was told; None where there is none."""
    row = connection.exec_driver_sql(LAST_NOTIFICATION, (batch_id,)).mappings().first()
    return dict(row) if row else None


def errors_of(engine: Engine, batch_id: str) -> list[Row]:
    """The latest error of each edit that is not stored, grouped by type."""
    with engine.connect() as connection:
        return [dict(row) for row in connection.exec_driver_sql(ERRORS_BY_TYPE, (batch_id, SHOWN_ERRORS)).mappings()]


def unanswered_of(connection: Connection, batch_id: str) -> list[Row]:
    """What the provider was asked about in vain, and why, the most frequent reasons first."""
    return [dict(row) for row in connection.exec_driver_sql(UNANSWERED_BY_REASON, (batch_id, SHOWN_ERRORS)).mappings()]


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
