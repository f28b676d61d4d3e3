"""What is due, in which order, within which window."""

import threading

from sqlalchemy import Connection, Engine

from models.claims import claim_edits, claim_images, claim_polls
from models.provider import pause, resume
from models.record_reports import record_reports
from models.transitions import revert_unsent, start_submissions
from tests.support.factories import (
    POLICY,
    PRICE,
    UNKNOWN_DEADLINE,
    accept,
    answer,
    claim,
    fall_due,
    make_batch,
    make_submitted,
    states,
    success,
)
from tests.support.locks import wait_for_a_lock
from worker.beat_scheduler import lanes_due


def batch_of(connection: Connection, edit_ids: list[int]) -> list[object]:
    rows = connection.exec_driver_sql("SELECT id, batch_id FROM edits WHERE id = ANY(%s)", (edit_ids,))
    owners = {row[0]: row[1] for row in rows}
    return [owners[edit_id] for edit_id in edit_ids]


def due(connection: Connection, limit: int = 100, window: int = 100) -> list[int]:
    return claim_edits(connection, limit=limit, window=window, probe_after=60, price=PRICE)


def positions(connection: Connection, edit_ids: list[int]) -> list[int]:
    """Where these edits stand in their batch."""
    found = {row.id: row.position for row in connection.exec_driver_sql("SELECT id, position FROM edits")}
    return [found[edit_id] for edit_id in edit_ids]


def test_edits_go_in_their_order(engine: Engine) -> None:
    """One batch is submitted in the order of its manifest, a limited number at a time."""
    with engine.begin() as connection:
        make_batch(connection, 5)
        assert sorted(positions(connection, due(connection, limit=3))) == [0, 1, 2]


def test_small_batch_does_not_wait_behind_a_large_one(engine: Engine) -> None:
    """Free places go round-robin over the batches, counting what each has in flight already."""
    with engine.begin() as connection:
        make_batch(connection, 50)
        claim(connection, limit=10)
        small = make_batch(connection, 4)
        owners = batch_of(connection, due(connection, limit=6))
        assert owners[:4] == [small] * 4


def test_priority_goes_first(engine: Engine) -> None:
    """A more urgent batch takes every free place before the others."""
    with engine.begin() as connection:
        make_batch(connection, 10)
        urgent = make_batch(connection, 10, priority=5)
        assert batch_of(connection, due(connection, limit=8)) == [urgent] * 8


def test_windows_hold(engine: Engine) -> None:
    """Never more in flight than the account's window, nor than the batch's own."""
    with engine.begin() as connection:
        make_batch(connection, 10, max_in_flight=2)
        make_batch(connection, 10)
        assert len(claim(connection, window=5)) == 5
        assert claim(connection, window=5) == []
        rows = connection.exec_driver_sql(
            "SELECT count(*) FROM edits WHERE state = 'submitting' GROUP BY batch_id ORDER BY 1"
        ).all()
        assert [row[0] for row in rows] == [2, 3]
        assert len(claim(connection, window=7)) == 2


