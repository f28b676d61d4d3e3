"""From a stream of judged lines to rows of `edits`: sets of a few thousand, by COPY, whatever the size of the whole.

Judges nothing and writes no `state`: a new edit is `pending` and due because the table says so; a faulty line that
is to be skipped becomes an edit that `models/transitions` fails in the same transaction.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

import psycopg
from sqlalchemy import Connection

from intake.insert_inputs import NewInputs
from intake.manifest import Entry, FaultyLine, LineFault, ManifestFaults, NewEdit
from models.queries.edits import COPY_EDITS
from models.seedream import unstorable
from models.transitions import SkippedEdit, fail_skipped

OnInvalid = Literal["fail", "skip"]
"""What faulty lines do: fail the whole, which then writes nothing, or become failed edits beside the good ones."""
FAULTS_MAX = 1000
"""Faults of one manifest that are gathered before reading stops."""
WARNINGS_MAX = 100
"""Different warnings of one manifest that are kept; each counts its lines."""
CHUNK_EDITS, CHUNK_CHARS = 5_000, 8 * 2**20
"""What one COPY carries at most. It is read in full before its COPY starts, so that neither a slow caller nor a
big batch brings a statement near its timeout."""

_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def as_json(value: object) -> str:
    """The one text of a value, whatever the order in which its fields were given."""
    return _ENCODER.encode(value)


class ManifestTotals:
    """What the lines add up to while they pass: counts, worst case, hash and warnings.

    A seed that we drew is no part of the hash: the same manifest given again is the same content. Nor is the URL under
    which a local file was uploaded, which is another one once the provider has deleted it.
    """

    def __init__(self, about: object) -> None:
        self.edits = self.skipped = self.images_least = self.images_most = 0
        self._digest = hashlib.sha256(as_json(about).encode())
        self._as_sent: hashlib._Hash | None = None
        self._warnings: dict[str, tuple[int, int]] = {}

    def count_edit(self, edit: NewEdit) -> str:
        """Count the edit in; answers its arguments as JSON."""
        self.edits += 1
        self.images_least += edit.arguments.get("num_images") or 1
        self.images_most += edit.expected_images
        arguments = as_json(edit.arguments)
        if edit.content is not None and self._as_sent is None:
            self._as_sent = self._digest.copy()
        content = arguments if edit.content is None else as_json(edit.content)
        self._update(edit.custom_id, content, arguments)
        for warning in edit.warnings:
            line, count = self._warnings.get(warning, (edit.line, 0))
            if count or len(self._warnings) < WARNINGS_MAX:
                self._warnings[warning] = line, count + 1
        return arguments

    def count_faulty(self, line: FaultyLine) -> str:
        """Count a faulty line in; answers what could be read of it, as JSON."""
        self.edits += 1
        self.skipped += 1
        fields = "{}" if unstorable(line.fields) else as_json(line.fields)
        text = f"{fields} {len(line.faults)}"
        self._update(line.custom_id, text, text)
        return fields

    def _update(self, custom_id: str | None, content: str, as_sent: str) -> None:
        self._digest.update(f"\n{custom_id or ''} {content}".encode())
        if self._as_sent is not None:
            self._as_sent.update(f"\n{custom_id or ''} {as_sent}".encode())

    def sha256(self) -> str:
        """Of everything so far, lower-case hex."""
        return self._digest.hexdigest()

    def matches(self, sha256: str | None) -> bool:
        """Whether this is the hash of the same content; releases before took the URLs of uploaded files for it."""
        return sha256 == self.sha256() or (self._as_sent is not None and sha256 == self._as_sent.hexdigest())

    def warnings(self) -> tuple[str, ...]:
        """Each once, with its first line and how many more have it."""
        return tuple(
            f"line {line}{f' and {count - 1} more' if count > 1 else ''}: {text}"
            for text, (line, count) in self._warnings.items()
        )


@dataclass(slots=True)
class _Chunk:
    rows: list[tuple[int, str | None, str, int]] = field(default_factory=list)
    skipped: list[SkippedEdit] = field(default_factory=list)
    characters: int = 0

    def add(self, position: int, entry: Entry, arguments: str) -> None:
        seed = entry.seed if isinstance(entry, NewEdit) else 0
        self.rows.append((position, entry.custom_id, arguments, seed))
        self.characters += len(arguments)
        if isinstance(entry, FaultyLine):
            self.skipped.append(SkippedEdit(position, str(entry)))

    @property
    def full(self) -> bool:
        return len(self.rows) >= CHUNK_EDITS or self.characters >= CHUNK_CHARS


ANALYZED_FROM = 50_000
"""Edits written at once from which the planner is told of them at once: PostgreSQL's own upkeep comes a minute later,
and until then a claim from millions of edits may be planned as if there were a handful."""


def count_entries(entries: Iterable[Entry], content: ManifestTotals, *, on_invalid: OnInvalid) -> None:
    """Count everything in and write nothing.

    Raises:
        ManifestFaults: lines are faulty, and are not to be skipped.
    """
    for entry in _admitted(entries, on_invalid):
        content.count_edit(entry) if isinstance(entry, NewEdit) else content.count_faulty(entry)


def write_edits(
    connection: Connection,
    batch_id: UUID,
    entries: Iterable[Entry],
    content: ManifestTotals,
    inputs: NewInputs,
    *,
    on_invalid: OnInvalid,
    first: int = 0,
) -> None:
    """Write the edits of a batch from position `first` on, and which `inputs` of them are to be looked at.

    Raises:
        ManifestFaults: lines are faulty, and are not to be skipped; the caller's transaction must not be committed.
    """
    chunk = _Chunk()
    for entry in _admitted(entries, on_invalid):
        position = first + content.edits
        chunk.add(
            position, entry, content.count_edit(entry) if isinstance(entry, NewEdit) else content.count_faulty(entry)
        )
        if isinstance(entry, NewEdit):
            inputs.add(position, entry.arguments["image_urls"])
        if chunk.full:
            _write(connection, batch_id, chunk)
            inputs.write(connection, batch_id)
            chunk = _Chunk()
    if chunk.rows:
        _write(connection, batch_id, chunk)
    inputs.write(connection, batch_id)
    inputs.write_sample(connection, batch_id, first)
    if content.edits >= ANALYZED_FROM:
        connection.exec_driver_sql("ANALYZE (SKIP_LOCKED) edits")


def include_earlier_faults(faults: list[LineFault], entries: Iterable[Entry]) -> Iterator[Entry]:
    """The lines; where the rest of them cannot be read, the error carries the `faults` gathered before, too."""
    try:
        yield from entries
    except ManifestFaults as error:
        raise ManifestFaults([*faults, *error.faults]) from None


def _admitted(entries: Iterable[Entry], on_invalid: OnInvalid) -> Iterator[Entry]:
    """The lines up to the first fault; what follows is read for its faults only, which are raised at the end."""
    faults: list[LineFault] = []
    for entry in include_earlier_faults(faults, entries):
        if isinstance(entry, FaultyLine) and on_invalid == "fail":
            faults += entry.faults
            if len(faults) >= FAULTS_MAX:
                raise ManifestFaults(faults[:FAULTS_MAX], more=True)
        elif not faults:
            yield entry
    if faults:
        raise ManifestFaults(faults)


def _write(connection: Connection, batch_id: UUID, chunk: _Chunk) -> None:
    # SQLAlchemy has no COPY; the driver's cursor works inside SQLAlchemy's transaction
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    batch = str(batch_id)
    with driver.cursor() as cursor, cursor.copy(COPY_EDITS) as copy:
        for row in chunk.rows:
            copy.write_row((batch, *row))
    if chunk.skipped:
        fail_skipped(connection, batch_id, chunk.skipped)
