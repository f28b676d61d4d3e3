"""How far an upload is: a bar on a terminal, a line now and then elsewhere; on standard error either way."""

import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from cli.output import stderr
from provider.uploads import LocalFile, ReportProgress

LINE_EVERY = 5.0
"""Seconds between two lines where there is no terminal; what is quicker says nothing."""


@contextmanager
def upload_progress() -> Iterator[Callable[[Collection[LocalFile]], ReportProgress]]:
    """What to hand to `upload_files` as its `begin`."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:

        def begin(files: Collection[LocalFile]) -> ReportProgress:
            upload = Upload(files)
            task = bar.add_task(upload.title, total=upload.total)

            def report(file: LocalFile, sent: int) -> None:
                upload.note(file, sent)
                bar.update(task, completed=upload.sent)
                if not stderr.is_terminal and upload.line_is_due():
                    stderr.print(f"{upload.title}: {decimal(upload.sent)} of {decimal(upload.total)}", markup=False)

            return report

        yield begin


class Upload:
    """The files on their way, and how much of each has left."""

    def __init__(self, files: Collection[LocalFile]) -> None:
        self.title = f"uploading {len(files)} file{'' if len(files) == 1 else 's'}"
        self.total = sum(file.bytes for file in files)
        self._sent: dict[str, int] = {}
        self._lock = threading.Lock()
        self._next_line = time.monotonic() + LINE_EVERY

    @property
    def sent(self) -> int:
        """Bytes that have left, of all files."""
        with self._lock:
            return sum(self._sent.values())

    def note(self, file: LocalFile, sent: int) -> None:
        """So many bytes of a file are out; fewer than before where it is sent again."""
        with self._lock:
            self._sent[file.sha256] = sent

    def line_is_due(self) -> bool:
        """True now and then, for one of the threads."""
        with self._lock:
            if time.monotonic() < self._next_line:
                return False
            self._next_line = time.monotonic() + LINE_EVERY
            return True
