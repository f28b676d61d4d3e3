"""Shows one edit while it happens, and what became of it.

Lines stay on the screen; on a terminal one more below them moves. Without the key only the database's states are
shown, and it is said why.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit
from uuid import UUID

from rich.filesize import decimal
from sqlalchemy import Engine

from cli.batches.follow_edit import EditStatus, Step, follow_edit
from cli.batches.progress import duration
from cli.output import escape, print_json, screen, stderr
from cli.provider.client import sentence
from cli.provider.request import log_text
from core.settings import StorageSettings, load
from models.queries.edits import EDIT_END, ONLY_EDIT, STORED_IMAGES_OF_EDIT
from models.states import IN_FLIGHT, EditState
from provider.follow_request import LogLine, Update
from provider.queue_api import QueueAPI
from provider.settings import ProviderSettings

STILL = 10.0
"""Seconds in the line of ours after which it is asked whether anybody works."""


class WatchedEdit(NamedTuple):
    """One edit to its end."""

    batch_id: UUID
    edit_id: int
    status: EditStatus
    logs: tuple[LogLine, ...]


def watch_edit(engine: Engine, batch_id: UUID, *, quiet: bool) -> WatchedEdit:
    """Show the only edit of a batch until it is final; `quiet`: show nothing of it."""
    settings = load(ProviderSettings)
    queue = QueueAPI.of(settings) if settings.fal_key else None
    if queue is None:
        stderr.print("Only the states are shown: log lines need FAL_KEY, which is not set here.", markup=False)
    with engine.connect() as connection:
        edit_id = connection.exec_driver_sql(ONLY_EDIT, (batch_id,)).scalar_one()
    logs: list[LogLine] = []
    try:
        with open_reporter(quiet) as reporter:
            for step in follow_edit(engine, edit_id, queue):
                logs += [line for update in step.updates for line in update.logs]
                reporter.report(step)
    except KeyboardInterrupt:
        stderr.print(f"The edit goes on; to see it again: darkroom watch {batch_id}", markup=False, soft_wrap=True)
        raise
    return WatchedEdit(batch_id, edit_id, step.status, tuple(logs))


@contextmanager
def open_reporter(quiet: bool) -> Iterator["EditReporter"]:
    """Someone who tells what happens."""
    if quiet or not screen.is_terminal:
        yield EditReporter(quiet=quiet)
    else:
        with screen.status("pending") as status:
            yield EditReporter(quiet=False, say_now=status.update)


class EditReporter:
    """Tells each thing once, as it comes; `say_now` says what is the case at this moment."""

    def __init__(self, *, quiet: bool, say_now: Callable[[str], object] = lambda _: None) -> None:
        self._quiet, self._say_now = quiet, say_now
        self._began = time.monotonic()
        self._said: set[str] = set()
        self._status: EditStatus | None = None

    def report(self, step: Step) -> None:
        """What is new in a step, in the order in which it happened."""
        status = step.status
        if status.state in IN_FLIGHT:
            self._report_state(status)
        for update in step.updates:
            self._report_update(update)
        if step.trouble:
            self._warn(f"No log lines: {sentence(step.trouble, status.request_id or '')}")
        self._report_state(status)
        self._say_now(f"{status.state}, {duration(time.monotonic() - self._began)}")

    def _report_state(self, status: EditStatus) -> None:
        before, self._status = self._status, status
        if status.paused and status.state is EditState.PENDING:
            self._warn(f"Nothing is submitted now: {status.paused}")
        elif status.state is EditState.PENDING and not status.attempt and time.monotonic() - self._began > STILL:
            self._warn("Nothing has moved yet: does `darkroom up` run, or has it other work to do first?")
        if status.error and (before is None or status.error != before.error) and not status.final:
            self._line(f"[yellow]attempt {status.attempt} failed[/]  {escape(error_text(status.error))}")
        if before is None or status.state != before.state:
            known = status.state is EditState.SUBMITTED and status.request_id
            request = f"  request {escape(known)}" if known else ""
            self._line(f"[bold]{status.state}[/]{request}")

    def _report_update(self, update: Update) -> None:
        if update.status == "IN_QUEUE" and update.queue_position is not None:
            self._line(f"in the provider's queue, {update.queue_position} ahead")
        elif update.status == "IN_PROGRESS":
            self._report_start(update.request_id)
        for line in update.logs:
            self._line(f"  {log_text(line)}")
        if update.status == "COMPLETED" and isinstance(update.inference_time, int | float):
            self._line(f"made in {duration(update.inference_time)}")

    def _report_start(self, request_id: str) -> None:
        if request_id not in self._said:
            self._said.add(request_id)
            self._line("running at the provider")

    def _warn(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            stderr.print(text, markup=False, soft_wrap=True)

    def _line(self, text: str) -> None:
        if not self._quiet:
            screen.print(text, soft_wrap=True)


def error_text(error: dict[str, Any]) -> str:
    """An entry of an edit's errors for people."""
    return f"{error.get('type')}: {error.get('message')}"


def print_end(engine: Engine, watched: WatchedEdit, *, as_json: bool) -> int:
    """Say what became of the edit; gives the exit code."""
    end = describe_end(engine, watched)
    if as_json:
        print_json({**end, "logs": [line.message for line in watched.logs]})
    else:
        for image in end["images"]:
            facts = f"{image['width']}x{image['height']}  {image['content_type']}  {decimal(image['bytes'])}"
            screen.print(f"[green]{escape(image['path'])}[/]  {facts}", soft_wrap=True)
        if end["state"] != EditState.STORED and watched.status.error:
            screen.print(f"[red]{escape(error_text(watched.status.error))}[/]", soft_wrap=True)
    return 0 if end["state"] == EditState.STORED else 1


def describe_end(engine: Engine, watched: WatchedEdit) -> dict[str, Any]:
    """Everything that the database knows of an edit that is over."""
    storage_url = load(StorageSettings).storage_url
    with engine.connect() as connection:
        edit = connection.exec_driver_sql(
            EDIT_END,
            (watched.edit_id,),
        )
        images = connection.exec_driver_sql(
            STORED_IMAGES_OF_EDIT,
            (watched.edit_id,),
        )
        stored = [{"path": place(storage_url, row["storage_key"]), **row} for row in images.mappings()]
        return {**edit.mappings().one(), "request_id": watched.status.request_id, "images": stored}


def place(storage_url: str, key: str) -> str:
    """Where a stored image is: a path on this machine, or its address in the store."""
    parts = urlsplit(storage_url)
    return str(Path(unquote(parts.path)) / key) if parts.scheme == "file" else f"{storage_url}/{key}"
