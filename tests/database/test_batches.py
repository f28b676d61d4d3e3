"""A batch comes in whole or not at all, and once however often it is asked for."""

import json
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from time import monotonic, sleep
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import Engine

from core.errors import ManifestError
from intake import insert_edits
from intake.batches import BatchHeader, CreatedBatch, IdempotencyConflict, _content, create
from intake.manifest import FaultyLine, LineFault, ManifestFaults, NewEdit, read_jsonl
from models.seedream import ENDPOINT, faults
from tests.support.factories import make_batch

URL = "https://example.com/cat.png"
HASH_OF_RELEASES_BEFORE = "7332a9ff9d5d59f374d3245d21343fab29c0cb95927ca809602f8f67c7f8c17c"
"""Of a header that says nothing, and no edit yet."""
KEYED = BatchHeader(client="shop", idempotency_key="order-7")


def _line(**fields: object) -> dict[str, object]:
    return {"prompt": "Put a hat on the cat", "image_urls": [URL], **fields}


def _entries(*lines: dict[str, object]) -> Iterator[NewEdit | FaultyLine]:
    return read_jsonl(BytesIO(b"\n".join(json.dumps(line).encode() for line in lines)))


def _create(engine: Engine, header: BatchHeader, *lines: dict[str, object]) -> CreatedBatch:
    with engine.begin() as connection:
        return create(connection, header, _entries(*lines))


def _rows(engine: Engine, query: str) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row._mapping) for row in connection.exec_driver_sql(query)]


def _counts(engine: Engine) -> tuple[int, int]:
    [row] = _rows(engine, "SELECT (SELECT count(*) FROM batches) AS batches, (SELECT count(*) FROM edits) AS edits")
    return row["batches"], row["edits"]


def test_a_batch_and_its_edits_stand_as_given(engine: Engine) -> None:
    """Every header field is in its column, every edit pending, due, in the manifest's order, with its arguments."""
    header = BatchHeader.model_validate(
        {
            "name": "spring",
            "client": "shop",
            "priority": 5,
            "max_in_flight": 10,
            "max_attempts": 2,
            "max_cost": "12.50",
            "tolerated_failures": 0,
            "tolerated_failure_percent": 2.5,
            "deadline": "2031-01-01T12:00:00+02:00",
            "notify_url": "https://shop.example/done",
            "metadata": {"order": 7, "tags": ["größe", None, 0.5]},
        }
    )
    awkward = 'tab\t newline\n backslash\\ \\N \\. quote" 🎩 \\u0000'

    created = _create(engine, header, _line(custom_id="cat-1", seed=5), _line(prompt=awkward, image_size={"width": 99}))

    [batch] = _rows(engine, "SELECT *, deadline::text AS deadline_text FROM batches")
    given = header.model_dump(exclude={"deadline"})
    assert {name: batch[name] for name in given} == given
    assert batch["deadline"] == header.deadline
    assert (batch["id"], batch["edit_count"], batch["endpoint"]) == (created.batch_id, 2, ENDPOINT)
    assert (batch["paused_at"], batch["cancelled_at"], batch["finished_at"]) == (None, None, None)
    first, second = _rows(engine, "SELECT *, due_at <= now() AS due FROM edits ORDER BY position")
    assert (first["position"], first["custom_id"], first["seed"]) == (0, "cat-1", 5)
    assert (second["position"], second["custom_id"]) == (1, None)
    assert first["arguments"] == _line(seed=5)
    assert second["arguments"] == _line(prompt=awkward, image_size={"width": 99})
    for edit in (first, second):
        assert (edit["batch_id"], edit["state"], edit["due"], edit["attempt"]) == (created.batch_id, "pending", True, 0)


def test_the_seed_of_the_entry_is_the_seed_of_the_row(engine: Engine) -> None:
    """The seed that is announced before the POST is the one that the row keeps."""
    entries = list(_entries(_line(), _line()))
    with engine.begin() as connection:
        create(connection, BatchHeader(), entries)

    kept = [row["seed"] for row in _rows(engine, "SELECT seed FROM edits ORDER BY position")]
    assert kept == [entry.seed for entry in entries if isinstance(entry, NewEdit)]


