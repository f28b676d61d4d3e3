"""Local files, judged side by side, with a bar: ten thousand photographs are many minutes of decoding."""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli.batches.convert_images import inspect_converted
from cli.batches.upload_bar import LINE_EVERY
from cli.output import plural, stderr
from cli.streams import one_line
from core.errors import UnfitInput, UserError
from provider.uploads import LocalFile, inspect

AT_ONCE = min(os.cpu_count() or 1, 16)
"""Decoders use a processor each; how many pixels they hold together is bounded in `core.image_files`."""


def look_at_files(paths: Sequence[Path], convert: bool) -> Iterator[LocalFile | str]:
    """Each file in order, judged fit to be sent, or why it is not; `convert` as for `Manifest`."""
    if not paths:
        return
    with ThreadPoolExecutor(AT_ONCE) as pool, _progress(len(paths)) as bar:
        try:
            for found in pool.map(lambda path: _look_at(path, convert), paths):
                bar.advance()
                if isinstance(found, LocalFile) and found.converted:
                    stderr.print(one_line(f"{found.path}: {found.converted}"), markup=False)
                yield found
        finally:  # of Ctrl-C: what has not begun is not waited for
            pool.shutdown(cancel_futures=True)


def _look_at(given: Path, convert: bool) -> LocalFile | str:
    try:
        path = given.resolve()
        if not path.is_file():
            return f"there is no file {path}"
        return inspect_converted(path) if convert else inspect(path)
    except UnfitInput as error:
        hint = ", or give --convert" if error.convertible and not convert else ""
        return f"{str(error).rstrip('.')}{hint}"
    except (UserError, OSError, ValueError, RuntimeError) as error:  # a circle of links is a RuntimeError
        return str(error).rstrip(".")


class _Bar:
    """On a terminal a bar; elsewhere a line now and then, and none at all where it is quick."""

    def __init__(self, bar: Progress, total: int) -> None:
        self._bar, self._total, self._done = bar, total, 0
        self._title = f"looking at {plural(total, 'file')}"
        self._task = bar.add_task(self._title, total=total)
        self._next_line = time.monotonic() + LINE_EVERY

    def advance(self) -> None:
        """One more is done."""
        self._done += 1
        self._bar.advance(self._task)
        if not stderr.is_terminal and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_EVERY
            stderr.print(f"{self._title}: {self._done} of {self._total}", markup=False)


@contextmanager
def _progress(total: int) -> Iterator[_Bar]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        yield _Bar(bar, total)
