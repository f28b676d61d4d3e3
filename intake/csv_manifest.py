"""A manifest as CSV: the first row names the fields, each further row is one edit.

The same names, the same checks and the same faults as a JSONL manifest has; only how a cell becomes a value is
decided here. The form is RFC 4180's in UTF-8, with `,`, `;`, a tab or `|` between the cells. Holds one row at a time.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, BinaryIO

from intake.manifest import (
    LINE_MAX_BYTES,
    NAMES,
    Entry,
    LineFault,
    ManifestFaults,
    Record,
    name_bad_byte,
    stop_reading,
    validate_records,
)
from models.seedream import printable

SEPARATORS = ",;\t|"
"""What may stand between two cells."""

POWERSHELL = "#TYPE "
"""How the line begins that Export-Csv of Windows PowerShell writes before the table."""

csv.field_size_limit(LINE_MAX_BYTES)  # a cell may hold an image as a data URI; the module's own bound is far lower

_WHOLE_NUMBER = re.compile(r"(-?\d{1,18})(?:\.0*)?")
_SIZE = re.compile(r"(\d{1,9})\s*[xX×*]\s*(\d{1,9})")
_FURTHER_IMAGES = re.compile(r"image_urls[ ._-]?\d{1,2}")
"""How a column of further images may be called; pandas writes `image_urls.1`."""
_UNNAMED = re.compile(r"(?:Unnamed: \d+)?")
"""What stands over a column without a name; pandas writes its row numbers below it."""
_FORMULA_ERRORS = {"#N/A", "#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "#NULL!", "#NUM!", "#SPILL!", "#ERROR!"}
"""What Excel and Google Sheets write where a formula failed; as a prompt it would be paid for."""
_SEVERAL = re.compile(r"[,;|\s\[]")
_BETWEEN_URLS = re.compile(r"\s*[,;|\s]\s*(?=https?://|storage://|data:image/)", re.IGNORECASE)
_BETWEEN_PATHS = re.compile(r"\s*[,;|\n]\s*")
_IMAGE_PATH = re.compile(r"[^:]+\.(?:png|jpe?g|webp|gif)", re.IGNORECASE)


def find_separator(head: str) -> str | None:
    """What separates the names in a table's first row; None where it names no field of ours."""
    found = max(SEPARATORS, key=lambda separator: len(_known(head, separator)))
    return found if _known(head, found) else None


def find_names(head: str) -> set[str]:
    """The fields of ours that a table's first row names."""
    return _known(head, find_separator(head) or ",")


def _known(head: str, separator: str) -> set[str]:
    names = (name.strip().strip('"').strip().lower() for name in head.removeprefix("\ufeff").split(separator))
    return {name for name in names if name in NAMES}


def read_csv(stream: BinaryIO, *, local_paths: bool = False, first: int = 0) -> Iterator[Entry]:
    """The edits of a CSV manifest and its faulty rows, in order; a `line` is that on which the row begins.

    An empty cell is a field not given. Several images stand in several columns, in one cell as a JSON list, or in
    one cell separated. `image_size` is a name, `1280x720` or a JSON object.

    Raises:
        ManifestFaults: the first row is wrong, or from some row on it cannot be read; nothing of it may be taken.
    """
    return validate_records(read_rows(stream), local_paths=local_paths, first=first)


class _Lines:
    """The lines of a stream as text, the number of the one that was read last, and what is wrong with it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.number = stream, 0
        self.broken: str | None = None

    def __iter__(self) -> Iterator[str]:
        while raw := self._stream.readline(LINE_MAX_BYTES + 1):
            self.number += 1
            if len(raw) > LINE_MAX_BYTES:
                raise csv.Error(f"is longer than {LINE_MAX_BYTES} bytes")
            encoding = "utf-8-sig" if self.number == 1 else "utf-8"
            try:
                yield raw.decode(encoding)
            except UnicodeDecodeError as error:
                # the marks of CSV are ASCII in every encoding that this may be: the rows stay what they are
                self.broken = name_bad_byte(error)
                yield raw.decode(encoding, errors="replace")


def read_rows(stream: BinaryIO) -> Iterator[Record | LineFault]:
    """The fields of each row, not judged yet, and the rows that cannot be read.

    Raises:
        ManifestFaults: as `read_csv`.
    """
    lines = _Lines(stream)
    text = iter(lines)
    names, separator = _read_head(lines, text)
    columns = _columns(names)
    rows = csv.reader(text, delimiter=separator, strict=True)
    while True:
        line = lines.number + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            stop_reading(line, _explain(error))
        if row is None:
            return
        if lines.broken:
            yield LineFault(line, None, None, lines.broken)
            lines.broken = None
        elif any(row):
            yield _read_row(line, columns, row)


def _read_head(lines: _Lines, text: Iterator[str]) -> tuple[list[str], str]:
    """The names of the columns, and what separates them.

    Raises:
        ManifestFaults: the first row is no head of a table of ours.
    """
    separator = None
    try:
        for head in text:
            bare = head.rstrip("\r\n")
            if separator is None and len(bare) == 5 and bare[:4].lower() == "sep=" and bare[4] in SEPARATORS:
                separator = bare[4]
            elif head.strip(f"{SEPARATORS} \r\n") and not head.startswith(POWERSHELL):
                break
        else:
            return [], ","
        if lines.broken:
            stop_reading(lines.number, lines.broken)
        separator = separator or find_separator(head) or ","
        names = [_name(cell) for cell in next(csv.reader([head], delimiter=separator, strict=True))]
    except csv.Error as error:
        stop_reading(lines.number, _explain(error))
    if faults := list(_head_faults(lines.number, names)):
        raise ManifestFaults(faults)
    return names, separator


def _explain(error: csv.Error) -> str:
    """The reader's error in the words of a spreadsheet."""
    reasons = {
        "expected after": "a cell goes on behind its closing quote; inside a cell a quote is doubled",
        "unexpected end": "a cell's quote is never closed",
        "new-line character": "a carriage return stands outside of quotes",
    }
    return next((reason for words, reason in reasons.items() if words in str(error)), str(error))


