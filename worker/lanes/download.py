"""The download lane: fetch, check, store, record. What is recorded as stored was whole when it was written.

An image is never submitted again because its file is bad: the file is fetched again while that may help, then
the image is `failed` and what came is kept under `quarantine/` (architecture: rulings).

Trouble of the store, or of this machine, fails no image and uses up none of its tries: the lane pauses, with the
reason in `lane_pauses`, and lets one image through now and then until one is stored.
"""

from collections.abc import Callable, Sequence
from random import uniform
from typing import NamedTuple

import structlog
from sqlalchemy import Connection

from core.errors import DownloadError, FetchAgain, StorageUnavailable
from core.image_files import check_image
from core.resource_errors import find_exhaustion
from http_client.fetch import READ_TIMEOUT, WHOLE_TIMEOUT, Fetcher
from models.claims import DueImage, claim_images, renew_images
from models.due_work import FirstDue, first_due
from models.pauses import MayClaim, pause_lane, probe_again, resume_lane
from models.traces import TRACES_OF_IMAGES
from models.transitions import ImageFault, StoredImage, record_image_faults, record_stored, release_images
from storage.storage_keys import metadata_of
from storage.store import QUARANTINE, Storage, extension
from worker.crash_points import crash_point
from worker.dependencies import Dependencies
from worker.download_claims import LANE, SUBJECT, ImageClaims, may_download, open_store, probe_delay
from worker.lane import CallingLane, CallResult
from worker.settings import WorkerSettings

log = structlog.get_logger()

FETCHES = 8
"""Times one file is fetched before its image is failed: about ten minutes of trying."""
FETCHES_OF_A_HOST = 300
"""Times where its host could not be asked, or asked to wait, which says nothing about the file: about a day."""
OF_THE_HOST = frozenset({"unreachable", "http_429", "http_503"})
LONGEST_DELAY = 300.0


class StorageTrouble(NamedTuple):
    """An image that could not be stored for a trouble that is ours."""

    image_id: int
    attempt: int
    error: StorageUnavailable


Result = StoredImage | ImageFault | StorageTrouble


class DownloadLane(CallingLane[DueImage, Result]):
    """Stores images until none is due."""

    traces = TRACES_OF_IMAGES
    longest_call = WHOLE_TIMEOUT + READ_TIMEOUT

    def __init__(self, dependencies: Dependencies) -> None:
        super().__init__(dependencies)
        self.width, self.lease = self.settings.download_threads, self.settings.claim_lease
        self._claims = ImageClaims(self.engine, dependencies.fetcher.waits, self.settings)

    def take_turn(self, should_continue: Callable[[], bool]) -> int:
        """Returns the number of tries; none where the store cannot be opened: the lane pauses until it can."""
        if open_store(self.engine, lambda: self.dependencies.storage, self.settings) is None:
            return 0
        return super().take_turn(should_continue)

    def claim(self, free: int) -> Sequence[DueImage]:
        """Images that the store and their hosts may be asked for."""
        return self._claims.claim(free)

    def perform(self, due: DueImage) -> Result:
        """One image from its URL into storage."""
        try:
            return store(self.dependencies.fetcher, self.dependencies.storage, due, self.settings)
        finally:
            self._claims.end(due)

    def record(self, results: Sequence[Result]) -> None:
        """What was stored, and what was not."""
        probes, retry_after = self._claims.probes, probe_delay(self.settings)
        with self.engine.begin() as connection:
            record_results(connection, results, probes=probes, retry_after=retry_after)
        self._claims.probes -= {result.image_id for result in results}

    def describe(self, result: Result) -> CallResult:
        """Stored, or what was wrong with the file or the store."""
        if isinstance(result, StoredImage):
            return CallResult("stored", False)
        return CallResult(result.type if isinstance(result, ImageFault) else result.error.type, True)

    def renew(self, due: Sequence[DueImage]) -> None:
        """Nobody else fetches these meanwhile."""
        with self.engine.begin() as connection:
            renew_images(connection, [image.id for image in due], lease=self.lease)

    @classmethod
    def find_first_due(cls, connection: Connection, settings: WorkerSettings) -> FirstDue | None:
        """The next image; none while the store is paused."""
        with connection.begin_nested() as claim:
            paused = may_download(connection, settings) is MayClaim.NONE
            rows = [] if paused else claim_images(connection, limit=1, lease=1)
            claim.rollback()
        return first_due(connection, "images", [row.id for row in rows])


