"""What a caller may do with a batch that is there: cancel, pause, resume, retry, hurry, append.

Each is idempotent and safe against whatever the lanes do meanwhile; each belongs into a transaction of the caller's.
What it means for the edits is decided in `models/transitions`.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row

from core.errors import Conflict, ManifestError, NotFound
from intake.batches import CreatedBatch, IdempotencyConflict
from intake.insert_edits import ManifestTotals, OnInvalid, count_entries, write_edits
from intake.insert_inputs import NewInputs
from intake.manifest import Entry, FaultyLine, LineFault, NewEdit
from models.queries.batches import (
    ADDITION_OF_KEY,
    GROW_BATCH,
    KEEP_ADDITION,
    LOCK_BATCH,
    PAUSE_BATCH,
    RESUME_BATCH,
    SET_PRIORITY,
    STATE_OF_BATCH,
)
from models.queries.edits import NAMES_TAKEN
from models.transitions import PRUNED, cancel_batch, retry_failed


def cancel(connection: Connection, batch_id: UUID) -> int:
    """Cancel what is not paid for yet; answers how many edits that concerned, 0 where nothing was left to cancel.

    Raises:
        NotFound: there is no such batch.
        Conflict: it is pruned.
    """
    return cancel_batch(connection, batch_id)


def pause(connection: Connection, batch_id: UUID) -> None:
    """Submit no more of it for now; what is in flight finishes.

    Raises:
        NotFound: there is no such batch.
        Conflict: it is finished.
    """
    if _batch(connection, batch_id, lock=True).finished_at is not None:
        raise Conflict("The batch is finished; there is nothing to pause.")
    connection.exec_driver_sql(PAUSE_BATCH, (batch_id,))


def resume(connection: Connection, batch_id: UUID) -> None:
    """Go on with a paused batch.

    Raises:
        NotFound: there is no such batch.
    """
    _batch(connection, batch_id)
    connection.exec_driver_sql(RESUME_BATCH, (batch_id,))


def retry(connection: Connection, batch_id: UUID, error_types: Sequence[str] = ()) -> int:
    """Try failed edits again, those of some error types or all; answers how many.

    Images that were paid for are only fetched again; every other retry is a new paid attempt.

    Raises:
        NotFound: there is no such batch.
        Conflict: it is cancelled, or pruned.
    """
    batch = _batch(connection, batch_id)
    if batch.pruned_at is not None:
        raise Conflict(PRUNED)
    if batch.cancelled_at is not None:
        raise Conflict("The batch is cancelled; export what failed and submit it as a new batch.")
    return retry_failed(connection, batch_id, error_types)


def set_priority(connection: Connection, batch_id: UUID, priority: int) -> None:
    """Let it go before batches of a lower priority from the next claim on; -32768 to 32767.

    Raises:
        NotFound: there is no such batch.
    """
    _batch(connection, batch_id)
    connection.exec_driver_sql(SET_PRIORITY, (priority, batch_id))


def next_position(connection: Connection, batch_id: UUID) -> int:
    """Where an edit appended now would stand; the batch stays locked, so that nothing comes between.

    Raises:
        NotFound: there is no such batch.
    """
    return int(_batch(connection, batch_id, lock=True).edit_count)


def append(
    connection: Connection,
    batch_id: UUID,
    entries: Iterable[Entry],
    *,
    idempotency_key: str | None = None,
    on_invalid: OnInvalid = "fail",
) -> CreatedBatch:
    """Add edits to an unfinished batch, all or (on any error) none; read them with `first=next_position(…)`.

    The batch's row is locked first: it can neither finish nor be cancelled before the new edits are seen.

    Raises:
        NotFound: there is no such batch.
        Conflict: it is finished or cancelled.
        ManifestFaults: lines are faulty, or carry a `custom_id` that the batch has already.
        ManifestError: there is no line.
        IdempotencyConflict: the key stands for other edits.
    """
    content = ManifestTotals("append")
    with connection.begin_nested():
        batch = _batch(connection, batch_id, lock=True)
        if idempotency_key is not None and (known := _addition(connection, batch_id, idempotency_key)):
            count_entries(entries, content, on_invalid=on_invalid)
            _require_same_content(known.content_sha256, content, idempotency_key)
            return CreatedBatch(batch_id, content.edits, content.warnings(), existing=True, skipped=content.skipped)
        if batch.cancelled_at is not None or batch.finished_at is not None:
            if batch.pruned_at is not None:
                raise Conflict(PRUNED)
            raise Conflict(f"The batch is {'cancelled' if batch.cancelled_at else 'finished'}; nothing can be added.")
        fresh = _refuse_existing(connection, batch_id, batch.edit_count, entries)
        inputs = NewInputs(batch.check_inputs)
        write_edits(connection, batch_id, fresh, content, inputs, on_invalid=on_invalid, first=batch.edit_count)
        if not content.edits:
            raise ManifestError("There is no edit to be added.")
        _count_in(connection, batch_id, content, inputs, idempotency_key)
    return CreatedBatch(batch_id, content.edits, content.warnings(), skipped=content.skipped)


def _require_same_content(known_sha256: str, content: ManifestTotals, idempotency_key: str) -> None:
    if not content.matches(known_sha256):
        raise IdempotencyConflict(f"The idempotency key {idempotency_key} was used for other edits; use a new one.")


def _count_in(
    connection: Connection, batch_id: UUID, content: ManifestTotals, inputs: NewInputs, idempotency_key: str | None
) -> None:
    connection.exec_driver_sql(GROW_BATCH, (content.edits, inputs.written, inputs.first, batch_id))
    if idempotency_key is not None:
        row = {
            "batch": batch_id,
            "key": idempotency_key,
            "content_sha256": content.sha256(),
            "edits": content.edits,
            "skipped": content.skipped,
        }
        connection.exec_driver_sql(KEEP_ADDITION, row)


LOOKED_UP = 1_000
"""Edits whose names are looked up at one time."""


def _refuse_existing(connection: Connection, batch_id: UUID, first: int, entries: Iterable[Entry]) -> Iterable[Entry]:
    """The entries, with a fault for each whose images would be stored where another edit's are."""
    waiting: list[Entry] = []
    position = first
    for entry in entries:
        waiting.append(entry)
        if len(waiting) == LOOKED_UP:
            yield from _compare_with_existing(connection, batch_id, position, waiting)
            position += len(waiting)
            waiting = []
    yield from _compare_with_existing(connection, batch_id, position, waiting)