def _name(cell: str) -> str:
    name = cell.strip()
    known = name.lower()  # spreadsheets put a capital at the beginning of a cell
    if _FURTHER_IMAGES.fullmatch(known):
        return "image_urls"
    return known if known in NAMES else name


def _head_faults(line: int, names: Sequence[str]) -> Iterator[LineFault]:
    if not set(NAMES).intersection(names):
        reason = "names no field; a first row does, with a comma, a semicolon, a tab or | between the names"
        yield LineFault(line, None, None, reason)
        return
    for name in dict.fromkeys(names):
        if name not in NAMES and not _UNNAMED.fullmatch(name):
            near = get_close_matches(name.lower(), NAMES, n=1)
            yield LineFault(
                line, None, printable(name), f"is no known field{f'; did you mean {near[0]}?' if near else ''}"
            )
        elif name in NAMES and name != "image_urls" and names.count(name) > 1:
            yield LineFault(line, None, name, "stands twice")


def _read_row(line: int, columns: Sequence["_Column"], row: Sequence[str]) -> Record | LineFault:
    if len(row) > len(columns) and any(row[len(columns) :]):
        return LineFault(line, None, None, f"has {len(row)} cells, the first row names {len(columns)}")
    fields: dict[str, Any] = {}
    for (name, read), cell in zip(columns, row, strict=False):
        if not cell or cell.isspace():
            continue
        if read is None:
            fields[name] = cell
        elif name in fields:
            fields[name] += read(cell)
        else:
            fields[name] = read(cell)
    if (prompt := fields.get("prompt")) in _FORMULA_ERRORS:
        return LineFault(line, None, "prompt", f"is {prompt}: a formula of the spreadsheet failed there")
    if _NO_NAME in fields:
        del fields[_NO_NAME]
        if place := _stray_cell(columns, row):
            return LineFault(line, None, None, f"has something in column {place}, which has no name")
    return Record(line, fields)


def _stray_cell(columns: Sequence["_Column"], row: Sequence[str]) -> int | None:
    """The first column, from 1, without a name and with something in it; pandas has its row numbers in the first."""
    for place, ((name, _), cell) in enumerate(zip(columns, row, strict=False), start=1):
        if name == _NO_NAME and cell.strip() and not (place == 1 and cell.strip().isdecimal()):
            return place
    return None


def _images(cell: str) -> list[object]:
    """The images of a cell: one, a JSON list, or several separated where it is certain that they are several."""
    text = cell.strip()
    if not _SEVERAL.search(text):
        return [text]
    if text.startswith("["):
        given = _parse_json(text)
        return given if isinstance(given, list) else [text]
    urls = [part for part in _BETWEEN_URLS.split(text) if part]
    if len(urls) > 1:
        return list(urls)
    paths = _BETWEEN_PATHS.split(text)
    return list(paths) if all(map(_IMAGE_PATH.fullmatch, paths)) else [text]


def _number(cell: str) -> object:
    """What a cell says; what it cannot be stays text, and the schema says what is wrong with it."""
    text = cell.strip()
    number = _WHOLE_NUMBER.fullmatch(text)
    return int(number[1]) if number else cell


def _switch(cell: str) -> object:
    text = cell.strip().lower()
    return text == "true" if text in ("true", "false") else cell


def _size(cell: str) -> object:
    text = cell.strip()
    if size := _SIZE.fullmatch(text):
        return {"width": int(size[1]), "height": int(size[2])}
    return _parse_json(text) if text.startswith("{") else text


def _parse_json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


_Column = tuple[str, Callable[[str], Any] | None]
"""Its field, and what reads a cell of it; None: the cell is the value."""
_NO_NAME = ""
_READERS: dict[str, Callable[[str], Any]] = {
    "image_urls": _images,
    "image_size": _size,
    **dict.fromkeys(("num_images", "max_images", "seed"), _number),
    **dict.fromkeys(("sync_mode", "enable_safety_checker"), _switch),
}


def _columns(names: Sequence[str]) -> list[_Column]:
    return [(name, _READERS.get(name)) if name in NAMES else (_NO_NAME, str) for name in names]
