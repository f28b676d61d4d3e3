"""One way in for every manifest in a file: what it is, its name and its first bytes tell.

`.csv`, `.tsv` and `.tab` name a table. Otherwise a first line that is a table's head makes it one, and everything
else is JSON. `docs/manifests.md` says what a manifest may look like.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO

from intake.csv_manifest import POWERSHELL, find_separator, read_csv
from intake.decode_manifest import decode_manifest
from intake.json_document import read_json_document
from intake.manifest import Entry, read_jsonl, validate_records

Reader = Callable[..., Iterator[Entry]]

TABLES = (".csv", ".tsv", ".tab")
"""How the name of a table ends."""


def reader_for(name: str) -> Reader:
    """The reader for a manifest's file name or URL."""
    return partial(read_manifest, name=name)


def read_manifest(stream: BinaryIO, *, name: str = "", local_paths: bool = False, first: int = 0) -> Iterator[Entry]:
    """The edits of a manifest of any form and its faulty lines, in order.

    `local_paths` allows `image_urls` to name files of this machine. `first` is the position of the first edit.

    Raises:
        ManifestError: it is a file of another kind, or damaged.
        ManifestFaults: from some line on it cannot be read; nothing of it may be taken.
    """
    content = decode_manifest(stream)
    start = content.peek(1).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start.startswith((b"{", b"[")) and _is_table(name, start):
        return read_csv(content, local_paths=local_paths, first=first)
    if _is_document(start):
        return validate_records(read_json_document(content), local_paths=local_paths, first=first)
    return read_jsonl(content, local_paths=local_paths, first=first)


def _is_table(name: str, start: bytes) -> bool:
    if name.lower().removesuffix(".gz").endswith(TABLES):
        return True
    head, _, rest = start.partition(b"\n")
    if head.lower().startswith(b"sep=") or head.startswith(POWERSHELL.encode()):
        head, _, _ = rest.partition(b"\n")
    return find_separator(head.decode(errors="replace")) is not None


def _is_document(start: bytes) -> bool:
    """Whether it is a list, or its first object goes on after the first line: with a field's name, and not with another
    object, before which a faulty line stands."""
    first, _, rest = start.partition(b"\n")
    return start.startswith(b"[") or (first.strip() == b"{" and not rest.lstrip().startswith(b"{"))
