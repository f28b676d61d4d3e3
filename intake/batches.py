"""How a batch comes into the database: whole, once, in one transaction that the caller owns.

Streams: whatever the manifest's size, a few thousand edits are held at a time. Validates no edit (that is the
manifest's part) and writes no `state`: a new edit is `pending` and due because the table says so.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from typing import Annotated, Any
from uuid import UUID

import psycopg
from psycopg.errors import LockNotAvailable
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, StrictInt
from pydantic_core import PydanticCustomError
from sqlalchemy import Connection, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import OperationalError

from intake.manifest import LineFault, ManifestFaults, NewEdit
from models.errors import ManifestError, UserError
from models.seedream import ENDPOINT, INT32_MAX, Text, is_web_url, storable
from models.tables import batches

FAULTS_MAX = 1000
"""Faults of one manifest that are gathered before reading stops."""
WARNINGS_MAX = 100
"""Different warnings of one manifest that are kept; each counts its lines."""
CHUNK_EDITS, CHUNK_CHARS = 5_000, 8 * 2**20
"""What one COPY carries at most. It is read in full before its COPY starts, so that neither a slow caller nor a
big batch brings a statement near its timeout."""


class IdempotencyConflict(UserError):
    """The idempotency key belongs to another batch."""


def _web_url(url: str) -> str:
    if not is_web_url(url):
        raise PydanticCustomError("url", "must be a URL (http, https)")
    return url


def _storable_json(metadata: dict[str, JsonValue]) -> dict[str, JsonValue]:
    parts: list[Any] = [metadata]
    while parts:
        match parts.pop():
            case str(text):
                storable(text)
            case dict(fields):
                parts += [*fields, *fields.values()]
            case list(entries):
                parts += entries
            case float(number) if not isfinite(number):
                raise PydanticCustomError("not_finite", "holds a number that JSON does not know")
    return metadata


_Name = Annotated[Text, Field(min_length=1, max_length=255)]
_Count = Annotated[StrictInt, Field(le=INT32_MAX)]


class BatchHeader(BaseModel):
    """What a caller says about a batch as a whole; each field is the column of its name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: _Name | None = None
    client: _Name = Field("local", description="who asks for it")
    priority: StrictInt = Field(0, ge=-(2**15), le=2**15 - 1, description="higher goes first")
    max_in_flight: _Count | None = Field(None, ge=1, description="edits at the provider at once")
    max_attempts: _Count | None = Field(None, ge=1, description="paid attempts per edit on transient errors")
    max_cost: Decimal | None = Field(None, ge=0, le=10**9, decimal_places=6, description="USD")
    tolerated_failures: _Count | None = Field(None, ge=0, description="more failed edits end the batch")
    tolerated_failure_percent: Decimal | None = Field(None, ge=0, le=100, decimal_places=6)
    deadline: AwareDatetime | None = Field(None, description="what is not submitted by then is not submitted")
    notify_url: Annotated[Text, Field(max_length=2048), AfterValidator(_web_url)] | None = None
    metadata: Annotated[dict[str, JsonValue], AfterValidator(_storable_json)] = Field(default_factory=dict)
    idempotency_key: _Name | None = Field(None, description="one batch per client and key, however often it is asked")


@dataclass(frozen=True, slots=True)
class CreatedBatch:
    """A batch that stands in the database; `existing` where an earlier call with the same key made it."""

    batch_id: UUID
    edits: int
    warnings: tuple[str, ...] = ()
    existing: bool = False


def create(connection: Connection, header: BatchHeader, entries: Iterable[NewEdit | LineFault]) -> CreatedBatch:
    """Write a batch and its edits; on any error nothing of it remains, even if the caller commits.

    Of two calls at once with the same client and key, the second waits for the first and then finds its batch.

    Raises:
        ManifestFaults: some entries are faults; carries them.
        ManifestError: there is no entry.
        IdempotencyConflict: the key stands for other content, or for a batch still being created.
    """
    content = _Content(header)
    with connection.begin_nested():
        batch_id = _claimed(connection, header)
        if batch_id is None:
            return _existing(connection, header, content, entries)
        for rows in _chunks(content, entries):
            _copy(connection, batch_id, rows)
        if not content.edits:
            raise ManifestError("The manifest holds no edit.")
        finished = update(batches).where(batches.c.id == batch_id)
        connection.execute(finished.values(edit_count=content.edits, content_sha256=content.sha256()))
    return CreatedBatch(batch_id, content.edits, content.warnings())


