"""A manifest, one edit a line, as a stream of validated edits and of faulty lines.

Holds one line at a time (and the `custom_id`s, so that a doubled one can name the first), whatever the
manifest's size. Opens no file, uploads nothing, writes nothing: what becomes of the edits is the reader's affair.
"""

import json
import re
import secrets
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, BinaryIO, NoReturn

from pydantic import JsonValue, TypeAdapter, ValidationError

from core.errors import ManifestError
from models.seedream import EditArguments, faults, most_images, warnings

LINE_MAX_BYTES = 16 * 2**20
"""Of one line without its end; room for a few images as data URIs, and the bound of our memory."""
FIELDS_MAX = 100
"""Of one object; the model has nine. Bounds how many faults a single line can make."""
NESTED_MAX = 64
"""Levels of one object; far below what Python can take apart and put together again, wherever it stands."""

_SEVERAL = (
    "holds several edits; hand in a list of objects, or one object a line (in pandas with orient='records', lines=True)"
)
_WRONG_LINE_ENDS = "is not JSON: its lines end in a carriage return, each must end in a line feed"
_ANOTHER = re.compile(r"[,\s]*\{")
"""Another object behind the end of one."""
_CUSTOM_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
NAMES = (*EditArguments.model_fields, "custom_id")
"""Every field a line may have."""
_JSON = TypeAdapter(JsonValue)
_ODD_KINDS = {float, type(None)}
_LOCAL_PATHS = {"local_paths": True}


@dataclass(frozen=True, slots=True)
class NewEdit:
    """One line that may become an edit; `arguments` are the fields that it gave, `seed` the caller's or drawn by us."""

    line: int
    custom_id: str | None
    arguments: dict[str, Any]
    seed: int
    expected_images: int
    warnings: tuple[str, ...]
    content: dict[str, Any] | None = None
    """Its arguments as they count when two batches are compared, where that is not `arguments`."""


@dataclass(frozen=True, slots=True)
class LineFault:
    """One thing wrong with one line; without a `field` it is about the line as a whole."""

    line: int
    custom_id: str | None
    field: str | None
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.field + ': ' if self.field else ''}{self.reason}"


@dataclass(frozen=True, slots=True)
class FaultyLine:
    """One line that can be no edit, with everything that is wrong with it and what could be read of it."""

    line: int
    custom_id: str | None
    fields: dict[str, Any]
    faults: tuple[LineFault, ...]

    def __str__(self) -> str:
        return "; ".join(map(str, self.faults))


Entry = NewEdit | FaultyLine


class ManifestFaults(ManifestError):
    """The manifest has faulty lines; carries them all, or the first of very many.

    Raised while a manifest is read, it says that the rest cannot be read: then nothing of it may be taken.
    """

    def __init__(self, faults: Sequence[LineFault], *, more: bool = False) -> None:
        self.faults = tuple(faults)
        rest = [f"reading stopped after {len(self.faults)} faults"] if more else []
        super().__init__("\n".join([*map(str, self.faults), *rest]))


@dataclass(frozen=True, slots=True)
class Record:
    """The fields of one edit, read from whatever form the manifest has."""

    line: int
    fields: dict[str, Any]


class _Refused(ValueError):
    """Legal for Python's JSON reader, not for us."""


class _SeveralEdits(ManifestError):
    """It stands for many edits: as one faulty line, all of them would be passed over."""

    def __init__(self, reason: str = _SEVERAL) -> None:
        super().__init__(reason)


def read_jsonl(stream: BinaryIO, *, local_paths: bool = False, first: int = 0) -> Iterator[Entry]:
    """The edits of a JSONL manifest and its faulty lines, in order; blank lines are skipped.

    Give a buffered stream: an unbuffered one is read byte by byte. `local_paths` allows `image_urls` to name
    files of this machine; the reader uploads them. `first` is the position of the first edit in its batch.
    """
    return validate_records(read_json_lines(stream), local_paths=local_paths, first=first)


def read_objects(edits: Iterable[object], *, first: int = 0) -> Iterator[Entry]:
    """The same for edits that came as one JSON document; an edit's `line` is its place in the list, from 1."""
    return validate_records(map(_record, count(1), edits), local_paths=False, first=first)


def _record(line: int, edit: object) -> Record | LineFault:
    if not isinstance(edit, dict):
        return LineFault(line, None, None, "is not a JSON object")
    if _is_deep(edit):
        return LineFault(line, None, None, f"is nested more than {NESTED_MAX} levels deep")
    try:
        _JSON.validate_python(edit)
    except ValidationError:  # as the broker's own JSON can carry, which knows dates and decimals
        return LineFault(line, None, None, "holds a value that is not JSON")
    return Record(line, dict(edit))


