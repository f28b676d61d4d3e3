"""What the download lane may claim: while the store works, spread over hosts, and within a bound in bytes."""

import time
from collections.abc import Callable, Sequence

import structlog
from sqlalchemy import Connection, Engine

from core.errors import SettingsError
from core.memory_budget import Tally
from http_client.host_backoff import HostBackoff
from models.claims import DueImage, claim_images
from models.pauses import MayClaim, claim_probes, may_claim, pause_lane
from storage.store import Storage
from worker.host_limits import HostSlots
from worker.settings import WorkerSettings

log = structlog.get_logger()

LANE, SUBJECT = "download", "storage"
"""What stands in `lane_pauses` while no image can be stored."""
UNOPENED = "cannot_be_opened"
"""The reason while the store cannot even be opened."""
FIRST_PROBE, LAST_PROBES = 10.0, 120.0
"""Seconds until a paused store is tried again: the first time, and later on at most. A probe costs one download."""
CLAIM_MAX = 100
URL_BYTES = 64 * 2**20
"""Bytes of URLs in hand at one time, per lane at work: with `sync_mode` the image stands in its URL."""
OTHERS_AGAIN_AFTER = 1.0
"""Seconds until images of other hosts are looked for again, after there were none: that looks at all that is due."""


def probe_delay(settings: WorkerSettings) -> float:
    """Seconds until a store that has just failed is probed; shrinks with the account's own clock."""
    return min(FIRST_PROBE, settings.provider_retry_after)


def may_download(connection: Connection, settings: WorkerSettings) -> MayClaim:
    """Whether the store takes images, as far as is known."""
    return may_claim(connection, LANE, SUBJECT, probe_after=probe_delay(settings), longest=LAST_PROBES)


def open_store(engine: Engine, open_: Callable[[], Storage], settings: WorkerSettings) -> Storage | None:
    """The store; None where it cannot be opened, and then the lane is paused with the reason.

    Trouble that is ours: no image is claimed for it. Opening counts as the probe of a pause whose time has come, so
    that the next try waits as long as that of a store that refuses an image.
    """
    try:
        return open_()
    except SettingsError as error:
        with engine.begin() as connection:
            claim_probes(connection, LANE, subjects=[SUBJECT], probe_after=probe_delay(settings), longest=LAST_PROBES)
            pause_lane(
                connection,
                LANE,
                SUBJECT,
                reason=UNOPENED,
                message=str(error),
                retry_after=probe_delay(settings),
            )
        log.error("downloads_paused", reason=UNOPENED, message=str(error))
        return None


class ImageClaims:
    """The claims of one run of the lane."""

    def __init__(self, engine: Engine, waits: HostBackoff, settings: WorkerSettings) -> None:
        self._engine, self._waits, self._settings = engine, waits, settings
        self._urls = Tally(URL_BYTES)
        # a quarter of the places stays for other hosts, whatever one of them does
        self._places = HostSlots(max(1, settings.download_threads * 3 // 4))
        self._no_others_until = 0.0
        self.probes: set[int] = set()
        """Ids of the images under way that probe a pause."""

    def claim(self, free: int) -> Sequence[DueImage]:
        """Images for so many free places."""
        claimed: list[DueImage] = []
        try:
            with self._engine.begin() as connection:
                with connection.begin_nested() as savepoint:
                    may = may_download(connection, self._settings)
                    if may is MayClaim.ONE and not self._take(connection, claimed, 1):
                        savepoint.rollback()  # a probe without an image is none, and costs no wait
                if may is MayClaim.ALL:
                    self._fill(connection, claimed, min(free, CLAIM_MAX))
        except BaseException:
            for due in claimed:
                self.end(due)
            raise
        if may is MayClaim.ONE:
            self.probes |= {due.id for due in claimed}
        return claimed

    def _fill(self, connection: Connection, claimed: list[DueImage], free: int) -> None:
        """So many of no host more than it may have: step by step, each no larger than what any one host may have."""
        while len(claimed) < free and self._urls.free > 0:
            limit = min(free - len(claimed), self._places.count_free(self._list_closed()))
            if self._take(connection, claimed, limit) < limit:
                return

    def _list_closed(self) -> list[str]:
        return sorted({*self._places.full(), *self._waits.waiting()})

    def _take(self, connection: Connection, claimed: list[DueImage], limit: int) -> int:
        closed = self._list_closed()
        if closed and time.monotonic() < self._no_others_until:
            return 0
        images = claim_images(
            connection,
            limit=limit,
            lease=self._settings.claim_lease,
            not_from=closed,
            max_bytes=max(1, self._urls.free),
        )
        for due in images:
            self._places.begin(due.host)
            self._urls.add(due.id, len(due.url))
        claimed += images
        if closed and not images:
            self._no_others_until = time.monotonic() + OTHERS_AGAIN_AFTER
        return len(images)

    def end(self, due: DueImage) -> None:
        """An image is under way no more."""
        self._places.end(due.host)
        self._urls.remove(due.id)
