"""`darkroom watch`: several batches at one time, their errors as they come, on a terminal and in a pipe."""

import os
import pty
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from cli.batches import poll_progress, watch_batches
from cli.batches.progress import progress_of_all
from models.database import make_engine
from models.record_reports import record_reports
from models.transitions import settle_batches
from models.verdict import Retry
from tests.support.command_line import CommandLine
from tests.support.factories import POLICY, answer, failure, make_submitted
from tests.support.running_stack import PYTHON
from tests.support.terminals import read_terminal

LOOKED = threading.Event()
"""The command has looked at its batches once."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    LOOKED.clear()

    def read_and_note(*given: Any) -> Any:
        found = progress_of_all(*given)
        LOOKED.set()
        return found

    monkeypatch.setattr(poll_progress, "progress_of_all", read_and_note)
    monkeypatch.setattr(poll_progress, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(watch_batches, "LINE_EVERY", 0.0)


def fail_each(connection: Connection) -> None:
    """Every edit in flight fails; batches whose edits are all final are finished."""
    open_ones = connection.exec_driver_sql("SELECT id FROM submissions WHERE outcome IS NULL ORDER BY posted_at").all()
    record_reports(connection, [answer(one, failure("no_images", Retry.NEVER)) for one in open_ones], POLICY)
    settle_batches(connection)


@contextmanager
def ending(engine: Engine, after: float) -> Iterator[None]:
    """All that is in flight fails so many seconds after the command has looked at it."""

    def end() -> None:
        LOOKED.wait(60)
        time.sleep(after)
        with engine.begin() as connection:
            fail_each(connection)

    thread = threading.Thread(target=end)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_several_batches(run_cli: CommandLine, engine: Engine) -> None:
    """Until the last of them is finished; each line says whose it is, and one that is over is said once."""
    with engine.begin() as connection:
        make_submitted(connection, 1, name="first")
        fail_each(connection)
        make_submitted(connection, 2, name="second [red]")
        ids = list(connection.exec_driver_sql("SELECT id::text FROM batches ORDER BY created_at").scalars())
    with ending(engine, 0.5):
        said = run_cli("watch", *ids, "last")
    lines = said.out.splitlines()
    assert said.code == 1
    assert [line for line in lines if line.startswith("first")] == [
        "first  1 edit: no_images  no",
        "first  1/1  1 failed, finished",
    ]
    second = [line for line in lines if line.startswith("second [red]")]
    assert second[0] == "second [red]  0/2  2 submitted"
    assert second.count("second [red]  2 edits: no_images  no") == 1
    assert second[-1] == "second [red]  2/2  2 failed, finished"


def test_one_batch_needs_no_name(run_cli: CommandLine, engine: Engine) -> None:
    """Errors come before the counts that hold them."""
    with engine.begin() as connection:
        make_submitted(connection, 1, name="only")
        fail_each(connection)
    assert run_cli("watch", "last").out == "1 edit: no_images  no\n1/1  1 failed, finished\n"


def test_errors_are_counted_on(engine: Engine) -> None:
    """A type that goes on failing is told how many more there are, not each edit again."""
    lines = watch_batches.ErrorLines()
    row = {"batch_id": "b", "name": None, "finished_at": None}
    said = []
    for edits in (1, 1, 40, 40):
        rows = [{**row, "errors": [{"type": "t", "edits": edits, "failed": 0, "example": None}]}]
        said += list(lines.take_new(rows))
    assert said == ["[red]1 edit: t[/]  ", "[red]39 more edits: t[/]  "]


def test_what_is_told_together_was_so_together(engine: Engine, database_url: str) -> None:
    """A failure that is recorded while the command reads is in the counts and among the errors, or in neither."""
    with engine.begin() as connection:
        make_submitted(connection, 1)
        ids = list(connection.exec_driver_sql("SELECT id::text FROM batches").scalars())
    reading = make_engine(database_url, application="darkroom cli")

    def fail_meanwhile(*_: Any) -> None:
        with engine.begin() as connection:
            fail_each(connection)

    event.listen(reading, "after_cursor_execute", fail_meanwhile, once=True)
    rows = [progress_of_all(reading, ids)[0] for _ in range(2)]
    reading.dispose()
    assert [(row["failed"], len(row["errors"])) for row in rows] == [(0, 0), (1, 1)]


def test_for_a_script(run_cli: CommandLine, engine: Engine) -> None:
    """A line whenever a batch changes, with its errors by type."""
    with engine.begin() as connection:
        make_submitted(connection, 1)
        make_submitted(connection, 1)
        ids = list(connection.exec_driver_sql("SELECT id::text FROM batches ORDER BY created_at").scalars())
    with ending(engine, 0.4):
        said = run_cli("watch", *ids, "--json")
    assert [(line["batch_id"], line["failed"]) for line in said.lines] == [
        (ids[0], 0),
        (ids[1], 0),
        (ids[0], 1),
        (ids[1], 1),
    ]
    assert said.lines[-1]["errors"] == [{"type": "no_images", "edits": 1, "failed": 1, "example": "no"}]


def test_on_a_terminal(run_cli: CommandLine, engine: Engine) -> None:
    """A bar for each, and an error above them."""
    with engine.begin() as connection:
        make_submitted(connection, 1, name="first")
        fail_each(connection)
        make_submitted(connection, 3, name="second")
        ids = list(connection.exec_driver_sql("SELECT id::text FROM batches ORDER BY created_at").scalars())
    with ending(engine, 0.2):
        shown, code = on_terminal("watch", *ids)
    assert code == 1
    assert "3 edits: no_images" in shown
    assert "0/3 3 submitted" in shown
    assert "3/3 3 failed, finished" in shown


def on_terminal(*arguments: str) -> tuple[str, int]:
    """What a command shows on a terminal of 100 columns, and its exit code."""
    try:
        leader, follower = pty.openpty()
    except OSError as error:  # a chroot without /dev/pts
        pytest.skip(f"this machine gives no terminal: {error}")
    variables = os.environ | {"TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1"}
    with subprocess.Popen((*PYTHON, *arguments), env=variables, stdout=follower, stderr=follower) as process:
        os.close(follower)
        for shown in read_terminal(leader):
            if b"submitted" in shown:
                LOOKED.set()
    return shown.decode(), process.returncode