def validate_records(records: Iterable[Record | LineFault], *, local_paths: bool, first: int) -> Iterator[Entry]:
    """What each record comes to, in order; a record that could not even be read is a fault already."""
    context = _LOCAL_PATHS if local_paths else None
    keys = _StorageKeys(first)
    for record in records:
        if isinstance(record, LineFault):
            keys.pass_over()
            yield FaultyLine(record.line, None, {}, (record,))
        else:
            yield _validate_record(record, keys, context)


def _validate_record(record: Record, keys: "_StorageKeys", context: dict[str, bool] | None) -> Entry:
    line, fields = record.line, _drop_nulls(_unwrap_result_line(record.fields))
    given = fields.pop("custom_id", None)
    wrong = None if given is None else _wrong_id(given)
    custom_id = given if wrong is None else None
    found = []
    if wrong := wrong or keys.reserve(custom_id, line):
        found.append(LineFault(line, custom_id, "custom_id", wrong))
    try:
        arguments = EditArguments.model_validate(fields, context=context)
    except ValidationError as error:
        if given is None and _holds_several(fields):
            stop_reading(line, _SEVERAL)
        found += [LineFault(line, custom_id, fault.field, fault.reason) for fault in faults(error, names=NAMES)]
    if wrong:
        named = fields if given is None else {"custom_id": given, **fields}  # it is refused, but it was said
        return FaultyLine(line, None, named, tuple(found))
    if found:
        return FaultyLine(line, custom_id, fields, tuple(found))
    seed = secrets.randbits(31) if arguments.seed is None else arguments.seed
    fields["image_urls"] = arguments.image_urls  # data URIs in the form in which they are sent
    return NewEdit(line, custom_id, fields, seed, most_images(arguments), tuple(warnings(arguments)))


def _holds_several(fields: dict[str, Any]) -> bool:
    """Whether it is a table by its columns, or an object around edits, as the body of a request to the API is."""
    prompt = fields.get("prompt")
    if isinstance(prompt, list | dict):
        return len(prompt) > 1
    parts = (value.values() if isinstance(value, dict) else value for value in fields.values() if _is_container(value))
    return not fields.keys() & set(NAMES) and any(_is_container(part) for whole in parts for part in whole)


def _is_container(value: object) -> bool:
    return isinstance(value, list | dict)


def _unwrap_result_line(fields: dict[str, Any]) -> dict[str, Any]:
    """A line of results stands for the edit that it carries, so that what failed can be handed in again as it is."""
    edit = fields.get("edit")
    return dict(edit) if isinstance(edit, dict) else fields


