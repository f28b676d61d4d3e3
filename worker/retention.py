"""The steps of pruning: of each kind of thing that is kept for a time only, the next few, in a transaction."""

from collections.abc import Callable
from itertools import islice

from sqlalchemy import Engine

from core.errors import DownloadError
from models.pauses import pause_lane, resume_lane
from models.queries.callbacks import LIMIT_LOCK_WAIT
from models.retention import (
    Step,
    fold_moments,
    prune_batches,
    prune_callback_bodies,
    prune_orphans,
    prune_uploads,
)
from models.states import Kept
from storage.store import QUARANTINE, Storage
from worker.settings import RetentionSettings

LOOK_AGAIN, SELDOM = 60.0, 3600.0
"""Seconds until rows are looked at again, at most; files, for to list them costs money, and what is kept for ever."""
FILES_AT_ONCE = 100
LOCK_WAIT = "1s"
LOCKED = frozenset({"40001", "40P01", "55P03"})
"""Conditions in which somebody else holds what was to be pruned."""


STEPS = {
    Kept.CALLBACK_BODIES: prune_callback_bodies,
    Kept.ORPHANS: prune_orphans,
    Kept.UPLOADS: prune_uploads,
    Kept.MOMENTS: fold_moments,
}


class Pruning:
    """Takes steps, by the settings; `open_storage` is called where there are files to be looked at."""

    def __init__(self, engine: Engine, settings: RetentionSettings, open_storage: Callable[[], Storage]) -> None:
        self._engine, self._settings, self._open_storage = engine, settings, open_storage

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
        }[kind]

    def look_again_in(self, kind: Kept) -> float:
        """Seconds until a kind of which nothing more is due is looked at again."""
        kept = self.kept_for(kind)
        longest = SELDOM if kind is Kept.QUARANTINE or kept is None else LOOK_AGAIN
        return max(1.0, min(longest, kept or longest))

    def take_step(self, kind: Kept) -> Step:
        """Remove the next few that were kept long enough.

        Raises:
            sqlalchemy.exc.DBAPIError: the database does not do it; `LOCKED`: not now.
        """
        kept = self.kept_for(kind)
        if kind is Kept.QUARANTINE:
            return Step(0, more=False) if kept is None else self._delete_files(kept)
        with self._engine.begin() as connection:
            connection.exec_driver_sql(LIMIT_LOCK_WAIT, (LOCK_WAIT,))
            if kind is Kept.BATCHES:
                return prune_batches(connection, kept)
            if kept is None:
                return Step(0, more=False)
            return STEPS[kind](connection, kept)

    def count_files(self, kept: float) -> int:
        """Refused files that were kept for longer than so many seconds.

        Raises:
            DownloadError: the store does not tell.
        """
        return sum(1 for _ in self._open_storage().list_older(QUARANTINE, kept))

    def _delete_files(self, kept: float) -> Step:
        """Refused files; a store that refuses too is told in `lane_pauses` until it works again."""
        try:
            storage = self._open_storage()
            keys = list(islice(storage.list_older(QUARANTINE, kept), FILES_AT_ONCE))
            for key in keys:
                storage.delete(key)
        except DownloadError as error:
            with self._engine.begin() as connection:
                pause_lane(
                    connection,
                    "prune",
                    "storage",
                    reason=error.type,
                    message=error.message,
                    retry_after=SELDOM,
                )
            return Step(0, more=False)
        with self._engine.begin() as connection:
            resume_lane(connection, "prune", "storage")
        return Step(len(keys), more=len(keys) == FILES_AT_ONCE)
