"""What a caller may do with a batch that is there, each against what the lanes do meanwhile."""

import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine

from core.errors import Conflict, NotFound
from intake import batch_actions
from intake.batches import BatchHeader, IdempotencyConflict, create, estimate
from intake.manifest import Entry, ManifestFaults, read_objects
from models.claims import claim_images, claim_polls
from models.record_reports import record_reports
from models.states import Outcome
from models.transitions import (
    ImageFault,
    StoredImage,
    cancel_batch,
    record_image_faults,
    record_stored,
    resolve_unknown,
    settle_batches,
)
from models.verdict import Kind, Retry, Verdict
from tests.support.factories import (
    POLICY,
    PRICE,
    accept,
    answer,
    claim,
    failure,
    fall_due,
    make_batch,
    make_submitted,
    states,
    success,
    unbalanced,
)
from tests.support.locks import wait_for_a_lock

IMAGES = ["https://example.com/a.png"]


def entries(*edits: dict[str, object], first: int = 0) -> Iterator[Entry]:
    """Edits of a document; each is sound unless it says otherwise."""
    return read_objects([{"prompt": "x", "image_urls": IMAGES, **edit} for edit in edits], first=first)


def append(connection: Connection, batch_id: UUID, *edits: dict[str, object], **options: object) -> int:
    """Edits added to a batch; how many it has now."""
    first = batch_actions.next_position(connection, batch_id)
    batch_actions.append(connection, batch_id, entries(*edits, first=first), **options)  # type: ignore[arg-type]
    return int(connection.exec_driver_sql("SELECT edit_count FROM batches WHERE id = %s", (batch_id,)).scalar_one())


def failed_edit(connection: Connection, error: str = "internal_server_error", **header: object) -> UUID:
    """A batch of one edit that failed for good."""
    [submission] = make_submitted(connection, **header)
    record_reports(connection, [answer(submission, failure(error, Retry.NEVER))], POLICY)
    query = "SELECT batch_id FROM edits WHERE id = %s"
    found = connection.exec_driver_sql(query, (submission.edit_id,)).scalar_one()
    assert isinstance(found, UUID)
    return found


def get_batch(connection: Connection) -> UUID:
    found = connection.exec_driver_sql("SELECT id FROM batches ORDER BY created_at DESC LIMIT 1").scalar_one()
    assert isinstance(found, UUID)
    return found


def column(connection: Connection, name: str, table: str = "batches") -> object:
    return connection.exec_driver_sql(f"SELECT {name} FROM {table}").scalar_one()


def test_cancel_takes_pending_at_once_and_wishes_for_the_rest(engine: Engine) -> None:
    """Nothing that is not paid for is submitted any more; what is in flight is asked about at once."""
    with engine.begin() as connection:
        batch_id = make_batch(connection, 5)
        accept(connection, claim(connection, limit=2))
        assert batch_actions.cancel(connection, batch_id) == 5
        assert states(connection) == {"cancelled": 3, "submitted": 2}
        assert claim(connection) == []
        due = claim_polls(connection, limit=10, lease=60)
        assert [poll.cancel for poll in due] == [True, True]
        assert batch_actions.cancel(connection, batch_id) == 0
        assert unbalanced(connection) == []


def test_cancelled_in_flight_ends_as_the_provider_decides(engine: Engine) -> None:
    """Cancelled if it says so or fails; stored if it made the image all the same: what was paid for is kept."""
    with engine.begin() as connection:
        first, second, third = make_submitted(connection, 3)
        batch_actions.cancel(connection, get_batch(connection))
        gone = Verdict(Kind.CANCELLED, error_type="client_cancelled", message="cancelled")
        record_reports(connection, [answer(first, gone), answer(second, failure()), answer(third, success())], POLICY)
        assert states(connection) == {"cancelled": 2, "ready": 1}


def test_reply_after_a_cancel_is_asked_about_at_once(engine: Engine) -> None:
    """The wish waits for the request id, and no longer."""
    with engine.begin() as connection:
        batch_id = make_batch(connection)
        submissions = claim(connection)
        batch_actions.cancel(connection, batch_id)
        accept(connection, submissions)
        assert [poll.cancel for poll in claim_polls(connection, limit=10, lease=60)] == [True]


