"""Batches larger than one statement may be: moved in chunks, and no other batch waits or fails for them."""

from collections.abc import Callable
from decimal import Decimal
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, event

import models.transitions.batch_actions
import models.transitions.finish_batches
import worker.lanes.settle
from intake import batch_actions
from models.claims import claim_polls
from models.record_reports import record_reports
from models.verdict import Kind, Retry, Verdict
from provider.price_client import Pricing
from tests.support.factories import POLICY, accept, answer, claim, failure, make_batch, states, success, unbalanced
from worker.beat_scheduler import lanes_due
from worker.dependencies import Dependencies
from worker.lanes.settle import settle_due
from worker.settings import WorkerSettings

EDITS_PER_STATEMENT = 4


@pytest.fixture(autouse=True)
def chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is large from five edits on."""
    for module in (models.transitions.batch_actions, worker.lanes.settle):
        monkeypatch.setattr(module, "EDITS_PER_STATEMENT", EDITS_PER_STATEMENT)
    monkeypatch.setattr(worker.lanes.settle, "LEAST_ROUNDS", 1)


@pytest.fixture
def settings(database_url: str) -> WorkerSettings:
    return WorkerSettings(database_url=database_url, redis_url="redis://127.0.0.1:1/0")


@pytest.fixture
def impatient(engine: Engine) -> Engine:
    """Whoever waits for a lock gives up soon."""

    @event.listens_for(engine, "connect")
    def _(driver: object, _: object) -> None:
        with driver.cursor() as cursor:  # type: ignore[attr-defined]
            cursor.execute("SET lock_timeout = '200ms'")
        driver.commit()  # type: ignore[attr-defined]

    return engine


def turns(number: int) -> Callable[[], bool]:
    """May go on so many times."""
    left = iter(range(number))
    return lambda: next(left, None) is not None


def finished(engine: Engine) -> set[UUID]:
    with engine.connect() as connection:
        return set(connection.exec_driver_sql("SELECT id FROM batches WHERE finished_at IS NOT NULL").scalars())


def count_states(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return states(connection)


def fail_all(connection: Connection, batch_edits: int, **header: object) -> UUID:
    batch_id = make_batch(connection, batch_edits, **header)
    submissions = claim(connection)
    accept(connection, submissions)
    verdict = failure("content_policy_violation", Retry.NEVER)
    record_reports(connection, [answer(submission, verdict) for submission in submissions], POLICY)
    return batch_id


def test_cancel_of_a_large_batch(engine: Engine, settings: WorkerSettings) -> None:
    """Answered at once with the number of edits concerned; nothing is submitted from then on; the rest follows, in
    chunks that may end anywhere; `finished_at` comes once all are final; the caller is told the truth."""
    with engine.begin() as connection:
        batch_id = make_batch(connection, 14, notify_url="https://example.com/hook")
        first, second = claim(connection, limit=2)
        accept(connection, [first, second])
        assert batch_actions.cancel(connection, batch_id) == 14
        assert batch_actions.cancel(connection, batch_id) == 0
    assert count_states(engine) == {"pending": 12, "submitted": 2}
    with engine.begin() as connection:
        assert claim(connection) == []
        assert not lanes_due(connection)["submit"]
        progress = connection.exec_driver_sql(
            "SELECT pending, cancelled, cancelled_at IS NULL FROM batch_progress"
        ).one()
        assert tuple(progress) == (12, 0, False)

    settle_due(engine, settings, turns(0))  # the turn is over before its chunks begin: one goes all the same
    assert count_states(engine) == {"pending": 8, "cancelled": 4, "submitted": 2}
    with engine.begin() as connection:
        assert [poll.cancel for poll in claim_polls(connection, limit=10, lease=0)] == [True, True]

    settle_due(engine, settings, turns(0))  # as after a kill: nothing is remembered but what stands in the database
    settle_due(engine, settings)
    assert count_states(engine) == {"cancelled": 12, "submitted": 2}
    assert settle_due(engine, settings) == 0
    with engine.begin() as connection:
        gone = Verdict(Kind.CANCELLED, error_type="client_cancelled", message="cancelled")
        record_reports(connection, [answer(first, gone), answer(second, gone)], POLICY)
    assert settle_due(engine, settings) == 1
    with engine.connect() as connection:
        event_, payload = connection.exec_driver_sql("SELECT event, payload -> 'data' FROM notifications").one()
        assert (event_, payload["edits"], payload["cancelled"]) == ("batch.cancelled", 14, 14)
        assert unbalanced(connection) == []


def test_each_turn_goes_on_where_the_last_one_stopped(
    engine: Engine, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each would read past all that is cancelled already, and a cancel of millions would never end."""
    begun: list[int] = []

    def cancel_chunk(connection: Connection, batch_id: UUID, *, after: int) -> int | None:
        begun.append(after)
        return models.transitions.batch_actions.cancel_chunk(connection, batch_id, after=after)

    monkeypatch.setattr(worker.lanes.settle, "cancel_chunk", cancel_chunk)
    with engine.begin() as connection:
        batch_actions.cancel(connection, make_batch(connection, 3 * EDITS_PER_STATEMENT))
    for _ in range(3):
        settle_due(engine, settings, turns(0))
    assert begun == [-1, EDITS_PER_STATEMENT - 1, 2 * EDITS_PER_STATEMENT - 1]
    assert count_states(engine) == {"cancelled": 3 * EDITS_PER_STATEMENT}


