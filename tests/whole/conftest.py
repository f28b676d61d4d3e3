"""The whole system, as a user would start it, with shrunk clocks; one per file, because a start takes seconds."""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from benchmarks.audit import Audit, audit
from benchmarks.chaos import wait_until_finished
from benchmarks.system import System
from intake.batches import BatchHeader, create
from intake.manifest import read_jsonl

IMAGE = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"

Start = Callable[..., System]


@pytest.fixture(scope="module")
def start(clean_environment: None) -> Iterator[Start]:
    """Start a system with these faults and settings; stopped at the end of the file.

    Not in pytest's own folder, which other runs lock again for the user that PostgreSQL runs as under root.
    """
    systems: list[System] = []
    folders: list[tempfile.TemporaryDirectory[str]] = []

    def begin(faults: Mapping[str, float] | None = None, **variables: str) -> System:
        folders.append(tempfile.TemporaryDirectory(prefix="darkroom-whole-"))
        system = System(Path(folders[-1].name), faults=faults, variables=variables)
        systems.append(system)
        system.start()
        return system

    yield begin
    for system in systems:
        system.stop()
    for folder in folders:
        folder.cleanup()


def hand_in(system: System, edits: int, prompt: str = "edit", notify_url: str | None = None) -> None:
    """One batch of so many edits."""
    lines = [
        json.dumps({"prompt": f"{prompt} {n}", "image_urls": [IMAGE], "image_size": {"width": 960, "height": 960}})
        for n in range(edits)
    ]
    with system.engine.begin() as connection:
        create(connection, BatchHeader(notify_url=notify_url), read_jsonl(BytesIO("\n".join(lines).encode())))


def finish(system: System, timeout: float = 180.0, states: Set[str] = frozenset({"stored"})) -> Audit:
    """Wait for the end of every batch, in these states, and compare the books: nothing lost, doubled or wrong."""
    settled = wait_until_finished(system.engine, timeout)
    found = audit(system, kills=Counter(), seconds=0, settled=settled)
    assert found.clean, str(found.as_dict())
    assert set(found.edits) == states, str(found.as_dict())
    return found


def count(system: System, query: str) -> int:
    """The one number that a query answers."""
    with system.engine.connect() as connection:
        return int(connection.exec_driver_sql(query).scalar_one())


def heard_too_late(system: System) -> int:
    """Requests that darkroom first heard of when their submission was about to be given up."""
    return count(
        system,
        f"""
        SELECT count(*) FROM submissions WHERE request_id IS NOT NULL
        AND accepted_at - posted_at >= {system.unknown_deadline} * interval '1 s'
        """,
    )


@contextmanager
def suspended(system: System, *parts: str) -> Iterator[None]:
    """Stop every process of these parts where it is, and let it go on at the end."""
    processes = [process for name, process in system.processes() if name in parts]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def wait_for(what: Callable[[], object], missing: str, timeout: float = 60.0) -> None:
    """Return once it is so; `missing` says what never came."""
    deadline = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < deadline, missing
        time.sleep(0.02)


def half_way(system: System) -> None:
    """Return in the middle of the work: something is stored, something is not."""
    query = """
        SELECT bool_or(e.state = 'stored') FROM edits e JOIN batches b ON b.id = e.batch_id
        WHERE b.finished_at IS NULL
    """

    def begun() -> bool:
        try:
            with system.engine.connect() as connection:
                return bool(connection.exec_driver_sql(query).scalar())
        except OperationalError:  # PostgreSQL is among those that are killed
            return False

    wait_for(begun, "nothing is stored", 120)