def test_cancelled_batch_finishes(engine: Engine) -> None:
    """`finished_at` is set on a cancelled batch too."""
    with engine.begin() as connection:
        batch_id = make_batch(connection, 2)
        batch_actions.cancel(connection, batch_id)
        assert settle_batches(connection) == [batch_id]


def test_pause_stops_claims_and_resume_goes_on(engine: Engine) -> None:
    """A paused batch submits nothing; both are idempotent."""
    with engine.begin() as connection:
        batch_id = make_batch(connection, 2)
        batch_actions.pause(connection, batch_id)
        since = column(connection, "paused_at")
        batch_actions.pause(connection, batch_id)
        assert column(connection, "paused_at") == since
        assert claim(connection) == []
        batch_actions.resume(connection, batch_id)
        batch_actions.resume(connection, batch_id)
        assert len(claim(connection)) == 2


def test_finished_batch_is_not_paused(engine: Engine) -> None:
    """Nothing would ever end that pause's sense."""
    with engine.begin() as connection:
        batch_id = failed_edit(connection)
        settle_batches(connection)
        with pytest.raises(Conflict, match="finished"):
            batch_actions.pause(connection, batch_id)


@pytest.mark.parametrize("step", [batch_actions.cancel, batch_actions.pause, batch_actions.resume, batch_actions.retry])
def test_unknown_batch(engine: Engine, step: Callable[[Connection, UUID], object]) -> None:
    """There is no such batch, and it says so."""
    with engine.begin() as connection, pytest.raises(NotFound):
        step(connection, uuid4())


def test_priority_counts_from_the_next_claim_on(engine: Engine) -> None:
    """A batch that became urgent goes first."""
    with engine.begin() as connection:
        make_batch(connection, 3)
        late = make_batch(connection, 1)
        batch_actions.set_priority(connection, late, 7)
        [submission] = claim(connection, limit=1)
        owner = connection.exec_driver_sql("SELECT batch_id FROM edits WHERE id = %s", (submission.edit_id,)).scalar()
        assert owner == late


def test_retry_counts_attempts_anew(engine: Engine) -> None:
    """Whoever asks again gets every attempt again, and the batch is open again."""
    with engine.begin() as connection:
        batch_id = failed_edit(connection, max_attempts=1)
        settle_batches(connection)
        assert batch_actions.retry(connection, batch_id) == 1
        assert column(connection, "finished_at") is None
        [submission] = claim(connection)
        assert submission.attempt == 2
        accept(connection, [submission])
        record_reports(connection, [answer(submission, success())], POLICY)
        assert states(connection) == {"ready": 1}
        assert batch_actions.retry(connection, batch_id) == 0
        assert unbalanced(connection) == []


def test_retry_after_a_retry_spends_attempts_again(engine: Engine) -> None:
    """A transient failure after a retry is tried again by itself, within the bound."""
    with engine.begin() as connection:
        batch_id = failed_edit(connection, max_attempts=2)
        batch_actions.retry(connection, batch_id)
        [submission] = claim(connection)
        accept(connection, [submission])
        record_reports(connection, [answer(submission, failure())], POLICY)
        assert states(connection) == {"pending": 1}


def test_unknown_submit_after_a_retry_is_made_again(engine: Engine) -> None:
    """Nor do the attempts of before count when the POST of a retry is never heard of."""
    with engine.begin() as connection:
        batch_id = failed_edit(connection, max_attempts=2)
        for expected in ("pending", "failed"):
            if expected == "pending":
                batch_actions.retry(connection, batch_id)
            fall_due(connection)
            [submission] = claim(connection)
            resolve_unknown(connection, [submission.id], resubmit=True, max_attempts=3)
            assert states(connection) == {expected: 1}


def test_retry_by_error_type(engine: Engine) -> None:
    """Only edits whose latest error is one of the types."""
    with engine.begin() as connection:
        first, second = make_submitted(connection, 2)
        verdicts = (failure("content_policy_violation", Retry.NEVER), failure("internal_error", Retry.NEVER))
        record_reports(connection, [answer(s, v) for s, v in zip((first, second), verdicts, strict=True)], POLICY)
        assert batch_actions.retry(connection, get_batch(connection), ["internal_error"]) == 1
        assert states(connection) == {"failed": 1, "pending": 1}