def store(fetcher: Fetcher, storage: Storage, due: DueImage, settings: WorkerSettings) -> Result:
    """One image from its URL into storage."""
    try:
        return _store(fetcher, storage, due, settings)
    except StorageUnavailable as error:
        return StorageTrouble(due.id, due.attempt, error)
    except DownloadError as error:
        log.warning("image_not_stored", image=due.id, attempt=due.attempt, type=error.type)
        if isinstance(error, FetchAgain) and error.retry_after:
            fetcher.waits.leave_alone(due.host, error.retry_after)
        return ImageFault(due.id, error.type, error.message, _delay(due, error, settings))
    except (OSError, MemoryError) as error:
        if (trouble := find_exhaustion(error)) is None:
            raise
        return StorageTrouble(due.id, due.attempt, trouble)


def _store(fetcher: Fetcher, storage: Storage, due: DueImage, settings: WorkerSettings) -> StoredImage:
    with fetcher.fetch(due.url) as file:
        try:
            checked = check_image(file, file_size=due.file_size, width=due.width, height=due.height)
        except DownloadError as error:
            if _delay(due, error, settings) is None:
                storage.put(f"{QUARANTINE}/{storage.key_of(due.name)}", file, metadata=metadata_of(due.name))
            raise
        crash_point("in_download", settings)
        key = storage.key_of(due.name) + extension(checked.content_type)
        storage.put(key, file, checked.content_type, {**metadata_of(due.name), "sha256": checked.sha256})
    return StoredImage(due.id, key, checked.sha256, checked.bytes, checked.content_type, checked.width, checked.height)


def _delay(due: DueImage, error: DownloadError, settings: WorkerSettings) -> float | None:
    """Seconds until the file is fetched again, doubling with jitter; None once that no longer helps."""
    tries = FETCHES_OF_A_HOST if error.type in OF_THE_HOST else FETCHES
    if not isinstance(error, FetchAgain) or due.attempt >= tries:
        return None
    delay = min(settings.retry_delay * 2.0 ** min(due.attempt - 1, 30), LONGEST_DELAY) * uniform(0.75, 1.25)
    return float(max(delay, error.retry_after))


def record_results(
    connection: Connection, results: Sequence[Result], *, probes: set[int] | frozenset[int], retry_after: float
) -> None:
    """One transaction for a set of images; `probes` are the ids of those that probed a pause."""
    stored = [result for result in results if isinstance(result, StoredImage)]
    faults = [result for result in results if isinstance(result, ImageFault)]
    if stored:
        record_stored(connection, stored)
    if faults:
        record_image_faults(connection, faults)
    _record_probe_results(connection, probes, stored, faults)
    not_stored = [result for result in results if isinstance(result, StorageTrouble)]
    if not_stored:
        _record_trouble(connection, not_stored, retry_after)


def _record_probe_results(
    connection: Connection,
    probes: set[int] | frozenset[int],
    stored: Sequence[StoredImage],
    faults: Sequence[ImageFault],
) -> None:
    """Only a probe ends a pause: a small image that was under way may fit where the others do not."""
    if any(image.image_id in probes for image in stored):
        if resume_lane(connection, LANE, SUBJECT):
            log.warning("downloads_resumed")
    elif any(fault.image_id in probes for fault in faults):
        probe_again(connection, LANE, SUBJECT)


def _record_trouble(connection: Connection, not_stored: Sequence[StorageTrouble], retry_after: float) -> None:
    error = not_stored[-1].error
    release_images(connection, [(result.image_id, result.attempt) for result in not_stored], delay=retry_after)
    pause_lane(connection, LANE, SUBJECT, reason=error.type, message=error.message, retry_after=retry_after)
    log.error("downloads_paused", reason=error.type, message=error.message, images=len(not_stored))