def _drop_nulls(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that say something: null is a field left out, and 2.0 is 2, as many programs write them."""
    size = fields.get("image_size")
    plain = _ODD_KINDS.isdisjoint(map(type, fields.values()))
    if plain and (type(size) is not dict or _ODD_KINDS.isdisjoint(map(type, size.values()))):
        return fields
    return {name: _whole(value) for name, value in fields.items() if value is not None}


def _whole(value: object) -> object:
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    return {name: _whole(part) for name, part in value.items()} if isinstance(value, dict) else value


def _wrong_id(custom_id: object) -> str | None:
    """Why this is no `custom_id`: it becomes part of a storage key, where a position stands for a missing one."""
    if not isinstance(custom_id, str):
        return "must be text"
    if not _CUSTOM_ID.fullmatch(custom_id) or custom_id in (".", ".."):
        return "must be 1 to 64 of the characters A-Z a-z 0-9 . _ -, and not . or .."
    return None


class _StorageKeys:
    """The storage keys given out so far: an edit's `custom_id`, or its position where it has none."""

    def __init__(self, first: int) -> None:
        self._lines: dict[str, int] = {}
        self._first = first
        self._unnamed = bytearray()  # by position from `first` on, 1 where the position is the key

    def pass_over(self) -> None:
        """The next edit needs no key: nothing of it can be read."""
        self._unnamed.append(False)

    def reserve(self, custom_id: str | None, line: int) -> str | None:
        """Why the next edit cannot have its key, or None and the key is taken."""
        position = self._first + len(self._unnamed)
        self._unnamed.append(custom_id is None)
        if custom_id is None:
            other = self._lines.get(str(position))
            return f"is needed: without one this edit is called {position}, and so is line {other}" if other else None
        first = self._lines.setdefault(custom_id, line)
        if first != line:
            return f"{custom_id} stands already on line {first}"
        number = int(custom_id) if custom_id.isdecimal() and len(custom_id) < 10 else position
        if str(number) == custom_id and self._first <= number < position and self._unnamed[number - self._first]:
            return f"{custom_id} is what an edit before it is called, which has no custom_id"
        return None


def stop_reading(line: int, reason: str, field: str | None = None) -> NoReturn:
    """Refuse the whole manifest: where its next edit begins, or what its columns are, cannot be told.

    Raises:
        ManifestFaults: always.
    """
    raise ManifestFaults([LineFault(line, None, field, f"{reason}; nothing after it was read")])


def name_bad_byte(error: UnicodeDecodeError) -> str:
    """Why bytes are no text, and what to do about it; never a guess at which other encoding they are in."""
    return (
        f"is not UTF-8 (byte {error.start + 1}): 0x{error.object[error.start]:02X} stands there; "
        "save the file as UTF-8, in Excel as CSV UTF-8"
    )


def read_json_lines(stream: BinaryIO) -> Iterator[Record | LineFault]:
    """The fields of each line, not judged yet, and the lines that cannot be read; blank ones are skipped."""
    for line, raw in _lines(stream):
        if raw is None:
            yield LineFault(line, None, None, f"is longer than {LINE_MAX_BYTES} bytes")
            continue
        if raw.strip(b" \t\r\n"):
            try:
                yield Record(line, read_object(raw))
            except ManifestError as error:
                yield fault_of(line, error)


def fault_of(line: int, error: ManifestError) -> LineFault:
    """What is wrong with an object that cannot be taken.

    Raises:
        ManifestFaults: it stands for many edits; nothing of the manifest may be taken.
    """
    if isinstance(error, _SeveralEdits):
        stop_reading(line, str(error))
    return LineFault(line, None, None, str(error))


def read_object(raw: bytes) -> dict[str, Any]:
    """One JSON object, as strictly as a line is read: doubled fields, NaN and numbers without end are refused.

    Raises:
        ManifestError: it is none, and why, as a sentence that follows its name.
    """
    try:
        return _object(raw.decode().strip(" \t\r\n"))
    except UnicodeDecodeError as error:
        raise ManifestError(name_bad_byte(error)) from None
    except json.JSONDecodeError as error:
        if _ANOTHER.match(error.doc, error.pos) and error.msg == "Extra data":
            raise _SeveralEdits(_WRONG_LINE_ENDS if "\r" in error.doc.strip() else _SEVERAL) from None
        raise ManifestError(_why_not_json(raw, error)) from None
    except _Refused as error:
        raise ManifestError(str(error)) from None
    except ValueError:
        raise ManifestError("holds a number too long to read") from None
    except RecursionError:
        raise ManifestError("is nested too deeply") from None


def _why_not_json(raw: bytes, error: json.JSONDecodeError) -> str:
    if raw[:4].count(0) == 2:
        return "is not UTF-8: zero bytes stand in it, as in UTF-16"
    if b"\r" in raw.strip() and error.msg == "Extra data":
        return _WRONG_LINE_ENDS
    return f"is not JSON (column {error.colno}: {error.msg})"


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Every line with its number from 1; None for one that is too long, which is read over in pieces."""
    line = 0
    while raw := stream.readline(LINE_MAX_BYTES + 1):
        line += 1
        if len(raw) <= LINE_MAX_BYTES or raw.endswith(b"\n"):
            yield line, raw.removeprefix(BOM_UTF8)  # of files that were joined, each may bring one
            continue
        while raw and not raw.endswith(b"\n"):
            raw = stream.readline(LINE_MAX_BYTES)
        yield line, None


def _object(text: str) -> dict[str, Any]:
    value, end = _DECODER.raw_decode(text)
    if end != len(text):
        _DECODER.decode(text)  # says what is wrong behind it
    if not isinstance(value, dict):
        if isinstance(value, list) and any(map(_is_container, value)):
            raise _SeveralEdits
        raise _Refused("is not a JSON object")
    # each level opens with a mark of its own: most lines have too few of them to be worth taking apart
    if text.count("{") + text.count("[") >= NESTED_MAX and _is_deep(value):
        raise _Refused(f"is nested more than {NESTED_MAX} levels deep")
    return value


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(NESTED_MAX):
        level = [
            part
            for whole in level
            if isinstance(whole, dict | list)
            for part in (whole.values() if isinstance(whole, dict) else whole)
        ]
        if not level:
            return False
    return True


def _check_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """One object of the line; of two equal names Python would keep the last in silence."""
    if len(pairs) > FIELDS_MAX:
        if all(name.isdecimal() for name, _ in pairs) or all(_is_container(value) for _, value in pairs):
            raise _SeveralEdits
        raise _Refused(f"holds an object of {len(pairs)} fields, at most {FIELDS_MAX} are read")
    fields = dict(pairs)
    if len(fields) != len(pairs):
        doubled = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise _Refused(f"names the field {ascii(doubled[:64])[1:-1]} twice")
    return fields


def _no_constant(name: str) -> None:
    raise _Refused(f"holds {name}, which is no JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_check_object, parse_constant=_no_constant)
