"""The stored images of a batch, one by one in the order of its manifest; what commands do with each is theirs.

Reads a page of edits at a time and hands its images to a few threads, so that memory holds one page, however large
the batch is.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy import Engine

from cli.output import stderr
from core.errors import Pruned
from models.queries.batches import PRUNED_AT
from models.queries.images import IMAGES_OF_BATCH
from models.states import EditState

EDITS_AT_ONCE = 200
"""Edits looked up with one question."""
THREADS = 8
"""Images in hand at one time."""
REFUSALS = 8
"""Objects in a row that the store does not give, after which it is not asked for any more."""


@dataclass(frozen=True, slots=True)
class ImageRow:
    """An object in storage, as its row tells it."""

    position: int
    name: str
    """The edit's `custom_id`, or its position where it has none."""
    seed: int
    id: int
    state: str
    index: int
    storage_key: str
    sha256: str
    bytes: int
    content_type: str
    width: int | None
    height: int | None
    deleted: bool
    """Its time was over."""


Done = TypeVar("Done")


def for_each_image(
    engine: Engine, batch_id: UUID, work: Callable[[ImageRow], Done], *, state: EditState | None = None
) -> Iterator[tuple[ImageRow, Done]]:
    """Do the work for each image of the batch, or of its edits in `state`; gives each with what came of it, in order.

    Raises:
        Pruned: the batch's edits are no longer kept.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for page in _pages(engine, batch_id, state):
                yield from zip(page, pool.map(work, page), strict=True)
        except BaseException:  # Ctrl-C too: what has not begun is not begun any more
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _pages(engine: Engine, batch_id: UUID, state: EditState | None) -> Iterator[list[ImageRow]]:
    after = -1
    while True:
        values = {"batch": batch_id, "after": after, "state": state, "edits": EDITS_AT_ONCE}
        with engine.connect() as connection:
            rows = connection.exec_driver_sql(IMAGES_OF_BATCH, values).all()
            if connection.exec_driver_sql(PRUNED_AT, (batch_id,)).scalar() is not None:
                raise Pruned
        if not rows:
            return
        after = rows[-1].position
        yield [ImageRow(*row) for row in rows if row.id is not None]


@dataclass
class Bar:
    """How far it is, for a person."""

    _bar: Progress

    def advance(self) -> None:
        """One more image is done."""
        self._bar.advance(self._bar.task_ids[0])


@contextmanager
def image_bar(title: str, total: int) -> Iterator[Bar]:
    """A bar on a terminal, on standard error; nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        bar.add_task(title, total=total)
        yield Bar(bar)


class RefusalLimit:
    """Whether to give up on a store that refuses one object after the other. Safe for threads."""

    def __init__(self) -> None:
        self._refusals, self._lock = 0, threading.Lock()

    def note(self, *, refused: bool) -> bool:
        """Whether the last few objects were all refused, this one included."""
        with self._lock:
            self._refusals = self._refusals + 1 if refused else 0
            return self._refusals >= REFUSALS
