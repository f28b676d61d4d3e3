"""The views of the system: what they say is what a count says, and what is late is shown while what waits is not."""

from collections.abc import Callable

import pytest
from alembic import command
from sqlalchemy import Connection, Engine

from cli.migrate import _config, upgrade
from models.claims import claim_images
from models.fold_counters import fold_counters
from models.heartbeats import CLOCK, note_heartbeat
from models.moments import BUCKETS, STEPS
from models.past_counters import move_past
from models.pauses import pause_lane
from models.provider import pause
from models.queries.batches import PAUSE_BATCH
from models.queries.health import OVERDUE_BY_STATE
from models.queries.metrics import METRICS
from models.record_reports import record_reports
from models.transitions import StoredImage, record_stored, retry_failed, settle_batches
from models.verdict import Retry
from models.views.work import LANES
from tests.support.factories import (
    POLICY,
    accept,
    answer,
    claim,
    failure,
    fall_due,
    keep_callback,
    make_batch,
    make_submitted,
    request_id,
    success,
    unbalanced,
)
from worker import lanes

COUNTED_BY_MINUTE = """
SELECT (SELECT count(*) FROM edits), (SELECT count(*) FROM submissions),
       (SELECT count(*) FROM submissions WHERE accepted_at IS NOT NULL),
       (SELECT count(*) FROM submissions WHERE learned_by = 'callback'),
       (SELECT count(*) FROM edits WHERE state = 'stored'), (SELECT count(*) FROM edits WHERE state = 'failed'),
       (SELECT count(*) FROM images WHERE state = 'stored'),
       (SELECT sum(stored_bytes) FROM images WHERE state = 'stored')
"""
KEPT_BY_MINUTE = "SELECT created, submitted, accepted, called_back, stored, failed, images_stored, bytes_stored"


def store_all(connection: Connection) -> None:
    due = claim_images(connection, limit=100, lease=60)
    record_stored(connection, [StoredImage(i.id, f"{i.name}.png", "ab", 1000, "image/png", 1, 1) for i in due])


def run_batch(engine: Engine, edits: int = 9) -> None:
    """A batch of which every third edit fails, each step in a transaction of its own."""
    with engine.begin() as connection:
        make_batch(connection, edits)
    with engine.begin() as connection:
        submissions = claim(connection)
    with engine.begin() as connection:
        accept(connection, submissions)
    with engine.begin() as connection:
        bad = failure("content_policy_violation", Retry.NEVER)
        record_reports(connection, [answer(s, success() if n % 3 else bad) for n, s in enumerate(submissions)], POLICY)
        keep_callback(connection, str(submissions[0].id), request_id(submissions[0]))
    with engine.begin() as connection:
        store_all(connection)
    with engine.begin() as connection:
        settle_batches(connection)


def test_what_happened_is_counted_once(engine: Engine) -> None:
    """By minute and since ever, as a plain count says; a retry takes nothing back, its end counts again."""
    run_batch(engine)
    with engine.connect() as connection:
        kept = tuple(connection.exec_driver_sql(f"{KEPT_BY_MINUTE} FROM event_totals").one())
        assert kept == tuple(connection.exec_driver_sql(COUNTED_BY_MINUTE).one())
        assert kept == (9, 9, 9, 9, 6, 3, 6, 6000)
        by_minute = connection.exec_driver_sql("SELECT sum(stored), sum(failed) FROM throughput").one()
        assert tuple(by_minute) == (6, 3)
    with engine.begin() as connection:
        retry_failed(connection, connection.exec_driver_sql("SELECT id FROM batches").scalar_one())
        assert connection.exec_driver_sql("SELECT failed FROM event_totals").scalar_one() == 3
        assert unbalanced(connection) == []


def test_latency_is_that_of_the_rows(engine: Engine) -> None:
    """Every step has its events, and the mean and the buckets are those of the rows."""
    run_batch(engine)
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT step, events FROM latency").all()
        assert dict(tuple(row) for row in rows) == {
            "submitted": 9, "replied": 9, "accepted": 9, "called_back": 9, "stored": 6, "whole": 6,
        }  # fmt: skip
        assert {row.step for row in rows} < set(STEPS)
        counted = connection.exec_driver_sql(
            "SELECT sum(extract(epoch FROM finished_at - created_at)) FROM edits WHERE state = 'stored'"
        ).scalar_one()
        seconds = connection.exec_driver_sql("SELECT DISTINCT seconds FROM latency_histogram WHERE step = 'whole'")
        assert seconds.scalar_one() == pytest.approx(float(counted))


