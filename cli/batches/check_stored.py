"""One object in storage against its row: is it there, and is it still the image that was stored? And its repair."""

from enum import StrEnum
from typing import IO, NamedTuple

from sqlalchemy import Engine

from cli.batches.stored_images import ImageRow, RefusalLimit
from core.errors import DownloadError, FetchAgain, NotFound, StorageUnavailable, Unusable, UserError
from core.image_files import check_image
from http_client.fetch import Fetcher
from models.queries.images import IMAGE_URL
from storage.storage_keys import metadata_of
from storage.store import Storage


class Verdict(StrEnum):
    """What an object is."""

    SOUND = "sound"
    MISSING = "missing"
    DAMAGED = "damaged"
    UNREADABLE = "unreadable"
    DELETED = "deleted"
    """Because its time was over, which is as it should be."""


class Checked(NamedTuple):
    """The verdict on an object, why, and what came of its repair: `repaired`, or why not; None: none was tried."""

    verdict: Verdict
    reason: str = ""
    repaired: bool = False
    not_repaired: str = ""


class StoredCheck:
    """Checks objects of one store, and repairs them where a fetcher is given. Safe for threads."""

    def __init__(self, engine: Engine, storage: Storage, fetcher: Fetcher | None, *, max_bytes: int) -> None:
        self._engine, self._storage, self._fetcher, self._max_bytes = engine, storage, fetcher, max_bytes
        self._refusals = RefusalLimit()

    def check(self, image: ImageRow) -> Checked:
        """Read one object to its end, and put it back where it is not what its row says.

        Raises:
            UserError: the store gives nothing.
        """
        if image.deleted:
            return Checked(Verdict.DELETED)
        checked = self._read(image)
        if checked.verdict not in (Verdict.MISSING, Verdict.DAMAGED) or self._fetcher is None:
            return checked
        try:
            self._repair(self._fetcher, image)
        except StorageUnavailable as error:
            raise UserError(f"The store takes nothing: {error.message}.") from None
        except DownloadError as error:
            return checked._replace(not_repaired=error.message)
        return checked._replace(repaired=True)

    def _read(self, image: ImageRow) -> Checked:
        try:
            with self._storage.get(image.storage_key, max_bytes=self._max_bytes) as file:
                found = self._judge(file, image)
        except NotFound:
            found = Checked(Verdict.MISSING)
        except UserError as error:
            found = Checked(Verdict.UNREADABLE, str(error))
        except DownloadError as error:
            if self._refusals.note(refused=True):
                raise UserError(f"The store gives nothing: {error.message}.") from None
            return Checked(Verdict.UNREADABLE, error.message)
        self._refusals.note(refused=False)
        return found

    def _judge(self, file: IO[bytes], image: ImageRow) -> Checked:
        try:
            found = check_image(file, file_size=image.bytes, width=image.width, height=image.height)
        except (FetchAgain, Unusable) as error:
            return Checked(Verdict.DAMAGED, error.message)
        if found.sha256 != image.sha256:
            return Checked(Verdict.DAMAGED, "it holds other bytes than were stored")
        return Checked(Verdict.SOUND)

    def _repair(self, fetcher: Fetcher, image: ImageRow) -> None:
        """Fetch the image again from where it came, and put it under its key, if it is the same.

        Raises:
            DownloadError: the provider has it no more, or something else, or the store does not take it.
        """
        with self._engine.connect() as connection:
            url = connection.exec_driver_sql(IMAGE_URL, (image.id,)).scalar_one()
        with fetcher.fetch(url) as file:
            found = check_image(file, file_size=image.bytes, width=image.width, height=image.height)
            if found.sha256 != image.sha256:
                raise DownloadError("other_bytes", "what the provider has there now is another file")
            about = {**metadata_of(image.storage_key), "sha256": image.sha256}
            self._storage.put(image.storage_key, file, image.content_type, about)
