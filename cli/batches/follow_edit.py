"""One edit as it happens, through all its requests: where it stands in the database, and what the queue tells.

The queue's side needs the key; without it an edit can be followed all the same.
"""

import threading
import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from sqlalchemy import Engine

from core.errors import ProviderError
from models.database import retry_while_unavailable
from models.queries.edits import EDIT_STATUS
from models.states import FINAL, EditState
from provider.follow_request import Update, follow
from provider.queue_api import QueueAPI

LOOK_EVERY = 0.3
"""Seconds between two looks into the database."""
QUIET_MAX = 1.0
"""Seconds."""
LAST_LINES = 3.0
"""Seconds for which the last log lines of an edit that is over are waited for."""


class EditStatus(NamedTuple):
    """Where an edit stands in the database."""

    state: EditState
    attempt: int
    request_id: str | None
    endpoint: str
    error: dict[str, Any] | None
    """The latest entry of its errors."""
    paused: str | None
    """Why nothing is submitted: of the provider's account, or of its batch."""

    @property
    def final(self) -> bool:
        """Whether nothing more becomes of it."""
        return self.state in FINAL


class Step(NamedTuple):
    """What is new about an edit: where it stands, and what its request tells."""

    status: EditStatus
    updates: tuple[Update, ...]
    trouble: ProviderError | None
    """Why the provider tells nothing of the request."""


def follow_edit(engine: Engine, edit_id: int, queue: QueueAPI | None = None) -> Iterator[Step]:
    """What happens to an edit until it is final, through every attempt; without `queue` only what the database says.

    A step comes with every news, and at least every `QUIET_MAX`, so that who waits can see that nothing moves.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is away for longer than it takes to restart it.
    """
    tail: UpdateTail | None = None
    before: EditStatus | None = None
    spoke = 0.0
    while True:
        status = retry_while_unavailable(lambda: load_status(engine, edit_id))
        if queue and status.request_id and (tail is None or tail.request_id != status.request_id):
            tail = UpdateTail(queue, status.endpoint, status.request_id)
        updates = tail.take_updates(wait=LAST_LINES if status.final else 0) if tail else ()
        trouble = tail.trouble if tail else None
        if updates or status != before or time.monotonic() - spoke > QUIET_MAX:
            yield Step(status, updates, trouble)
            spoke = time.monotonic()
        if status.final:
            return
        before = status
        time.sleep(LOOK_EVERY)


class UpdateTail:
    """Follows a request in a thread of its own, so that a silent stream keeps nobody from the database."""

    def __init__(self, queue: QueueAPI, endpoint: str, request_id: str) -> None:
        self.request_id = request_id
        self.trouble: ProviderError | None = None
        self._updates: SimpleQueue[Update] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(queue, endpoint), daemon=True)
        self._thread.start()

    def _run(self, queue: QueueAPI, endpoint: str) -> None:
        try:
            for update in follow(queue, endpoint, self.request_id):
                self._updates.put(update)
        except ProviderError as error:
            self.trouble = error

    def take_updates(self, *, wait: float) -> tuple[Update, ...]:
        """What came since the last call; up to `wait` seconds are given to the end."""
        self._thread.join(wait)
        updates = []
        try:
            while True:
                updates.append(self._updates.get_nowait())
        except Empty:
            return tuple(updates)


def load_status(engine: Engine, edit_id: int) -> EditStatus:
    """Where the edit stands now."""
    with engine.connect() as connection:
        state, *rest = connection.exec_driver_sql(EDIT_STATUS, (edit_id,)).one()
        return EditStatus(EditState(state), *rest)
