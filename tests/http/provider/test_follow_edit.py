"""One edit followed through the database and the queue, while real lanes do the work."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine

from cli.batches.follow_edit import Step, follow_edit
from core.errors import AccountPaused
from models.states import EditState
from provider.queue_api import QueueAPI
from tests.support.lane_runner import Emulator, LaneRunner, all_are, lane_runner, make_edits
from tests.support.receiving import rows

pytestmark = pytest.mark.usefixtures("balanced")
IMAGE = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


@contextmanager
def working(machine: LaneRunner, **ends: int) -> Iterator[None]:
    """The lanes at work beside the block, until the edits stand like this."""
    thread = threading.Thread(target=machine.work_until, args=(all_are(machine.engine, **ends),))
    thread.start()
    try:
        yield
    finally:
        thread.join()


def an_edit(engine: Engine, prompt: str) -> int:
    """The id of a batch's only edit."""
    batch_id = make_edits(engine, [prompt])
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE edits SET arguments = jsonb_set(arguments, '{image_urls,0}', to_jsonb(%s::text))", (IMAGE,)
        )
        found = connection.exec_driver_sql("SELECT id FROM edits WHERE batch_id = %s", (batch_id,))
        return int(found.scalar_one())


def states(steps: list[Step]) -> list[EditState]:
    """The states that were seen, each once in a row."""
    seen = [step.status.state for step in steps]
    return [state for number, state in enumerate(seen) if number == 0 or state != seen[number - 1]]


def test_whole_way_with_log_lines(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """From pending to stored, with every log line once, also those of the last moment."""
    emulator.mark(latency=0.8)
    with lane_runner(engine, emulator, tmp_path) as machine:
        edit_id = an_edit(engine, "a hat")
        with working(machine, stored=1):
            steps = list(follow_edit(engine, edit_id, machine.queue))

    assert (states(steps)[0], states(steps)[-1]) == (EditState.PENDING, EditState.STORED)
    updates = [update for step in steps for update in step.updates]
    messages = [line.message for update in updates for line in update.logs]
    assert len(messages) == len(set(messages)) > 3
    assert updates[-1].status == "COMPLETED"
    assert {update.request_id for update in updates} == {
        row[0] for row in rows(engine, "SELECT request_id FROM submissions")
    }
    assert [step.trouble for step in steps if step.trouble] == []


def test_every_attempt_is_followed(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """A transient failure: the second request's lines come too, and the error is told."""
    emulator.mark(latency=0.5)
    with lane_runner(engine, emulator, tmp_path, retry_delay=1) as machine:
        edit_id = an_edit(engine, "a hat [[fault:internal_server_error*1]]")
        with working(machine, stored=1):
            steps = list(follow_edit(engine, edit_id, machine.queue))

    assert len({update.request_id for step in steps for update in step.updates}) == 2
    assert steps[-1].status.error is not None
    assert steps[-1].status.error["type"] == "internal_server_error"
    assert (steps[-1].status.state, steps[-1].status.attempt) == (EditState.STORED, 2)


def test_without_the_key_the_database_tells(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """States only, to the same end."""
    with lane_runner(engine, emulator, tmp_path) as machine:
        edit_id = an_edit(engine, "a hat")
        with working(machine, stored=1):
            steps = list(follow_edit(engine, edit_id))

    assert steps[-1].status.final
    assert not any(step.updates for step in steps)


def test_wrong_key_stops_nobody(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """A refused key is told as trouble; the edit is followed all the same."""
    with lane_runner(engine, emulator, tmp_path) as machine:
        edit_id = an_edit(engine, "a hat")
        with working(machine, stored=1):
            steps = list(follow_edit(engine, edit_id, QueueAPI(emulator.url, "no-key", start_timeout=60)))

    assert steps[-1].status.state is EditState.STORED
    assert isinstance(steps[-1].trouble, AccountPaused)


def test_paused_account_is_told(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """While nothing is submitted the reason stands beside the state, and steps go on coming."""
    edit_id = an_edit(engine, "a hat")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO provider_status (paused_at, reason, message, retry_at) VALUES (now(), 'locked', 'no', now())"
        )
    steps = follow_edit(engine, edit_id)
    assert [next(steps).status.paused for _ in range(2)] == ["locked: no"] * 2