def test_window_is_exact_among_many_claimers(engine: Engine) -> None:
    """Five who claim at once take turns: together they fill the window and never exceed it."""
    with engine.begin() as connection:
        make_batch(connection, 100)

    def take() -> None:
        for _ in range(5):
            with engine.begin() as connection:
                claim(connection, limit=7, window=40)

    threads = [threading.Thread(target=take) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with engine.begin() as connection:
        assert states(connection) == {"submitting": 40, "pending": 60}


def test_claimers_take_turns(engine: Engine) -> None:
    """Who has chosen edits but not yet written them down is waited for: an urgent batch cannot burst the window."""
    with engine.begin() as connection:
        make_batch(connection, 5)
    with engine.begin() as first:
        chosen = claim_edits(first, limit=5, window=5, probe_after=60, price=PRICE)
        with engine.begin() as connection:
            make_batch(connection, 5, priority=1)

        def take() -> None:
            with engine.begin() as second:
                claim(second, window=5)

        thread = threading.Thread(target=take)
        thread.start()
        wait_for_a_lock(engine, thread)
        start_submissions(first, chosen, unknown_deadline=60, price=PRICE)
    thread.join()
    with engine.begin() as connection:
        assert states(connection) == {"submitting": 5, "pending": 5}


def test_paused_batches_and_wishes_to_cancel_are_left_alone(engine: Engine) -> None:
    """Nothing of a paused or cancelled batch is claimed, nor an edit whose cancel was wished."""
    with engine.begin() as connection:
        paused, cancelled, other = (make_batch(connection, 2) for _ in range(3))
        connection.exec_driver_sql("UPDATE batches SET paused_at = now() WHERE id = %s", (paused,))
        connection.exec_driver_sql("UPDATE batches SET cancelled_at = now() WHERE id = %s", (cancelled,))
        connection.exec_driver_sql(
            "UPDATE edits SET cancel_requested_at = now() WHERE batch_id = %s AND position = 0", (other,)
        )
        assert batch_of(connection, due(connection)) == [other]


def test_paused_account_lets_single_probes_through(engine: Engine) -> None:
    """While the account is paused nothing is claimed; when the time has come one edit, then none until the next."""
    with engine.begin() as connection:
        make_batch(connection, 5)
        pause(connection, "locked", "User is locked", retry_after=60)
        assert due(connection) == []
        assert not lanes_due(connection)["submit"]
        connection.exec_driver_sql("UPDATE provider_status SET retry_at = now()")
        assert len(due(connection)) == 1
        assert due(connection) == []
        assert connection.exec_driver_sql("SELECT retry_at - now() FROM provider_status").scalar().total_seconds() > 60
        resume(connection)
        assert len(due(connection)) == 5


def test_retry_delay_holds_an_edit_back(engine: Engine) -> None:
    """A pending edit whose time has not come is passed over, those after it are not."""
    with engine.begin() as connection:
        make_batch(connection, 3)
        first = claim(connection, limit=1)
        revert_unsent(connection, [submission.id for submission in first], reason="unreachable", delay=60)
        assert first[0].edit_id not in due(connection)
        assert len(due(connection)) == 2


def test_claimed_work_is_leased(engine: Engine) -> None:
    """Polls and images are claimed by one worker at a time, and fall due again if it dies."""
    with engine.begin() as connection:
        first, second = make_submitted(connection, 2)
        record_reports(connection, [answer(first, success(3))], POLICY)
        fall_due(connection)
    with engine.begin() as one, engine.begin() as other:
        assert [poll.id for poll in claim_polls(one, limit=10, lease=60)] == [second.id]
        assert claim_polls(other, limit=10, lease=60) == []
        assert len(claim_images(one, limit=2, lease=60)) == 2
        assert len(claim_images(other, limit=10, lease=60)) == 1
    with engine.begin() as connection:
        assert claim_images(connection, limit=10, lease=60) == []
        fall_due(connection)
        again = claim_images(connection, limit=10, lease=60)
        assert [image.attempt for image in again] == [2, 2, 2]


def test_lanes_due(engine: Engine) -> None:
    """The tick sees exactly the lanes that have work now."""
    with engine.begin() as connection:
        assert {lane for lane, due in lanes_due(connection).items() if due} == set()
        make_batch(connection)
        assert {lane for lane, due in lanes_due(connection).items() if due} == {"submit", "settle"}
        (submission,) = claim(connection)
        accept(connection, [submission])
        assert {lane for lane, due in lanes_due(connection).items() if due} == {"settle"}
        fall_due(connection)
        assert {lane for lane, due in lanes_due(connection).items() if due} == {"poll", "settle"}
        record_reports(connection, [answer(submission, success())], POLICY)
        assert {lane for lane, due in lanes_due(connection).items() if due} == {"download", "settle"}


def test_a_new_submission_is_due_at_its_unknown_deadline(engine: Engine) -> None:
    """A submission is written down with its unknown deadline before anything is sent."""
    with engine.begin() as connection:
        make_batch(connection)
        claim(connection)
        left = connection.exec_driver_sql("SELECT due_at - now() FROM submissions").scalar()
        assert left.total_seconds() == UNKNOWN_DEADLINE
