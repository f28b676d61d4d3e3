"""The download lane: fetch, check, store, record. What is recorded as stored was whole when it was written.

A picture is never submitted again because its file is bad: the file is fetched again while that may help, then
the picture is `failed` and what came is kept under `quarantine/` (architecture: rulings).
"""

from collections.abc import Callable, Sequence
from random import uniform

import structlog
from sqlalchemy import Connection, Engine

from models.claims import DueImage, claim_images, renew_images
from models.errors import DownloadError, FetchAgain
from models.transitions import ImageFault, StoredImage, record_image_faults, record_stored
from worker.crash import reach
from worker.fetch import Fetcher
from worker.pictures import check
from worker.settings import WorkerSettings
from worker.storage import QUARANTINE, Storage, extension
from worker.waves import flow

log = structlog.get_logger()

WAVE = 100
FETCHES = 8
"""Times one file is fetched before its picture is failed: about ten minutes of trying."""
LONGEST_DELAY = 300.0


def run(engine: Engine, fetcher: Fetcher, storage: Storage, settings: WorkerSettings, go_on: Callable[[], bool]) -> int:
    """Store pictures until none is due; returns the number of tries."""

    def claim(free: int) -> Sequence[DueImage]:
        with engine.begin() as connection:
            return claim_images(connection, limit=min(free, WAVE), lease=settings.claim_lease)

    def call(due: DueImage) -> StoredImage | ImageFault:
        return store(fetcher, storage, due, settings)

    def record(results: Sequence[StoredImage | ImageFault]) -> None:
        with engine.begin() as connection:
            record_results(connection, results)

    def renew(under_way: Sequence[DueImage]) -> None:
        with engine.begin() as connection:
            renew_images(connection, [due.id for due in under_way], lease=settings.claim_lease)

    return flow(
        width=settings.download_threads,
        claim=claim,
        call=call,
        record=record,
        go_on=go_on,
        renew=renew,
        lease=settings.claim_lease,
    )


def store(fetcher: Fetcher, storage: Storage, due: DueImage, settings: WorkerSettings) -> StoredImage | ImageFault:
    """One picture from its URL into storage."""
    try:
        with fetcher.fetch(due.url) as file:
            try:
                picture = check(file, file_size=due.file_size, width=due.width, height=due.height)
            except DownloadError as error:
                if _delay(due, error, settings) is None:
                    storage.put(f"{QUARANTINE}/{due.name}", file)
                raise
            reach("in_download", settings)
            key = due.name + extension(picture.content_type)
            storage.put(key, file, picture.content_type)
    except DownloadError as error:
        log.warning("picture_not_stored", image=due.id, attempt=due.attempt, type=error.type)
        return ImageFault(due.id, error.type, error.message, _delay(due, error, settings))
    return StoredImage(due.id, key, picture.sha256, picture.bytes, picture.content_type, picture.width, picture.height)


def _delay(due: DueImage, error: DownloadError, settings: WorkerSettings) -> float | None:
    """Seconds until the file is fetched again, doubling with jitter; None once that no longer helps."""
    if not isinstance(error, FetchAgain) or due.attempt >= FETCHES:
        return None
    return float(min(settings.retry_delay * 2 ** (due.attempt - 1), LONGEST_DELAY) * uniform(0.75, 1.25))


def record_results(connection: Connection, results: Sequence[StoredImage | ImageFault]) -> None:
    """One transaction for a set of pictures."""
    stored = [result for result in results if isinstance(result, StoredImage)]
    faults = [result for result in results if isinstance(result, ImageFault)]
    if stored:
        record_stored(connection, stored)
    if faults:
        record_image_faults(connection, faults)