def test_percentiles_lie_in_their_buckets(engine: Engine) -> None:
    """Of a hundred events, 90 took up to a second, 8 up to ten, and two longer than an hour."""
    upto = {name: 0 if bound < 1 else 90 if bound < 10 else 98 for name, bound in BUCKETS.items()}
    columns, values = ", ".join(upto), ", ".join(map(str, upto.values()))
    insert = f"INSERT INTO latency_counters (hour, step, events, seconds, {columns})"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"{insert} VALUES (date_trunc('hour', now(), 'UTC'), 'whole', 100, 500, {values})")
        row = connection.exec_driver_sql("SELECT mean, p50, p95, p99 FROM latency").one()
        assert [float(value) for value in row] == [5, 0.778, 8.125, 3600]


def test_a_bucket_holds_what_took_its_bound(engine: Engine) -> None:
    """A second is within a second, and a little more is not; what took longer than all bounds is in no bucket."""
    with engine.begin() as connection:
        submissions = make_submitted(connection, 4)
        for place, took in enumerate(("0 s", "1 s", "1.001 s", "4000 s")):
            connection.exec_driver_sql(
                f"UPDATE edits SET created_at = now() - interval '{took}' WHERE position = {place}"
            )
        record_reports(connection, [answer(s, success()) for s in submissions], POLICY)
        store_all(connection)
        rows = connection.exec_driver_sql("SELECT le, events, all_events FROM latency_histogram WHERE step = 'whole'")
        assert {float(row.le): int(row.events) for row in rows} == {
            bound: 1 if bound < 1 else 2 if bound == 1 else 3 for bound in BUCKETS.values()
        }


def past_rows(connection: Connection) -> list[int]:
    tables = ("past_minutes", "past_latencies", "past_days", "past_callbacks")
    return [connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one() for table in tables]


def shift(connection: Connection, days: int) -> None:
    """Make all that happened so far happen some days earlier."""
    for table, time in (("minute", "minute"), ("latency", "hour"), ("callback", "hour")):
        connection.exec_driver_sql(
            f"UPDATE {table}_counters SET {time} = {time} - interval '{days} days' WHERE {time} > '-infinity'"
        )
    connection.exec_driver_sql(f"UPDATE day_counters SET day = day - {days} WHERE day > '-infinity'")


SAME_ANYWHERE = {
    "event_totals": "SELECT * FROM event_totals",
    "latency_histogram": "SELECT * FROM latency_histogram ORDER BY step, le",
    "client_costs": "SELECT * FROM client_costs",
    "throughput": "SELECT * FROM throughput ORDER BY minute",
    "latency": "SELECT * FROM latency ORDER BY hour, step",
    "cost_ledger": "SELECT * FROM cost_ledger ORDER BY day",
    "storage_usage": "SELECT * FROM storage_usage ORDER BY day",
    "callback_ledger": "SELECT * FROM callback_ledger ORDER BY hour, effect",
    "metrics": METRICS["callbacks"],
}


def test_what_is_over_is_moved_and_no_view_tells(engine: Engine) -> None:
    """Times that are over leave the counters that are added up, once each; every view says what it said."""
    run_batch(engine)
    with engine.begin() as connection:
        assert move_past(connection) is False
        assert past_rows(connection) == [0, 0, 0, 0]  # of what goes on nothing
        shift(connection, 10)
        before = {name: connection.exec_driver_sql(query).all() for name, query in SAME_ANYWHERE.items()}
        assert all(before.values())
    for _ in range(2):
        with engine.begin() as connection:
            move_past(connection)
            after = {name: connection.exec_driver_sql(query).all() for name, query in SAME_ANYWHERE.items()}
            assert after == before
            assert all(past_rows(connection))
            kept = "SELECT count(*) FROM {table}_counters WHERE {time} > '-infinity'"
            for table, time in (("minute", "minute"), ("latency", "hour"), ("day", "day"), ("callback", "hour")):
                assert connection.exec_driver_sql(kept.format(table=table, time=time)).scalar_one() == 0
            assert connection.exec_driver_sql("SELECT count(*) FROM minute_counters").scalar_one() == 1


