"""A manifest as CSV: the first row names the fields, each further row is one edit.

The same names, the same judgement and the same faults as a JSONL manifest has; only how a cell becomes a value is
decided here. The form is RFC 4180's, in UTF-8. Holds one row at a time.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, BinaryIO

from intake.manifest import LINE_MAX_BYTES, NAMES, Entry, LineFault, Record, read_jsonl, validated

Reader = Callable[..., Iterator[Entry]]

csv.field_size_limit(LINE_MAX_BYTES)  # a cell may hold a picture as a data URI; the module's own bound is far lower

_WHOLE_NUMBER = re.compile(r"-?\d{1,18}")
_SIZE = re.compile(r"(\d{1,9})\s*[xX×]\s*(\d{1,9})")
_NUMBERS = ("num_images", "max_images", "seed")
_SWITCHES = ("sync_mode", "enable_safety_checker")


def reader_for(name: str) -> Reader:
    """The reader for a manifest's file name: `.csv` is CSV, everything else JSONL."""
    return read_csv if name.lower().endswith(".csv") else read_jsonl


def read_csv(stream: BinaryIO, *, local_paths: bool = False, first: int = 0) -> Iterator[Entry]:
    """The edits of a CSV manifest and its faulty rows, in order; a `line` is that on which the row begins.

    An empty cell is a field not given. `image_urls` is one picture or a JSON list; for several pictures its column
    may also stand several times. `image_size` is a name, `1280x720` or a JSON object.
    """
    return validated(_records(stream), local_paths=local_paths, first=first)


class _Lines:
    """The lines of a stream as text, and the number of the one that was read last."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.number = stream, 0

    def __iter__(self) -> Iterator[str]:
        while raw := self._stream.readline(LINE_MAX_BYTES + 1):
            self.number += 1
            if len(raw) > LINE_MAX_BYTES:
                raise csv.Error(f"is longer than {LINE_MAX_BYTES} bytes")
            yield raw.decode("utf-8-sig" if self.number == 1 else "utf-8")


def _records(stream: BinaryIO) -> Iterator[Record | LineFault]:
    lines = _Lines(stream)
    rows = csv.reader(lines, strict=True)
    names: list[str] | None = None
    while True:
        line = lines.number + 1
        try:
            row = next(rows, None)
        except (csv.Error, UnicodeDecodeError) as error:
            # where the next row begins can no longer be told
            reason = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            yield LineFault(line, None, None, f"{reason}; nothing after it was read")
            return
        if row is None:
            return
        if names is None:
            names = [name.strip() for name in row]
            if faults := list(_header_faults(names)):
                yield from faults
                return
        elif any(row):
            yield _record(line, names, row)


def _header_faults(names: Sequence[str]) -> Iterator[LineFault]:
    for name in dict.fromkeys(names):
        if name not in NAMES:
            near = get_close_matches(name, NAMES, n=1)
            yield LineFault(
                1, None, name[:64] or None, f"is no known field{f'; did you mean {near[0]}?' if near else ''}"
            )
        elif name != "image_urls" and names.count(name) > 1:
            yield LineFault(1, None, name, "stands twice")


def _record(line: int, names: Sequence[str], row: Sequence[str]) -> Record | LineFault:
    if len(row) > len(names):
        return LineFault(line, None, None, f"has {len(row)} cells, the first row names {len(names)}")
    fields: dict[str, Any] = {}
    for name, cell in zip(names, row, strict=False):
        if not cell:
            continue
        value = _value(name, cell)
        if name == "image_urls":
            fields.setdefault(name, []).extend(value if isinstance(value, list) else [value])
        else:
            fields[name] = value
    return Record(line, fields)


def _value(name: str, cell: str) -> object:
    """What a cell says; what it cannot be stays text, and the schema says what is wrong with it."""
    text = cell.strip()
    if name in _NUMBERS and _WHOLE_NUMBER.fullmatch(text):
        return int(text)
    if name in _SWITCHES and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if name == "image_size" and (size := _SIZE.fullmatch(text)):
        return {"width": int(size[1]), "height": int(size[2])}
    if (name == "image_urls" and text.startswith("[")) or (name == "image_size" and text.startswith("{")):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return cell
    return cell
