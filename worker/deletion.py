"""What is deleted elsewhere than in the database: refused files and images in storage, and requests at the provider.

Each function takes one step. Whoever refuses a deletion, the store or the provider, is told in `lane_pauses` until one
succeeds; nothing else waits for it.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from sqlalchemy import Connection, Engine

from core.errors import AccountPaused, DownloadError, Gone, SettingsError, TryLater
from models.input_files import delete_input_file, lock_expired_files
from models.pauses import pause_lane, resume_lane
from models.queries.callbacks import LIMIT_LOCK_WAIT
from models.retention import Step
from models.stored_images import Deletion, begin_images, begin_requests, end_images, end_requests
from provider.platform import PlatformAPI
from storage.store import QUARANTINE, Storage
from worker.download_claims import UNOPENED

FILES_AT_ONCE = 100
"""Refused files of one step."""
INPUTS_AT_ONCE = 20
"""Files of callers of one step, which holds their rows."""
DELETED_AT_ONCE = 8
"""Objects, or requests, whose deletion is under way at one time."""
LOCK_WAIT = "1s"
PAUSE = 3600.0
"""Seconds that stand in `lane_pauses`; the lane comes back when it looks at that kind again."""


NOTHING = Step(0, more=False)
"""Nobody was asked to delete anything, which says nothing of whether they would."""


class Elsewhere(NamedTuple):
    """How to reach what is outside of the database; opened where something is to be deleted."""

    open_storage: Callable[[], Storage]
    open_platform: Callable[[], PlatformAPI]


def delete_refused_files(engine: Engine, elsewhere: Elsewhere, kept: float) -> Step:
    """The next files under `quarantine/` that are older than `kept` seconds."""

    def delete() -> Step:
        storage = elsewhere.open_storage()
        keys = list(islice(storage.list_older(QUARANTINE, kept), FILES_AT_ONCE))
        _delete_all(storage.delete, keys)
        return Step(len(keys), more=len(keys) == FILES_AT_ONCE)

    return _try(engine, "storage", delete)


def delete_images(engine: Engine, elsewhere: Elsewhere, kept: float | None) -> Step:
    """The next images of a batch whose time is over."""

    def delete() -> Step:
        with engine.begin() as connection:
            connection.exec_driver_sql(LIMIT_LOCK_WAIT, (LOCK_WAIT,))
            deletion = begin_images(connection, kept)
        if deletion is None:
            return Step(0, more=False)
        _delete_all(elsewhere.open_storage().delete, deletion.keys)
        return _end(engine, deletion, end_images)

    return _try(engine, "storage", delete)


def delete_input_files(engine: Engine, elsewhere: Elsewhere, _: float) -> Step:
    """The next files of callers whose time is over, each object before its row, which is held meanwhile."""

    def delete() -> Step:
        with engine.begin() as connection:
            connection.exec_driver_sql(LIMIT_LOCK_WAIT, (LOCK_WAIT,))
            files = lock_expired_files(connection, limit=INPUTS_AT_ONCE)
            if not files:
                return NOTHING
            _delete_all(elsewhere.open_storage().delete, [file.storage_key for file in files])
            for file in files:
                delete_input_file(connection, file)
        return Step(len(files), more=len(files) == INPUTS_AT_ONCE)

    return _try(engine, "storage", delete)


def delete_requests(engine: Engine, elsewhere: Elsewhere, kept: float) -> Step:
    """The next requests, at the provider, of a batch that has finished `kept` seconds ago."""

    def delete() -> Step:
        with engine.begin() as connection:
            deletion = begin_requests(connection, kept)
        if deletion is None:
            return Step(0, more=False)
        platform = elsewhere.open_platform()

        def delete_one(request_id: str) -> None:
            with suppress(Gone):
                platform.delete_payloads(request_id)

        _delete_all(delete_one, deletion.keys)
        return _end(engine, deletion, end_requests)

    return _try(engine, "provider", delete)


def _delete_all(delete: Callable[[str], None], keys: Sequence[str]) -> None:
    with ThreadPoolExecutor(DELETED_AT_ONCE) as pool:
        list(pool.map(delete, keys))


def _end(engine: Engine, deletion: Deletion, end: Callable[[Connection, Deletion], None]) -> Step:
    with engine.begin() as connection:
        end(connection, deletion)
    return Step(len(deletion.keys), more=True)


def _try(engine: Engine, subject: str, delete: Callable[[], Step]) -> Step:
    try:
        step = delete()
    except (DownloadError, SettingsError, AccountPaused, TryLater) as error:
        with engine.begin() as connection:
            reason, message = _explain(error)
            pause_lane(connection, "prune", subject, reason=reason, message=message, retry_after=PAUSE)
        return Step(0, more=False)
    if step is not NOTHING:
        with engine.begin() as connection:
            resume_lane(connection, "prune", subject)
    return step


def _explain(error: DownloadError | SettingsError | AccountPaused | TryLater) -> tuple[str, str]:
    """The reason in a word, and the message."""
    if isinstance(error, SettingsError):
        return UNOPENED, str(error)
    if isinstance(error, TryLater):
        return "unreachable", str(error)
    return error.type if isinstance(error, DownloadError) else error.reason, error.message