def test_retry_fetches_what_is_paid_for_and_pays_for_nothing(engine: Engine) -> None:
    """Two images came, one could not be stored: it is fetched again, and no second submission is made."""
    with engine.begin() as connection:
        [submission] = make_submitted(connection)
        record_reports(connection, [answer(submission, success(2))], POLICY)
        good, bad = claim_images(connection, limit=10, lease=60)
        record_stored(connection, [StoredImage(good.id, good.name, "ab", 1, "image/png", 1, 1)])
        record_image_faults(connection, [ImageFault(bad.id, "undecodable", "broken", None)])
        assert states(connection) == {"failed": 1}

        assert batch_actions.retry(connection, get_batch(connection)) == 1
        assert states(connection) == {"ready": 1}
        assert claim(connection) == []
        [again] = claim_images(connection, limit=10, lease=60)
        assert (again.id, again.attempt) == (bad.id, 1)
        record_stored(connection, [StoredImage(again.id, again.name, "ab", 1, "image/png", 1, 1)])
        assert states(connection) == {"stored": 1}
        assert unbalanced(connection) == []


def test_retry_of_a_cancelled_batch_is_refused(engine: Engine) -> None:
    """It would never be submitted."""
    with engine.begin() as connection:
        [submission, _] = make_submitted(connection, 2)
        record_reports(connection, [answer(submission, failure(retry=Retry.NEVER))], POLICY)
        batch_actions.cancel(connection, get_batch(connection))
        with pytest.raises(Conflict, match="cancelled"):
            batch_actions.retry(connection, get_batch(connection))


def test_retry_that_meets_settle_leaves_no_edit_behind(engine: Engine) -> None:
    """The last open edit ends while a retry is not committed yet: the batch must not be finished over its head."""
    with engine.begin() as connection:
        first, second = make_submitted(connection, 2)
        record_reports(connection, [answer(first, failure(retry=Retry.NEVER))], POLICY)
        batch_id = get_batch(connection)

    def settle() -> None:
        with engine.begin() as other:
            settle_batches(other)

    with engine.begin() as connection:
        batch_actions.retry(connection, batch_id)
        with engine.begin() as other:
            record_reports(other, [answer(second, failure(retry=Retry.NEVER))], POLICY)
        settling = threading.Thread(target=settle)
        settling.start()
        wait_for_a_lock(engine, settling)
    settling.join(60)
    with engine.begin() as connection:
        assert column(connection, "finished_at") is None
        assert len(claim(connection)) == 1


def test_append_that_meets_cancel_leaves_no_edit_behind(engine: Engine) -> None:
    """Edits appended while the batch is being cancelled are cancelled with it."""
    with engine.begin() as connection:
        batch_id = make_batch(connection, 2)

    def cancel() -> None:
        with engine.begin() as other:
            cancel_batch(other, batch_id)

    with engine.begin() as connection:
        append(connection, batch_id, {})
        cancelling = threading.Thread(target=cancel)
        cancelling.start()
        wait_for_a_lock(engine, cancelling)
    cancelling.join(60)
    with engine.begin() as connection:
        assert states(connection) == {"cancelled": 3}
        assert settle_batches(connection) == [batch_id]


def test_append_goes_on_where_the_batch_ends(engine: Engine) -> None:
    """Positions go on; the count is that of all."""
    with engine.begin() as connection:
        batch_id = make_batch(connection, 2)
        assert append(connection, batch_id, {"custom_id": "a"}, {}) == 4
        positions = connection.exec_driver_sql("SELECT position, custom_id FROM edits ORDER BY position").all()
        assert [tuple(row) for row in positions] == [(0, None), (1, None), (2, "a"), (3, None)]
        assert unbalanced(connection) == []


def test_append_is_idempotent_by_its_key(engine: Engine) -> None:
    """The same edits once; other edits under the same key are refused."""
    with engine.begin() as connection:
        batch_id = make_batch(connection)
        assert append(connection, batch_id, {"custom_id": "a"}, idempotency_key="k") == 2
        assert append(connection, batch_id, {"custom_id": "a"}, idempotency_key="k") == 2
        with pytest.raises(IdempotencyConflict):
            append(connection, batch_id, {"custom_id": "b"}, idempotency_key="k")


@pytest.mark.parametrize(("there", "added"), [({"custom_id": "a"}, {"custom_id": "a"}), ({}, {"custom_id": "0"})])
def test_append_refuses_a_name_that_is_taken(engine: Engine, there: dict[str, str], added: dict[str, str]) -> None:
    """Two edits would store their images under one key; the line is named."""
    with engine.begin() as connection:
        batch_id = create(connection, BatchHeader(), entries(there)).batch_id
        with pytest.raises(ManifestFaults, match="line 2: custom_id") as caught:
            append(connection, batch_id, {"custom_id": "new"}, added)
        assert len(caught.value.faults) == 1
        assert states(connection) == {"pending": 1}