def test_a_manifest_of_several_chunks_is_one_batch(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions go on from chunk to chunk, and no edit falls between two."""
    monkeypatch.setattr(insert_edits, "CHUNK_EDITS", 3)

    created = _create(engine, BatchHeader(), *[_line(custom_id=f"cat-{n}") for n in range(10)])

    rows = _rows(engine, "SELECT position, custom_id FROM edits ORDER BY position")
    assert [(row["position"], row["custom_id"]) for row in rows] == [(n, f"cat-{n}") for n in range(10)]
    assert created == CreatedBatch(created.batch_id, 10)


@pytest.mark.parametrize("faulty", [0, 5, 11])
def test_one_fault_and_nothing_is_written(engine: Engine, monkeypatch: pytest.MonkeyPatch, faulty: int) -> None:
    """Half a batch never runs, wherever the fault stands and even if the caller goes on and commits."""
    monkeypatch.setattr(insert_edits, "CHUNK_EDITS", 3)
    lines = [_line() for _ in range(12)]
    lines[faulty] = _line(seed="x")

    with engine.begin() as connection, pytest.raises(ManifestFaults) as caught:
        create(connection, BatchHeader(), _entries(*lines))

    assert str(caught.value) == f"line {faulty + 1}: seed: must be a whole number, not text"
    assert _counts(engine) == (0, 0)


def test_all_faults_of_a_manifest_come_at_once(engine: Engine) -> None:
    """After the first fault the rest is still read, so that a manifest is mended in one go."""
    lines = [_line(seed="x"), _line(custom_id="a"), _line(num_images=7, max_images=0), _line(custom_id="a")]

    with pytest.raises(ManifestFaults) as caught:
        _create(engine, BatchHeader(), *lines)

    assert [fault.line for fault in caught.value.faults] == [1, 3, 3, 4]


def test_a_manifest_of_faults_only_is_not_read_for_ever(engine: Engine) -> None:
    """A wrong file of a million lines answers soon, in bounded memory, and says that it stopped."""

    def endless() -> Iterator[FaultyLine]:
        line = 0
        while True:
            line += 1
            yield FaultyLine(line, None, {}, (LineFault(line, None, None, "is not JSON"),))

    with engine.begin() as connection, pytest.raises(ManifestFaults) as caught:
        create(connection, BatchHeader(), endless())

    assert len(caught.value.faults) == 1000
    assert str(caught.value).endswith("reading stopped after 1000 faults")


def test_an_empty_manifest_is_no_batch(engine: Engine) -> None:
    """A batch without edits would never finish."""
    with engine.begin() as connection, pytest.raises(ManifestError):
        create(connection, BatchHeader(), _entries())

    assert _counts(engine) == (0, 0)


def test_warnings_are_gathered_by_their_text(engine: Engine) -> None:
    """A thousand small sizes are one sentence with a count, not a thousand."""
    small = _line(image_size={"width": 512, "height": 512})

    created = _create(engine, BatchHeader(), _line(), small, small, _line(sync_mode=True), small)

    sizes, sync = created.warnings
    assert sizes.startswith("line 2 and 2 more: image_size: 512x512")
    assert sync.startswith("line 4: sync_mode")


def test_memory_does_not_grow_with_the_batch(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten chunks take no more memory at their peak than one."""
    monkeypatch.setattr(insert_edits, "CHUNK_CHARS", 2**20)

    def peak(count: int) -> int:
        entries = (NewEdit(n, None, _line(prompt="x" * 2000), n, 1, ()) for n in range(count))
        tracemalloc.start()
        try:
            with engine.begin() as connection:
                create(connection, BatchHeader(), entries)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)  # what is loaded once only

    assert peak(6_000) < 1.2 * peak(600)


# -- once, however often it is asked for ------------------------------------------------------------------------


def test_the_same_request_again_is_the_same_batch(engine: Engine) -> None:
    """A caller that lost our answer asks again and pays once; a seed that we drew does not make it another one."""
    first = _create(engine, KEYED, _line(custom_id="a"), _line())
    again = _create(engine, KEYED, _line(custom_id="a"), _line())

    assert again == CreatedBatch(first.batch_id, 2, existing=True)
    assert not first.existing
    assert _counts(engine) == (1, 2)


@pytest.mark.parametrize(
    ("header", "lines"),
    [
        (KEYED, [_line(), _line(seed=1)]),
        (KEYED, [_line()]),
        (KEYED, [_line(), _line(), _line()]),
        (KEYED, [_line(custom_id="a"), _line()]),
        (KEYED.model_copy(update={"priority": 1}), [_line(), _line()]),
    ],
    ids=["an argument", "an edit less", "an edit more", "a custom_id", "the header"],
)
def test_the_same_key_for_something_else_is_refused(
    engine: Engine, header: BatchHeader, lines: list[dict[str, object]]
) -> None:
    """A key used by mistake for another order neither runs it nor hides it behind the first."""
    _create(engine, KEYED, _line(), _line())

    with engine.begin() as connection, pytest.raises(IdempotencyConflict):
        create(connection, header, _entries(*lines))

    assert _counts(engine) == (1, 2)


def test_a_key_is_the_clients_own(engine: Engine) -> None:
    """Two clients may count their orders alike; without a key every request is a batch."""
    made = {
        _create(engine, header, _line()).batch_id
        for header in (KEYED, KEYED.model_copy(update={"client": "press"}), BatchHeader(), BatchHeader())
    }

    assert len(made) == 4


