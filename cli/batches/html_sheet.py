"""Writes a contact sheet as HTML files, each complete in itself, however large the batch is.

Edit by edit to the disk: memory holds a few of them. A file that would grow beyond what a browser likes to open goes on
in another one; each has its name only once it is whole.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from threading import Lock
from uuid import UUID

from sqlalchemy import Engine

from cli.batches.html_sheet_page import Shown, card, foot, head
from cli.batches.progress import Row
from cli.batches.thumbnails import Refused, Thumbnails
from cli.whole_file import write_whole
from models.queries.edits import SHEET_EDITS, SHEET_INPUT

FILE_BYTES = 24 * 2**20
"""Of one file, about: some hundreds to two thousand edits."""
READERS, AHEAD = 4, 12
"""Edits whose images are read at one time, and edits whose cards are held until those before them are written."""
EDITS_AT_ONCE = 100
"""Edits looked up with one question."""


class Sheet:
    """The cards of a batch."""

    def __init__(self, engine: Engine, batch_id: UUID, thumbnails: Thumbnails) -> None:
        self._engine, self._batch_id, self._thumbnails = engine, batch_id, thumbnails
        self._long = Lock()

    def cards(self, limit: int) -> Generator[str]:
        """The cards of the first edits, in their order; a few are made ahead."""
        with ThreadPoolExecutor(READERS, thread_name_prefix="thumbnail") as pool:
            waiting: deque[Future[str]] = deque()
            try:
                for edit in islice(self._edits(), limit):
                    waiting.append(pool.submit(self._make_card, edit))
                    if len(waiting) >= AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _edits(self) -> Iterator[Row]:
        after = -1
        while True:
            with self._engine.connect() as connection:
                rows = connection.exec_driver_sql(SHEET_EDITS, (self._batch_id, after, EDITS_AT_ONCE)).mappings().all()
            yield from map(dict, rows)
            if len(rows) < EDITS_AT_ONCE:
                return
            after = rows[-1]["position"]

    def _make_card(self, edit: Row) -> str:
        before = [self._input(edit, number, url) for number, url in enumerate(edit["urls"], 1)]
        after = [self._show(self._thumbnails.of_stored, image["key"]) for image in edit["images"]]
        return card(edit, before, after)

    def _input(self, edit: Row, number: int, url: str | None) -> Shown:
        if url is not None:
            return self._show(self._thumbnails.of_input, url)
        # a data URI, or as long as one: one at a time in memory
        with self._long:
            with self._engine.connect() as connection:
                found = connection.exec_driver_sql(SHEET_INPUT, (number - 1, self._batch_id, edit["position"])).scalar()
            return self._show(self._thumbnails.of_input, found or "")

    @staticmethod
    def _show(make: Callable[[str], str], name: str) -> Shown:
        try:
            return Shown(make(name))
        except Refused as refused:
            return Shown(None, str(refused))


def write_html_sheet(row: Row, cards: Iterator[str], output: Path, note: str) -> Iterator[Path]:
    """Write the files one after the other, and give each when it is there; `note` stands on the last.

    Raises:
        UserError: one cannot be written.
    """
    number, first = 1, next(cards, None)
    previous: Path | None = None
    while number == 1 or first is not None:
        path = name_page(output, number)
        with write_whole(path, "w", encoding="utf-8", errors="backslashreplace") as file:
            size = file.write(head(row, number, previous.name if previous else None))
            while first is not None and size < FILE_BYTES:
                size += file.write(first)
                first = next(cards, None)
            file.write(foot(note if first is None else "", name_page(output, number + 1).name if first else None))
        yield path
        previous, number = path, number + 1


def name_page(output: Path, number: int) -> Path:
    """The file of a page: sheet.html, sheet-2.html."""
    return output if number == 1 else output.with_stem(f"{output.stem}-{number}")