def test_a_turn_is_over_in_its_time_however_much_is_left(
    engine: Engine, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a cancel of millions is one turn of many minutes, in which no other batch is held to its limits or ends."""
    monkeypatch.setattr(worker.lanes.settle, "SLICE_SECONDS", 0.0)
    with engine.begin() as connection:
        batch_actions.cancel(connection, make_batch(connection, 3 * EDITS_PER_STATEMENT))
    dependencies = Dependencies()
    dependencies.engine, dependencies.pricing = engine, Pricing("http://127.0.0.1:9", "k:s")
    dependencies.settings = settings.model_copy(update={"price_per_image": Decimal("0.03")})
    lane = worker.lanes.settle.SettleLane(dependencies)
    lane.take_turn(lambda: True)
    assert count_states(engine) == {"pending": 2 * EDITS_PER_STATEMENT, "cancelled": EDITS_PER_STATEMENT}
    for _ in range(3):
        lane.take_turn(lambda: True)
    assert count_states(engine) == {"cancelled": 3 * EDITS_PER_STATEMENT}


def test_large_cancels_go_on_side_by_side(engine: Engine, settings: WorkerSettings) -> None:
    """A turn that is over after one round has done a chunk of each: none waits for the end of another."""
    with engine.begin() as connection:
        for batch_id in [make_batch(connection, 3 * EDITS_PER_STATEMENT) for _ in range(3)]:
            batch_actions.cancel(connection, batch_id)
    settle_due(engine, settings, turns(0))
    with engine.connect() as connection:
        cancelled = connection.exec_driver_sql("SELECT cancelled FROM batch_progress").scalars().all()
    assert list(cancelled) == [EDITS_PER_STATEMENT] * 3


def test_edit_that_comes_back_to_a_cancelled_batch_is_cancelled(engine: Engine, settings: WorkerSettings) -> None:
    """It failed transiently after the cancel and before its chunk: pending again, never submitted, then cancelled."""
    with engine.begin() as connection:
        batch_id = make_batch(connection, 6)
        [submission] = claim(connection, limit=1)
        accept(connection, [submission])
        batch_actions.cancel(connection, batch_id)
        record_reports(connection, [answer(submission, failure("generation_timeout"))], POLICY)
        assert states(connection) == {"pending": 6}
        connection.exec_driver_sql("UPDATE edits SET due_at = now()")
        assert claim(connection) == []
    settle_due(engine, settings)
    assert count_states(engine) == {"cancelled": 6}
    assert settle_due(engine, settings) == 1


def test_all_counts_that_a_caller_is_told(engine: Engine, settings: WorkerSettings) -> None:
    """Counted in pieces, the message says what the view says."""
    with engine.begin() as connection:
        make_batch(connection, 8, notify_url="https://example.com/hook")
        submissions = claim(connection, limit=7)
        accept(connection, submissions)
        bad = failure("content_policy_violation", Retry.NEVER)
        record_reports(connection, [answer(s, success(2)) for s in submissions[:5]], POLICY)
        record_reports(connection, [answer(s, bad) for s in submissions[5:]], POLICY)
        connection.exec_driver_sql(
            "UPDATE edits SET state = 'cancelled', due_at = NULL, finished_at = now() WHERE state = 'pending'"
        )
        connection.exec_driver_sql(
            "UPDATE images SET state = 'stored', due_at = NULL, storage_key = id, sha256 = id, stored_bytes = 1, "
            "stored_type = 'image/png', stored_at = now()"
        )
        connection.exec_driver_sql(
            "UPDATE edits SET state = 'stored', due_at = NULL, finished_at = now() WHERE state = 'ready'"
        )
    assert settle_due(engine, settings) == 1
    with engine.connect() as connection:
        names = ("edits", "stored", "failed", "cancelled", "images_stored", "cost")
        view = connection.exec_driver_sql(f"SELECT {', '.join(names)} FROM batch_progress").one()
        payload = connection.exec_driver_sql("SELECT payload -> 'data' FROM notifications").scalar_one()
    assert [float(payload[name]) for name in names] == [float(value) for value in view] == [8, 5, 2, 1, 10, 0.3]


def test_one_batch_in_trouble_keeps_no_other_from_its_end(impatient: Engine, settings: WorkerSettings) -> None:
    """Somebody holds an edit of a batch past its deadline: that one waits, all others are cancelled and finished."""
    engine = impatient
    with engine.begin() as connection:
        done = fail_all(connection, 2)
        held = make_batch(connection, 2)
        late = make_batch(connection, 2)
        connection.exec_driver_sql("UPDATE batches SET deadline = now() WHERE id = ANY(%s)", ([held, late],))
    with engine.connect() as other, other.begin():
        other.exec_driver_sql("SELECT FROM edits WHERE batch_id = %s FOR UPDATE", (held,))
        settle_due(engine, settings)
        assert finished(engine) == {done, late}
    settle_due(engine, settings)
    assert finished(engine) == {done, late, held}


def test_held_edit_stops_no_chunk(engine: Engine, settings: WorkerSettings) -> None:
    """Somebody holds one edit of a large cancelled batch: everything else is cancelled, that one at the next turn."""
    with engine.begin() as connection:
        batches = [make_batch(connection, 9), make_batch(connection, 9)]
        for batch_id in batches:
            assert batch_actions.cancel(connection, batch_id) == 9
    with engine.connect() as other, other.begin():
        other.exec_driver_sql("SELECT FROM edits WHERE batch_id = %s AND position = 5 FOR UPDATE", (batches[0],))
        settle_due(engine, settings)
    assert count_states(engine) == {"cancelled": 17, "pending": 1}
    settle_due(engine, settings)
    settle_due(engine, settings)
    assert finished(engine) == set(batches)


def test_held_edit_is_cancelled_by_a_later_turn(engine: Engine, settings: WorkerSettings) -> None:
    """Turns that go on where the last one stopped come back, at the end, for what was held behind them."""
    with engine.begin() as connection:
        batch_id = make_batch(connection, 3 * EDITS_PER_STATEMENT)
        batch_actions.cancel(connection, batch_id)
    with engine.connect() as other, other.begin():
        other.exec_driver_sql("SELECT FROM edits WHERE batch_id = %s AND position = 1 FOR UPDATE", (batch_id,))
        settle_due(engine, settings, turns(0))
    for _ in range(5):
        settle_due(engine, settings, turns(0))
    assert count_states(engine) == {"cancelled": 3 * EDITS_PER_STATEMENT}
    assert finished(engine) == {batch_id}


def test_large_cancel_that_fails_keeps_no_other_from_going_on(engine: Engine, settings: WorkerSettings) -> None:
    """A chunk of one breaks, for whatever reason; the chunks of the other go on to its end."""
    with engine.begin() as connection:
        broken, sound = make_batch(connection, 9), make_batch(connection, 9)
        for batch_id in (broken, sound):
            batch_actions.cancel(connection, batch_id)
        connection.exec_driver_sql(f"ALTER TABLE edits ADD CHECK (batch_id <> '{broken}' OR state = 'pending')")
    settle_due(engine, settings)
    assert settle_due(engine, settings) == 1
    assert finished(engine) == {sound}


def test_one_batch_that_cannot_be_judged_spoils_no_set(engine: Engine, settings: WorkerSettings) -> None:
    """A batch whose rows the criteria choke on; the one beside it in the set is held to its limit."""
    with engine.begin() as connection:
        odd = make_batch(connection, 1, max_cost=1)
        connection.exec_driver_sql(
            """UPDATE edits SET arguments = '{"num_images": "many"}' WHERE batch_id = %s""", (odd,)
        )
        late = make_batch(connection, 1)
        connection.exec_driver_sql("UPDATE batches SET deadline = now() WHERE id = %s", (late,))
    settle_due(engine, settings)
    settle_due(engine, settings)
    assert finished(engine) == {late}


def test_retry_of_a_large_batch(engine: Engine) -> None:
    """All failed edits of the types asked for, whatever chunk they are in, each once; the others stay."""
    with engine.begin() as connection:
        batch_id = fail_all(connection, 11)
        connection.exec_driver_sql(
            """UPDATE edits SET errors = '[{"type": "internal_error"}]' WHERE position IN (1, 2, 9)"""
        )
        assert batch_actions.retry(connection, batch_id, ["internal_error"]) == 3
        assert states(connection) == {"failed": 8, "pending": 3}
        assert batch_actions.retry(connection, batch_id) == 8
        assert states(connection) == {"pending": 11}
        assert batch_actions.retry(connection, batch_id) == 0
