"""A manifest on this machine: what it says, and the local files that its edits name.

It is read more than once, as a stream: for its faults and its files first, then for its edits. A file that cannot be
sent makes its line as faulty as any other mistake. What a line must look like is decided in `intake` and `models`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from core.errors import UserError
from intake.insert_edits import FAULTS_MAX, OnInvalid, include_earlier_faults
from intake.manifest import Entry, FaultyLine, LineFault, ManifestFaults, NewEdit, read_jsonl
from intake.read_manifest import Reader
from models.image_inputs import is_local_path
from provider.uploads import LocalFile, inspect


@dataclass(slots=True)
class Manifest:
    """A manifest, and what is known of the paths that it names; `folder` is that to which they are relative."""

    stream: BinaryIO
    folder: Path
    read: Reader = read_jsonl
    files: dict[str, LocalFile] = field(default_factory=dict)
    """By path as given: images that can be sent."""
    faulty: dict[str, str] = field(default_factory=dict)
    """By path as given: why it cannot be sent."""

    def look_through(self, *, on_invalid: OnInvalid) -> None:
        """Find every local file.

        Raises:
            ManifestFaults: lines are faulty, and are not to be skipped; carries their faults.
        """
        faults: list[LineFault] = []
        for entry in include_earlier_faults(faults, self._lines(first=0)):
            if isinstance(entry, NewEdit):
                for given in filter(is_local_path, entry.arguments["image_urls"]):
                    self._look_at(given)
            checked_entry = self._check_local_files(entry)
            if isinstance(checked_entry, FaultyLine) and on_invalid == "fail":
                faults += checked_entry.faults
                if len(faults) >= FAULTS_MAX:
                    raise ManifestFaults(faults[:FAULTS_MAX], more=True)
        if faults:
            raise ManifestFaults(faults)

    def entries(self, urls: Mapping[str, str], *, first: int = 0) -> Iterator[Entry]:
        """The lines, with the URL of each uploaded file in the place of its path as given."""
        for entry in map(self._check_local_files, self._lines(first=first)):
            if isinstance(entry, NewEdit) and urls:
                images = [urls.get(given, given) for given in entry.arguments["image_urls"]]
                yield replace(entry, arguments={**entry.arguments, "image_urls": images})
            else:
                yield entry

    def _lines(self, *, first: int) -> Iterator[Entry]:
        self.stream.seek(0)
        return self.read(self.stream, local_paths=True, first=first)

    def _look_at(self, given: str) -> None:
        if given in self.files or given in self.faulty:
            return
        path = (self.folder / given).resolve()
        try:
            if path.is_file():
                self.files[given] = inspect(path)
            else:
                self.faulty[given] = f"there is no file {path}"
        except (UserError, OSError, ValueError) as error:
            self.faulty[given] = str(error).rstrip(".")

    def _check_local_files(self, entry: Entry) -> Entry:
        """The line; a faulty one where it names a file that cannot be sent."""
        if isinstance(entry, FaultyLine) or not self.faulty:
            return entry
        wrong = [given for given in entry.arguments["image_urls"] if given in self.faulty]
        if not wrong:
            return entry
        faults = tuple(LineFault(entry.line, entry.custom_id, "image_urls", self.faulty[given]) for given in wrong)
        return FaultyLine(entry.line, entry.custom_id, entry.arguments, faults)
