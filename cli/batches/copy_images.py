"""Stored images into a folder: each gets its name when all of it came and is what was stored."""

import errno
import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from uuid import UUID

from cli.batches.file_names import FileNames
from cli.batches.stored_images import ImageRow, RefusalLimit
from core.errors import DownloadError, NotFound, UserError
from models.states import ImageState
from storage.local_paths import folds_case, spell_distinctly
from storage.store import Storage

PART = ".part"
NOT_WHAT_WAS_STORED = "is not what was stored; see darkroom verify"
OF_THE_FOLDER = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO})
"""What the next image would meet as well."""


class Outcome(StrEnum):
    """What became of one image."""

    COPIED = "copied"
    PRESENT = "present"
    FAILED = "failed"
    DELETED = "deleted"
    NOT_WANTED = "not wanted"


class Copied(NamedTuple):
    """What became of one image, and why it failed."""

    outcome: Outcome
    reason: str = ""


class FolderCopy:
    """The copy of one batch in one folder. Safe for threads."""

    def __init__(self, storage: Storage, folder: Path, names: FileNames, batch_id: UUID) -> None:
        """Create the folder where there is none.

        Raises:
            UserError: nothing can be written there.
        """
        self._storage, self._folder, self._names, self._batch_id = storage, folder, names, batch_id
        self._refusals = RefusalLimit()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._folds_case = folds_case(folder)
        except OSError as error:
            raise self._not_writable(error) from None

    def copy(self, image: ImageRow) -> Copied:
        """Copy one image, unless it lies there.

        Raises:
            UserError: the folder takes no more, or the store gives nothing.
        """
        if image.state != ImageState.STORED:
            return Copied(Outcome.NOT_WANTED)
        if image.deleted:
            return Copied(Outcome.DELETED)
        target = self._folder / self._name(image)
        try:
            if _is_same(target, image):
                return Copied(Outcome.PRESENT)
            return self._fetch(image, target)
        except OSError as error:
            if error.errno in OF_THE_FOLDER:
                raise self._not_writable(error) from None
            return Copied(Outcome.FAILED, f"{target} cannot be written: {error.strerror or error}")

    def _name(self, image: ImageRow) -> PurePosixPath:
        name = self._names.name(
            PurePosixPath(image.storage_key).suffix,
            batch_id=self._batch_id,
            custom_id=image.name,
            position=image.position,
            index=image.index,
            seed=image.seed,
            sha256=image.sha256,
        )
        return PurePosixPath(spell_distinctly(str(name))) if self._folds_case else name

    def _fetch(self, image: ImageRow, target: Path) -> Copied:
        try:
            with self._storage.open_range(image.storage_key) as stored:
                if stored.size != image.bytes:
                    return Copied(Outcome.FAILED, NOT_WHAT_WAS_STORED)
                same = _write(target, stored.pieces, image.sha256)
        except NotFound:
            return Copied(Outcome.FAILED, "is not in storage; see darkroom verify")
        except UserError as error:
            return Copied(Outcome.FAILED, str(error))
        except DownloadError as error:
            if self._refusals.note(refused=True):
                raise UserError(f"The store gives nothing: {error.message}. Call again to go on.") from None
            return Copied(Outcome.FAILED, error.message)
        self._refusals.note(refused=False)
        return Copied(Outcome.COPIED) if same else Copied(Outcome.FAILED, NOT_WHAT_WAS_STORED)

    @contextmanager
    def keep_failures(self) -> Iterator[Callable[[ImageRow], None]]:
        """What to tell of each image that failed; at the end a list of them lies in the folder, if there are any.

        Raises:
            UserError: it cannot be written.
        """
        failed: list[int] = []
        try:
            yield lambda image: failed.append(image.id)
        finally:
            try:
                if failed:
                    self._failures.write_text("".join(f"{image_id}\n" for image_id in failed))
                else:
                    self._failures.unlink(missing_ok=True)
            except OSError as error:
                raise self._not_writable(error) from None

    def read_failures(self) -> set[int]:
        """Ids of the images that the last call could not copy.

        Raises:
            NotFound: there were none.
        """
        with suppress(OSError, ValueError):
            return {int(line) for line in self._failures.read_text().split()}
        raise NotFound(f"No call has left an image of batch {self._batch_id} out of {self._folder}.")

    @property
    def _failures(self) -> Path:
        return self._folder / f".failed-{self._batch_id}"

    def _not_writable(self, error: OSError) -> UserError:
        return UserError(f"{self._folder} cannot be written: {error.strerror or error}.")


def _write(target: Path, pieces: Iterable[bytes], sha256: str) -> bool:
    """Whether these were the right bytes, and lie under their name now."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part, digest = target.with_name(f"{target.name}{PART}"), hashlib.sha256()
    try:
        with part.open("wb") as file:
            for piece in pieces:
                digest.update(piece)
                file.write(piece)
        same = digest.hexdigest() == sha256
        if same:
            part.replace(target)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return same


def _is_same(path: Path, image: ImageRow) -> bool:
    try:
        with path.open("rb") as file:
            return (
                path.stat().st_size == image.bytes and hashlib.file_digest(file, "sha256").hexdigest() == image.sha256
            )
    except (FileNotFoundError, NotADirectoryError):
        return False
