"""The steps of pruning: of each kind of thing that is kept for a time only, the next few, in a transaction."""

from sqlalchemy import Engine

from models.queries.callbacks import LIMIT_LOCK_WAIT
from models.retention import (
    Step,
    prune_batches,
    prune_callback_bodies,
    prune_moments,
    prune_orphans,
    prune_uploads,
)
from models.states import Kept
from storage.store import QUARANTINE
from worker.deletion import (
    LOCK_WAIT,
    Elsewhere,
    delete_images,
    delete_input_files,
    delete_refused_files,
    delete_requests,
)
from worker.settings import RetentionSettings

LOOK_AGAIN, SELDOM = 60.0, 3600.0
"""Seconds until rows are looked at again, at most; files, for to list them costs money, and what is kept for ever."""
LOCKED = frozenset({"40001", "40P01", "55P03"})
"""Conditions in which somebody else holds what was to be pruned."""


STEPS = {
    Kept.CALLBACK_BODIES: prune_callback_bodies,
    Kept.ORPHANS: prune_orphans,
    Kept.UPLOADS: prune_uploads,
}
ELSEWHERE = {
    Kept.QUARANTINE: delete_refused_files,
    Kept.PROVIDER_COPIES: delete_requests,
    Kept.INPUT_FILES: delete_input_files,
}


class Pruning:
    """Takes steps, by the settings."""

    def __init__(self, engine: Engine, settings: RetentionSettings, elsewhere: Elsewhere) -> None:
        self._engine, self._settings, self._elsewhere = engine, settings, elsewhere

    def kept_for(self, kind: Kept) -> float | None:
        """Seconds; None: for ever."""
        settings = self._settings
        return {
            Kept.CALLBACK_BODIES: settings.keep_callback_bodies,
            Kept.BATCHES: settings.keep_batches,
            Kept.ORPHANS: settings.keep_batches,
            Kept.UPLOADS: settings.keep_uploads,
            Kept.QUARANTINE: settings.keep_quarantine,
            Kept.MOMENTS: settings.keep_moments,
            Kept.IMAGES: settings.keep_images,
            Kept.PROVIDER_COPIES: settings.fal_keep_requests,
            Kept.INPUT_FILES: 0.0,  # each row has its own end
        }[kind]

    def look_again_in(self, kind: Kept) -> float:
        """Seconds until a kind of which nothing more is due is looked at again."""
        kept = self.kept_for(kind)
        # what is over is moved whatever is kept, and a batch may have a time of its own for its images
        for_ever = kept is None and kind not in {Kept.IMAGES, Kept.MOMENTS}
        longest = SELDOM if kind is Kept.QUARANTINE or for_ever else LOOK_AGAIN
        return max(1.0, min(longest, kept or longest))

    @property
    def waits_for(self) -> list[str]:
        """What of a batch has to be gone before its rows go, because it could not be found without them."""
        return [kind.value for kind in (Kept.IMAGES, Kept.PROVIDER_COPIES) if self.kept_for(kind) is not None]

    def take_step(self, kind: Kept) -> Step:
        """Remove the next few that were kept long enough.

        Raises:
            sqlalchemy.exc.DBAPIError: the database does not do it; `LOCKED`: not now.
        """
        kept = self.kept_for(kind)
        if kind is Kept.IMAGES:
            return delete_images(self._engine, self._elsewhere, kept)
        if kind in {Kept.BATCHES, Kept.MOMENTS}:
            with self._engine.begin() as connection:
                connection.exec_driver_sql(LIMIT_LOCK_WAIT, (LOCK_WAIT,))
                if kind is Kept.MOMENTS:
                    return prune_moments(connection, kept)
                return prune_batches(connection, kept, waits_for=self.waits_for)
        if kept is None:
            return Step(0, more=False)
        if kind in ELSEWHERE:
            return ELSEWHERE[kind](self._engine, self._elsewhere, kept)
        with self._engine.begin() as connection:
            connection.exec_driver_sql(LIMIT_LOCK_WAIT, (LOCK_WAIT,))
            return STEPS[kind](connection, kept)

    def count_files(self, kept: float) -> int:
        """Refused files that were kept for longer than so many seconds.

        Raises:
            DownloadError: the store does not tell.
        """
        return sum(1 for _ in self._elsewhere.open_storage().list_older(QUARANTINE, kept))