def _compare_with_existing(
    connection: Connection, batch_id: UUID, position: int, entries: Sequence[Entry]
) -> Iterable[Entry]:
    names = [entry.custom_id or str(position + number) for number, entry in enumerate(entries)]
    rows = connection.exec_driver_sql(
        NAMES_TAKEN,
        {
            "batch": batch_id,
            "names": names,
            "positions": [
                int(name) for name in names if name.isdecimal() and len(name) < 10 and str(int(name)) == name
            ],
        },
    )
    there = set(rows.scalars())
    for name, entry in zip(names, entries, strict=True):
        if isinstance(entry, NewEdit) and name in there:
            fault = LineFault(
                entry.line, entry.custom_id, "custom_id", f"{name} is what an edit of the batch is called"
            )
            named = {"custom_id": entry.custom_id} if entry.custom_id else {}
            yield FaultyLine(entry.line, None, {**named, **entry.arguments}, (fault,))
        else:
            yield entry


def _batch(connection: Connection, batch_id: UUID, *, lock: bool = False) -> Row[*tuple[Any, ...]]:
    row = connection.exec_driver_sql(LOCK_BATCH if lock else STATE_OF_BATCH, (batch_id,)).first()
    if row is None:
        raise NotFound(f"There is no batch {batch_id}.")
    return row


def _addition(connection: Connection, batch_id: UUID, key: str) -> Row[*tuple[Any, ...]] | None:
    return connection.exec_driver_sql(ADDITION_OF_KEY, (batch_id, key)).first()
