"""A manifest on this machine: what it says, and the local files that its edits name.

It is read more than once, as a stream: for its faults and its files first, then for its edits. A file that cannot be
sent makes its line as faulty as any other mistake. What a line must look like is decided in `intake` and `models`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from cli.batches.look_at_files import look_at_files
from cli.output import gather_warnings
from intake.insert_edits import FAULTS_MAX, OnInvalid, include_earlier_faults
from intake.manifest import Entry, FaultyLine, LineFault, ManifestFaults, NewEdit, read_jsonl
from intake.read_manifest import Reader
from models.image_inputs import is_local_path
from provider.uploads import LocalFile


@dataclass(slots=True)
class Manifest:
    """A manifest, and what is known of the paths that it names; `folder` is that to which they are relative."""

    stream: BinaryIO
    folder: Path
    read: Reader = read_jsonl
    convert: bool = False
    """Whether a file that the model may not take is sent as another one."""
    files: dict[str, LocalFile] = field(default_factory=dict)
    """By path as given: images that can be sent."""
    faulty: dict[str, str] = field(default_factory=dict)
    """By path as given: why it cannot be sent."""

    def look_through(self, *, on_invalid: OnInvalid) -> None:
        """Find every local file, and judge each once.

        Raises:
            ManifestFaults: lines are faulty, and are not to be skipped; carries their faults.
        """
        named: dict[str, None] = {}
        faults = self._read_faults(on_invalid, named)
        new = [given for given in named if given not in self.files and given not in self.faulty]
        for given, found in zip(new, look_at_files([self.folder / given for given in new], self.convert), strict=True):
            if isinstance(found, LocalFile):
                self.files[given] = found
            else:
                self.faulty[given] = found
        if new and self.faulty and on_invalid == "fail":
            faults = self._read_faults(on_invalid, named)  # again, with those of the files in their places
        if faults:
            raise ManifestFaults(faults)

    def _read_faults(self, on_invalid: OnInvalid, named: dict[str, None]) -> list[LineFault]:
        """The faults that end it, in order; `named` gets every path that a sound line names."""
        faults: list[LineFault] = []
        for entry in include_earlier_faults(faults, self._lines(first=0)):
            if isinstance(entry, NewEdit):
                named.update(dict.fromkeys(filter(is_local_path, entry.arguments["image_urls"])))
            checked_entry = self._check_local_files(entry)
            if isinstance(checked_entry, FaultyLine) and on_invalid == "fail":
                faults += checked_entry.faults
                if len(faults) >= FAULTS_MAX:
                    raise ManifestFaults(faults[:FAULTS_MAX], more=True)
        return faults

    def warnings(self) -> tuple[str, ...]:
        """What may come of the files, each kind once, with the first file that it is about."""
        files = sorted({(file.path, file.warnings) for file in self.files.values()})
        return gather_warnings((str(path), warning) for path, warnings in files for warning in warnings)

    def entries(self, urls: Mapping[str, str], *, first: int = 0) -> Iterator[Entry]:
        """The lines, with the URL of each uploaded file in the place of its path as given."""
        for entry in map(self._check_local_files, self._lines(first=first)):
            if isinstance(entry, NewEdit) and urls:
                yield self._put_urls(entry, urls)
            else:
                yield entry

    def _put_urls(self, entry: NewEdit, urls: Mapping[str, str]) -> NewEdit:
        given = entry.arguments["image_urls"]
        if not any(image in urls for image in given):
            return entry
        images = [urls.get(image, image) for image in given]
        # by what the file holds: an upload that has expired is made again, under another URL
        content = [f"sha256:{self.files[image].sha256}" if image in urls else image for image in given]
        arguments = {**entry.arguments, "image_urls": images}
        return replace(entry, arguments=arguments, content={**entry.arguments, "image_urls": content})

    def _lines(self, *, first: int) -> Iterator[Entry]:
        self.stream.seek(0)
        return self.read(self.stream, local_paths=True, first=first)

    def _check_local_files(self, entry: Entry) -> Entry:
        """The line; a faulty one where it names a file that cannot be sent."""
        if isinstance(entry, FaultyLine) or not self.faulty:
            return entry
        wrong = [given for given in entry.arguments["image_urls"] if given in self.faulty]
        if not wrong:
            return entry
        faults = tuple(LineFault(entry.line, entry.custom_id, "image_urls", self.faulty[given]) for given in wrong)
        return FaultyLine(entry.line, entry.custom_id, entry.arguments, faults)