def test_append_refuses_the_position_that_is_a_name(engine: Engine) -> None:
    """An edit without a name is called by its position, which is somebody's name already."""
    with engine.begin() as connection:
        batch_id = create(connection, BatchHeader(), entries({"custom_id": "1"})).batch_id
        with pytest.raises(ManifestFaults, match="1 is what an edit of the batch is called"):
            append(connection, batch_id, {})


def test_append_to_a_finished_or_cancelled_batch_is_refused(engine: Engine) -> None:
    """Nobody would ever look at these edits."""
    with engine.begin() as connection:
        batch_id = make_batch(connection)
        batch_actions.cancel(connection, batch_id)
        with pytest.raises(Conflict, match="cancelled"):
            append(connection, batch_id, {})
        batch_id = failed_edit(connection)
        settle_batches(connection)
        with pytest.raises(Conflict, match="finished"):
            append(connection, batch_id, {})


def test_faulty_lines_are_skipped_where_wished(engine: Engine) -> None:
    """The good ones run; the others stand there as failed, with the reason and what was given; no retry takes them."""
    lines = [{"custom_id": "good"}, {"custom_id": "bad", "seed": "x"}, {"prompt": "a\0"}, {"custom_id": "good"}]
    with engine.begin() as connection:
        created = create(connection, BatchHeader(), entries(*lines), on_invalid="skip")
        assert (created.edits, created.skipped) == (4, 3)
        assert states(connection) == {"pending": 1, "failed": 3}
        rows = connection.exec_driver_sql(
            "SELECT custom_id, arguments ->> 'seed', errors -> 0 ->> 'type', errors -> 0 ->> 'message' FROM edits "
            "WHERE state = 'failed' ORDER BY position"
        ).all()
        assert tuple(rows[0][:3]) == ("bad", "x", "invalid_input")
        assert "seed" in rows[0][3]
        assert rows[1][1] is None
        doubled = connection.exec_driver_sql(
            "SELECT custom_id, arguments ->> 'custom_id' FROM edits WHERE position = 3"
        )
        assert tuple(doubled.one()) == (None, "good")
        assert batch_actions.retry(connection, created.batch_id) == 0
        assert unbalanced(connection) == []


def test_nothing_but_faulty_lines_is_a_batch_that_is_done(engine: Engine) -> None:
    """Skipping everything leaves nothing to wait for."""
    with engine.begin() as connection:
        created = create(connection, BatchHeader(), entries({"seed": "x"}), on_invalid="skip")
        assert settle_batches(connection) == [created.batch_id]


def test_estimate_reckons_and_writes_nothing(engine: Engine) -> None:
    """Counts, likely and worst case; a ceiling below the worst case is warned of."""
    header = BatchHeader(max_cost=Decimal("0.10"))
    found = estimate(header, entries({"num_images": 2, "max_images": 2}, {}), price=PRICE)
    assert (found.edits, found.images_least, found.images_most) == (2, 3, 5)
    assert (found.cost_likely, found.cost_worst) == (Decimal("0.09"), Decimal("0.15"))
    assert any("max_cost" in warning for warning in found.warnings)
    with engine.begin() as connection:
        assert states(connection) == {}


def test_parked_submit_that_is_retried_and_shows_after_all_is_doubled(engine: Engine) -> None:
    """A person paid again for what nobody could know: it is written down."""
    with engine.begin() as connection:
        batch_id = make_batch(connection)
        [lost] = claim(connection)
        fall_due(connection)
        resolve_unknown(connection, [lost.id], resubmit=False, max_attempts=3)
        assert batch_actions.retry(connection, batch_id) == 1
        [again] = claim(connection)
        accept(connection, [again])
        record_reports(connection, [answer(again, success()), answer(lost, success())], POLICY)
        rows = connection.exec_driver_sql("SELECT attempt, outcome, doubled FROM submissions ORDER BY attempt").all()
        assert [tuple(row) for row in rows] == [(1, Outcome.SUCCEEDED, True), (2, Outcome.SUCCEEDED, False)]
        assert unbalanced(connection) == []