class _Paused:
    """Entries that wait in the middle until told to go on."""

    def __init__(self, *lines: dict[str, object]) -> None:
        self._lines = lines
        self.reached, self.should_continue = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[NewEdit | FaultyLine]:
        entries = _entries(*self._lines)
        yield next(entries)
        self.reached.set()
        assert self.should_continue.wait(60)
        yield from entries


def _until(condition: Callable[[], object]) -> None:
    deadline = monotonic() + 60
    while not condition():
        assert monotonic() < deadline
        sleep(0.01)


def _race(engine: Engine, first: _Paused, *second: dict[str, object]) -> tuple[Any, CreatedBatch]:
    """The second call starts while the first is half-way, and waits for it in the database."""

    def run_first() -> CreatedBatch:
        with engine.begin() as connection:
            return create(connection, KEYED, first)

    with ThreadPoolExecutor(2) as pool:
        ahead = pool.submit(run_first)
        assert first.reached.wait(60)
        behind = pool.submit(_create, engine, KEYED, *second)
        _until(lambda: _rows(engine, "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
        first.should_continue.set()
        return ahead.exception() or ahead.result(), behind.result()


def test_two_requests_at_once_make_one_batch(engine: Engine) -> None:
    """A caller that repeats itself before the first answer does not get two batches."""
    ahead, behind = _race(engine, _Paused(_line(), _line()), _line(), _line())

    assert (behind.batch_id, behind.existing) == (ahead.batch_id, True)
    assert _counts(engine) == (1, 2)


def test_a_request_that_failed_leaves_its_key_free(engine: Engine) -> None:
    """The mended manifest may come under the same key, even while the faulty one is still being read."""
    ahead, behind = _race(engine, _Paused(_line(), _line(seed="x")), _line(), _line())

    assert isinstance(ahead, ManifestFaults)
    assert not behind.existing
    assert _counts(engine) == (1, 2)


def test_a_request_does_not_wait_for_ever_for_its_twin(engine: Engine) -> None:
    """Where the first takes longer than a lock may be waited for, the second is told to come again."""
    first = _Paused(_line(), _line())

    def run_first() -> CreatedBatch:
        with engine.begin() as connection:
            return create(connection, KEYED, first)

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(run_first)
        assert first.reached.wait(60)
        with engine.begin() as connection:
            connection.exec_driver_sql("SET LOCAL lock_timeout = '50ms'")
            with pytest.raises(IdempotencyConflict, match="being created"):
                create(connection, KEYED, _entries(_line(), _line()))
        first.should_continue.set()
        assert ahead.result().edits == 2


# -- the header -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"priority": 40_000}, "priority"),
        ({"priority": "high"}, "priority"),
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"max_attempts": 2**31}, "max_attempts"),
        ({"max_cost": "-1"}, "max_cost"),
        ({"max_cost": "NaN"}, "max_cost"),
        ({"tolerated_failure_percent": 101}, "tolerated_failure_percent"),
        ({"deadline": "2031-01-01T12:00:00"}, "deadline"),
        ({"notify_url": "ftp://shop.example"}, "notify_url"),
        ({"name": "a\0b"}, "name"),
        ({"idempotency_key": ""}, "idempotency_key"),
        ({"idempotency_key": "x" * 256}, "idempotency_key"),
        ({"metadata": {"a": ["\0"]}}, "metadata"),
        ({"metadata": {"\ud800": 1}}, "metadata"),
        ({"metadata": {"a": float("nan")}}, "metadata"),
        ({"max_inflight": 3}, "max_inflight"),
    ],
)
def test_a_header_that_the_database_cannot_hold_is_told_plainly(fields: dict[str, object], field: str) -> None:
    """What would be a database error, or silently another batch, is one sentence that names the field."""
    with pytest.raises(ValidationError) as caught:
        BatchHeader.model_validate(fields)

    [fault] = faults(caught.value, names=BatchHeader.model_fields)
    assert fault.field == field
    assert "Input should" not in fault.reason


def test_large_batch_is_known_to_the_planner_at_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims from it are not planned as if it were not there; a small one is not worth the work."""
    monkeypatch.setattr(insert_edits, "ANALYZED_FROM", 300)
    known = "SELECT reltuples FROM pg_class WHERE relname = 'edits'"
    with engine.begin() as connection:
        make_batch(connection, 100)
        assert connection.exec_driver_sql(known).scalar_one() == -1
        make_batch(connection, 300)
        assert connection.exec_driver_sql(known).scalar_one() == 400


def test_a_field_that_is_new_changes_no_content() -> None:
    """A batch that is handed in again after an upgrade is the same content: its key is no conflict."""
    assert _content(KEYED).sha256() == HASH_OF_RELEASES_BEFORE
    for header in (BatchHeader(output_expires_after=60), BatchHeader(check_inputs="all")):
        assert _content(header).sha256() != HASH_OF_RELEASES_BEFORE