def test_a_late_change_of_a_day_that_is_over_is_counted(engine: Engine) -> None:
    """An edit of last week is retried: what it wasted is taken off last week, moved or not."""
    run_batch(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE submissions SET cost = 0.5 WHERE outcome = 'succeeded'")
        connection.exec_driver_sql("UPDATE submissions SET completed_at = completed_at - interval '7 days'")
        connection.exec_driver_sql("UPDATE images SET stored_at = stored_at - interval '7 days'")
        move_past(connection)
        assert unbalanced(connection) == []
        connection.exec_driver_sql("UPDATE submissions SET cost = 1 WHERE outcome = 'succeeded'")
        for _ in range(2):
            assert unbalanced(connection) == []
            paid = connection.exec_driver_sql("SELECT paid FROM client_costs").scalar_one()
            assert paid == connection.exec_driver_sql("SELECT sum(paid) FROM cost_ledger").scalar_one() == 6
            move_past(connection)
        ago = "SELECT current_date - day FROM day_counters WHERE day > '-infinity'"
        assert connection.exec_driver_sql(ago).scalars().all() == [0]


def test_what_is_held_is_moved_later(engine: Engine) -> None:
    """A row that a transaction adds to is left to it, without a wait, and moved with what was added."""
    with engine.begin() as connection:
        make_batch(connection, 1)
        shift(connection, 10)
    with engine.connect() as writer, engine.connect() as mover:
        writer.exec_driver_sql("UPDATE minute_counters SET created = created + 1")
        move_past(mover)
        mover.commit()
        assert past_rows(mover)[0] == 0
        writer.commit()
        move_past(mover)
        assert past_rows(mover)[0] == 1
        assert mover.exec_driver_sql("SELECT created FROM event_totals").scalar_one() == 2
        assert mover.exec_driver_sql("SELECT created FROM throughput").scalar_one() == 2


def late(connection: Connection) -> list[tuple]:
    return [tuple(row)[:3] for row in connection.exec_driver_sql(OVERDUE_BY_STATE)]


def make_late(connection: Connection, edits: int = 3, **header: object) -> object:
    """A batch whose edits have been due for an hour, and nothing was submitted since."""
    batch = make_batch(connection, edits, **header)
    connection.exec_driver_sql("UPDATE edits SET due_at = now() - interval '1 h' WHERE state = 'pending'")
    connection.exec_driver_sql("UPDATE minute_counters SET minute = minute - interval '1 h'")
    return batch


def test_a_dead_submit_lane_shows(engine: Engine) -> None:
    """One row for each batch, whatever its size, with the number of edits that wait."""
    with engine.begin() as connection:
        make_late(connection, 3)
        make_late(connection, 2)
        assert late(connection) == [("edit", "pending", 5)]
        assert connection.exec_driver_sql("SELECT count(*) FROM overdue").scalar_one() == 2


def full_account(connection: Connection) -> None:
    claim(connection, limit=1)
    note_heartbeat(connection, "submit", places=1)
    connection.exec_driver_sql("UPDATE minute_counters SET minute = minute - interval '1 h'")


def full_batch(connection: Connection) -> None:
    claim(connection, limit=1)
    connection.exec_driver_sql("UPDATE minute_counters SET minute = minute - interval '1 h'")
    connection.exec_driver_sql("UPDATE batches SET max_in_flight = 1")


def ceiling_of_cost(connection: Connection) -> None:
    full_batch(connection)
    connection.exec_driver_sql("UPDATE batches SET max_in_flight = NULL, max_cost = 0.04")


HELD_BACK: dict[str, Callable[[Connection], object]] = {
    "batch paused": lambda c: c.exec_driver_sql(
        PAUSE_BATCH, (c.exec_driver_sql("SELECT id FROM batches").scalar_one(),)
    ),
    "batch cancelled": lambda c: c.exec_driver_sql("UPDATE batches SET cancelled_at = now()"),
    "past its deadline": lambda c: c.exec_driver_sql("UPDATE batches SET deadline = now()"),
    "account paused": lambda c: pause(c, "locked", "no", retry_after=60),
    "model down": lambda c: [
        pause_lane(c, "submit", endpoint, reason="model_down", message="no", retry_after=60)
        for endpoint in c.exec_driver_sql("SELECT endpoint FROM batches").scalars().all()
    ],
    "account's window full": full_account,
    "batch's window full": full_batch,
    "ceiling of cost": ceiling_of_cost,
    "others are submitted": lambda c: c.exec_driver_sql("UPDATE minute_counters SET minute = now(), submitted = 1"),
}


@pytest.mark.parametrize("held_back", HELD_BACK)
def test_what_is_held_back_is_not_late(engine: Engine, held_back: str) -> None:
    """A pending edit that nobody may submit now waits, and that is no fault of any lane."""
    with engine.begin() as connection:
        make_late(connection, 3)
        assert late(connection) == [("edit", "pending", 3)]
        HELD_BACK[held_back](connection)
        assert [row for row in late(connection) if row[1] == "pending"] == []


def test_time_left_follows_the_rate(engine: Engine) -> None:
    """Ten of thirty ended within ten seconds: the rest takes twenty; unknown before, while paused, and afterwards."""
    left = "SELECT extract(epoch FROM time_left)::float8 FROM batch_progress"
    with engine.begin() as connection:
        submissions = make_submitted(connection, 30)
        assert connection.exec_driver_sql(left).scalar_one() is None
        record_reports(connection, [answer(s, success()) for s in submissions[:10]], POLICY)
        store_all(connection)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE batch_counters SET first_stored_at = now() - interval '10 s'")
        assert connection.exec_driver_sql(left).scalar_one() == pytest.approx(20, abs=2)
        # no more ends for long
        connection.exec_driver_sql("UPDATE batch_counters SET ended_at = ended_at - interval '1 h'")
        assert connection.exec_driver_sql(left).scalar_one() is None


def test_counters_of_a_finished_batch_are_one_row(engine: Engine) -> None:
    """And the accounts look at them again once something changes; a batch that does not add up is not folded."""
    rows = "SELECT count(*), bool_and(folded) FROM batch_counters"
    with engine.begin() as connection:
        make_batch(connection, 2)
        submissions = claim(connection)
    with engine.connect() as one, engine.connect() as other:
        accept(one, submissions[:1])
        accept(other, submissions[1:])
        one.commit()
        other.commit()
    with engine.begin() as connection:
        assert connection.exec_driver_sql(rows).one()[0] == 2
        record_reports(connection, [answer(s, failure("bad", Retry.NEVER)) for s in submissions], POLICY)
        (batch,) = settle_batches(connection)
        assert tuple(connection.exec_driver_sql(rows).one()) == (1, True)
        assert unbalanced(connection) == []
        retry_failed(connection, batch)
        assert tuple(connection.exec_driver_sql(rows).one()) == (1, False)
        assert unbalanced(connection) == []
        connection.exec_driver_sql("UPDATE batches SET finished_at = now()")
        fold_counters(connection, [batch])
        assert tuple(connection.exec_driver_sql(rows).one()) == (1, False)
        wrong = connection.exec_driver_sql("SELECT identity FROM accounting WHERE difference <> 0").scalars().all()
        assert wrong == ["finished batches with an edit that is not final"]


def test_lanes_and_their_signs_of_life(engine: Engine) -> None:
    """Each lane of the workers has its row: what is due, when it last took a turn and did something, and the tick."""
    with engine.begin() as connection:
        assert set(LANES) == set(lanes.LANES)
        make_submitted(connection, 2)
        make_batch(connection, 3)
        fall_due(connection)
        note_heartbeat(connection, CLOCK)
        note_heartbeat(connection, "submit", worked=True, places=40)
        found = {row.lane: row for row in connection.exec_driver_sql("SELECT * FROM lane_status")}
        due = [(lane, found[lane].due) for lane in ("submit", "poll", "download", "settle", "notify")]
        assert due == [("submit", 3), ("poll", 2), ("download", 0), ("settle", 0), ("notify", 0)]
        assert found["submit"].last_work_at == found["submit"].last_turn_at == found["poll"].last_tick_at
        assert found["poll"].last_turn_at is None
    with engine.begin() as connection:
        note_heartbeat(connection, "submit")  # too soon to be written
        turn = connection.exec_driver_sql("SELECT at, worked_at, places FROM heartbeats WHERE name = 'submit'").one()
        assert tuple(turn) == (found["submit"].last_turn_at, found["submit"].last_work_at, 40)


def test_money_and_storage_outlive_their_rows(engine: Engine) -> None:
    """By day and client: they stay what they were when an old batch is pruned."""
    run_batch(engine)
    with engine.begin() as connection:
        costs = connection.exec_driver_sql("SELECT client, paid, reserved, wasted FROM client_costs").all()
        assert [tuple(map(str, row)) for row in costs] == [("local", "0.18", "0.00", "0")]
        connection.exec_driver_sql("DELETE FROM batches")
        assert connection.exec_driver_sql("SELECT client, paid, reserved, wasted FROM client_costs").all() == costs
        assert connection.exec_driver_sql("SELECT sum(images), sum(bytes) FROM storage_usage").one() == (6, 6000)


def test_a_database_of_the_release_before_is_counted(engine: Engine, database_url: str) -> None:
    """Money, storage and deliveries are counted from the rows, and finished batches folded, when a database is
    migrated."""
    run_batch(engine)
    with engine.begin() as connection:
        make_submitted(connection, 3)
        money = connection.exec_driver_sql("SELECT * FROM cost_ledger").all()
    command.downgrade(_config(database_url), "0007")
    upgrade(database_url)
    with engine.connect() as connection:
        assert unbalanced(connection) == []
        assert connection.exec_driver_sql("SELECT * FROM cost_ledger").all() == money
        assert connection.exec_driver_sql("SELECT sum(images) FROM storage_usage").scalar_one() == 6
        assert connection.exec_driver_sql("SELECT sum(deliveries) FROM callback_ledger").scalar_one() == 1
        folded = connection.exec_driver_sql("SELECT count(*) FROM batch_counters WHERE folded").scalar_one()
        assert (
            folded
            == connection.exec_driver_sql("SELECT count(*) FROM batches WHERE finished_at > '-infinity'").scalar_one()
            == 1
        )