def _claimed(connection: Connection, header: BatchHeader) -> UUID | None:
    """The new batch's id; None where its key is taken.

    The row goes first, so that the unique index makes a second call with the key wait for our commit or rollback.
    Its count and hash are known at the end; until then nobody else sees it.
    """
    statement = (
        insert(batches)
        .values(**header.model_dump(), endpoint=ENDPOINT, edit_count=1)
        .on_conflict_do_nothing(
            index_elements=[batches.c.client, batches.c.idempotency_key],
            index_where=batches.c.idempotency_key.is_not(None),
        )
        .returning(batches.c.id)
    )
    try:
        return connection.execute(statement).scalar()
    except OperationalError as error:
        if isinstance(error.orig, LockNotAvailable):
            raise IdempotencyConflict("The batch of this idempotency key is being created; try again later.") from None
        raise


def _existing(
    connection: Connection, header: BatchHeader, content: "_Content", entries: Iterable[NewEdit | LineFault]
) -> CreatedBatch:
    for edit in _sound(entries):
        content.take(edit)
    found = connection.execute(
        select(batches.c.id, batches.c.edit_count, batches.c.content_sha256).where(
            batches.c.client == header.client, batches.c.idempotency_key == header.idempotency_key
        )
    ).first()
    if found is None or found.content_sha256 != content.sha256():
        raise IdempotencyConflict(
            f"The idempotency key {header.idempotency_key} was used for a batch of other content; use a new one."
        )
    return CreatedBatch(found.id, found.edit_count, content.warnings(), existing=True)


def _sound(entries: Iterable[NewEdit | LineFault]) -> Iterator[NewEdit]:
    """The edits up to the first fault; what follows is read for its faults only, which are raised at the end."""
    faults: list[LineFault] = []
    for entry in entries:
        if isinstance(entry, LineFault):
            faults.append(entry)
            if len(faults) == FAULTS_MAX:
                raise ManifestFaults(faults, more=True)
        elif not faults:
            yield entry
    if faults:
        raise ManifestFaults(faults)


_Row = tuple[int, str | None, str, int]


def _chunks(content: "_Content", entries: Iterable[NewEdit | LineFault]) -> Iterator[list[_Row]]:
    rows: list[_Row] = []
    characters = 0
    for edit in _sound(entries):
        position, arguments = content.edits, content.take(edit)
        rows.append((position, edit.custom_id, arguments, edit.seed))
        characters += len(arguments)
        if len(rows) >= CHUNK_EDITS or characters >= CHUNK_CHARS:
            yield rows
            rows.clear()  # copied by now; the next chunk must not be read beside it
            characters = 0
    if rows:
        yield rows


def _copy(connection: Connection, batch_id: UUID, rows: list[_Row]) -> None:
    # SQLAlchemy has no COPY; the driver's cursor works inside SQLAlchemy's transaction
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    batch = str(batch_id)
    statement = "COPY edits (batch_id, position, custom_id, arguments, seed) FROM STDIN"
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row((batch, *row))


class _Content:
    """What header and edits add up to while they pass: count, hash and warnings.

    A seed that we drew is no part of the hash: the same manifest given again is the same content.
    """

    def __init__(self, header: BatchHeader) -> None:
        self.edits = 0
        self._digest = hashlib.sha256()
        self._digest.update(
            _ENCODER.encode(header.model_dump(mode="json", exclude={"client", "idempotency_key"})).encode()
        )
        self._warnings: dict[str, tuple[int, int]] = {}

    def take(self, edit: NewEdit) -> str:
        """Count the edit in; answers its arguments as JSON."""
        self.edits += 1
        arguments = _ENCODER.encode(edit.arguments)
        self._digest.update(f"\n{edit.custom_id or ''} {arguments}".encode())
        for warning in edit.warnings:
            line, count = self._warnings.get(warning, (edit.line, 0))
            if count or len(self._warnings) < WARNINGS_MAX:
                self._warnings[warning] = line, count + 1
        return arguments

    def sha256(self) -> str:
        return self._digest.hexdigest()

    def warnings(self) -> tuple[str, ...]:
        return tuple(
            f"line {line}{f' and {count - 1} more' if count > 1 else ''}: {text}"
            for text, (line, count) in self._warnings.items()
        )


_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
