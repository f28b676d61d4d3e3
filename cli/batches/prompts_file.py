"""A file of prompts: one a line, or a table or JSON lines with the fields of an edit, but without its images.

The bytes may be whatever those of a manifest may be (`docs/manifests.md`), and the fields are judged as a manifest's.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from cli.batches.manifest_file import open_manifest
from core.errors import UserError
from intake.csv_manifest import find_names, read_rows
from intake.decode_manifest import decode_manifest
from intake.manifest import (
    LINE_MAX_BYTES,
    FaultyLine,
    LineFault,
    ManifestFaults,
    NewEdit,
    Record,
    name_bad_byte,
    read_json_lines,
    validate_records,
)
from intake.read_manifest import TABLES

ID_MAX = 24
"""Characters of a prompt's `custom_id`: that of an edit has 64, and holds the image's name, too."""
HEADS = {"prompt", "prompts"}
"""What may stand over a list of prompts."""
ANY_IMAGE = "image.png"
"""Stands for the image that a prompt will be put with, where it is judged."""


@dataclass(frozen=True)
class Prompt:
    """What is to be done with each image: the fields of an edit, and what the prompt is called."""

    line: int
    id: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Prompts:
    """The prompts of a file, in its order; `repeated` are the lines left out because another says the same."""

    prompts: list[Prompt]
    repeated: list[int]


def read_prompts(path: Path) -> Prompts:
    """The prompts of a file.

    Raises:
        ManifestFaults: lines are faulty; carries their faults.
        UserError: it is of another kind, or holds no prompt.
    """
    with open_manifest(path) as (stream, _):
        found = _number(_judge(_read_records(stream, path.name)))
    if not found.prompts:
        raise UserError(f"{path} holds no prompt.")
    return found


def _read_records(stream: BinaryIO, name: str) -> Iterator[Record | LineFault]:
    content = decode_manifest(stream)
    start = content.peek(1).removeprefix(b"\xef\xbb\xbf").lstrip()
    head = start.partition(b"\n")[0].decode(errors="replace")
    if start.startswith(b'{"'):
        return read_json_lines(content)
    if name.lower().removesuffix(".gz").endswith(TABLES) or {"prompt"} < find_names(head):
        return read_rows(content)
    return _read_lines(content)


def _read_lines(content: BinaryIO) -> Iterator[Record | LineFault]:
    line = 0
    while raw := content.readline(LINE_MAX_BYTES):
        line += 1
        try:
            text = raw.decode("utf-8-sig" if line == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            yield LineFault(line, None, None, name_bad_byte(error))
            continue
        if text and not (line == 1 and text.lower() in HEADS):
            yield Record(line, {"prompt": text})


def _judge(records: Iterable[Record | LineFault]) -> list[NewEdit]:
    found: list[NewEdit] = []
    faults: list[LineFault] = []
    for entry in validate_records(map(_with_any_image, records), local_paths=True, first=0):
        if isinstance(entry, FaultyLine):
            faults += entry.faults
        elif entry.custom_id and len(entry.custom_id) > ID_MAX:
            reason = f"must have at most {ID_MAX} characters here: the image's name is put before it"
            faults.append(LineFault(entry.line, entry.custom_id, "custom_id", reason))
        else:
            found.append(entry)
    if faults:
        raise ManifestFaults(faults)
    return found


def _with_any_image(record: Record | LineFault) -> Record | LineFault:
    if isinstance(record, LineFault):
        return record
    if record.fields.get("image_urls") is not None:
        return LineFault(record.line, None, "image_urls", "cannot stand here: the images are those of --images")
    return replace(record, fields={**record.fields, "image_urls": [ANY_IMAGE]})


def _number(edits: Sequence[NewEdit]) -> Prompts:
    """Each prompt under its own `custom_id`, or else its number; what says the same as another is left out."""
    found, said = Prompts([], []), set()
    ids = {edit.custom_id for edit in edits}
    for edit in edits:
        fields = {name: value for name, value in edit.arguments.items() if name != "image_urls"}
        text = json.dumps([edit.custom_id, fields], sort_keys=True)
        if text in said:
            found.repeated.append(edit.line)
            continue
        said.add(text)
        number = str(len(found.prompts) + 1)
        if edit.custom_id is None and number in ids:
            reason = f"is needed: another prompt is called {number}"
            raise ManifestFaults([LineFault(edit.line, None, "custom_id", reason)])
        found.prompts.append(Prompt(edit.line, edit.custom_id or number, fields))
    return found
