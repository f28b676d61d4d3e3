"""What verdicts do to rows, whoever brings them, in whatever order and however often."""

import threading
from decimal import Decimal

import pytest
from sqlalchemy import Connection, Engine

from models.claims import claim_edits, claim_images, claim_polls, claim_unknown
from models.record_reports import record_reports
from models.states import Effect, LearnedBy
from models.transitions import (
    ImageFault,
    StoredImage,
    Submission,
    attach_request_id,
    record_accepted,
    record_image_faults,
    record_stored,
    resolve_unknown,
    revert_unsent,
    settle_batches,
    start_submissions,
)
from models.verdict import Kind, Retry, Verdict
from tests.support.factories import (
    POLICY,
    PRICE,
    UNKNOWN_DEADLINE,
    accept,
    answer,
    claim,
    failure,
    fall_due,
    make_batch,
    make_submitted,
    request_id,
    states,
    success,
    unbalanced,
)
from tests.support.locks import wait_for_a_lock


@pytest.fixture
def connection(engine: Engine):
    """One transaction, committed at the end so that deferred trouble would show."""
    with engine.begin() as connection:
        yield connection
        assert unbalanced(connection) == []


def store_all(connection: Connection) -> None:
    due = claim_images(connection, limit=100, lease=60)
    record_stored(connection, [StoredImage(i.id, f"{i.name}.png", "ab", 1, "image/png", 1, 1) for i in due])


def give_up(connection: Connection, *, resubmit: bool = True) -> None:
    fall_due(connection)
    lost = claim_unknown(connection, limit=10, lease=60)
    resolve_unknown(connection, [due.id for due in lost], resubmit=resubmit, max_attempts=3)


def one(connection: Connection, query: str) -> tuple:
    return tuple(connection.exec_driver_sql(query).one())


def test_success_is_ready_then_stored(connection: Connection) -> None:
    """A result makes the edit ready, its last image makes it stored, its price is on the submission."""
    (submission,) = make_submitted(connection)

    assert record_reports(connection, [answer(submission, success(2))], POLICY) == [Effect.APPLIED]

    assert states(connection) == {"ready": 1}
    store_all(connection)
    assert states(connection) == {"stored": 1}
    assert one(connection, "SELECT outcome, images_returned, cost FROM submissions") == (
        "succeeded",
        2,
        Decimal("0.06"),
    )


def test_first_delivery_wins(connection: Connection) -> None:
    """A repeated callback is a duplicate, one that comes after a poll is late; neither moves or adds anything."""
    first, second = make_submitted(connection, 2)

    effects = record_reports(
        connection,
        [
            answer(first, success()),
            answer(first, success()),
            answer(second, success(), LearnedBy.POLL),
            answer(second, failure()),
        ],
        POLICY,
    )

    assert effects == [Effect.APPLIED, Effect.DUPLICATE, Effect.APPLIED, Effect.LATE]
    assert states(connection) == {"ready": 2}
    assert one(connection, "SELECT count(*) FROM images") == (2,)


def test_callback_overtakes_reply(connection: Connection) -> None:
    """A callback that comes before the submit's reply reveals the request id, and the reply then changes nothing."""
    make_batch(connection)
    (submission,) = claim(connection)

    assert record_reports(connection, [answer(submission, success())], POLICY) == [Effect.APPLIED]
    accept(connection, [submission])

    assert states(connection) == {"ready": 1}
    assert one(connection, "SELECT request_id, outcome FROM submissions") == (request_id(submission), "succeeded")


def test_other_request_id_is_a_mismatch(connection: Connection) -> None:
    """A delivery that names another request than the one we were given moves nothing; nor does a borrowed id."""
    first, second = make_submitted(connection, 2)
    make_batch(connection)
    (unanswered,) = claim(connection)

    effects = record_reports(
        connection,
        [
            answer(first, success())._replace(request_id="somebody else's"),
            answer(unanswered, success())._replace(request_id=request_id(second)),
        ],
        POLICY,
    )

    assert effects == [Effect.MISMATCH, Effect.MISMATCH]
    assert states(connection) == {"submitted": 2, "submitting": 1}


def test_transient_failure_is_paid_for_again_within_its_budget(connection: Connection) -> None:
    """A transient error goes back to pending until the attempts are used up, each with its entry in errors."""
    make_batch(connection)
    for attempt in (1, 2, 3):
        (submission,) = claim(connection)
        accept(connection, [submission])
        record_reports(connection, [answer(submission, failure())], POLICY)
        assert states(connection) == {"pending" if attempt < 3 else "failed": 1}
        fall_due(connection)

    rows = connection.exec_driver_sql("SELECT attempt, type, latest FROM edit_errors ORDER BY attempt").all()
    assert [tuple(row) for row in rows] == [
        (1, "internal_server_error", False),
        (2, "internal_server_error", False),
        (3, "internal_server_error", True),
    ]


def test_permanent_failure_is_paid_for_once(connection: Connection) -> None:
    """A refusal of the input ends the edit at its first attempt."""
    (submission,) = make_submitted(connection)

    record_reports(connection, [answer(submission, failure("content_policy_violation", Retry.NEVER))], POLICY)

    assert states(connection) == {"failed": 1}
    assert claim_edits(connection, limit=10, window=10, probe_after=60, price=PRICE) == []


def test_download_error_is_tried_once_more(connection: Connection) -> None:
    """`file_download_error` gets exactly one further attempt."""
    make_batch(connection)
    for expected in ("pending", "failed"):
        (submission,) = claim(connection)
        accept(connection, [submission])
        record_reports(connection, [answer(submission, failure("file_download_error", Retry.ONCE))], POLICY)
        assert states(connection) == {expected: 1}
        fall_due(connection)


def test_unusable_payload_is_asked_for(connection: Connection) -> None:
    """OK with a null payload is no success: the request id is kept and the poll lane is due at once."""
    make_batch(connection)
    (submission,) = claim(connection)

    effects = record_reports(connection, [answer(submission, Verdict(Kind.UNFETCHED))], POLICY)

    assert effects == [Effect.APPLIED]
    assert states(connection) == {"submitted": 1}
    assert [due.request_id for due in claim_polls(connection, limit=10, lease=60)] == [request_id(submission)]


def test_not_sent_is_no_attempt(connection: Connection) -> None:
    """What never left the machine goes back as it was: no attempt counted, no error on the edit."""
    make_batch(connection)
    (submission,) = claim(connection)

    revert_unsent(connection, [submission.id], reason="unreachable", delay=0)

    assert one(connection, "SELECT state, attempt, errors FROM edits") == ("pending", 0, [])
    (again,) = claim(connection)
    assert again.attempt == 1
    assert again.id != submission.id


def test_unknown_submit_is_resubmitted_once_proven_dead(connection: Connection) -> None:
    """Nothing happens before the deadline; then the edit is pending again and the first submission `unknown`."""
    make_batch(connection)
    claim(connection)
    assert claim_unknown(connection, limit=10, lease=60) == []

    give_up(connection)

    assert states(connection) == {"pending": 1}
    assert one(connection, "SELECT outcome, learned_by, doubled FROM submissions") == ("unknown", None, False)


def test_unknown_submit_is_parked_by_policy(connection: Connection) -> None:
    """`park` fails the edit with `submission_unknown` and never posts again."""
    make_batch(connection)
    claim(connection)

    give_up(connection, resubmit=False)

    assert states(connection) == {"failed": 1}
    assert one(connection, "SELECT type FROM edit_errors") == ("submission_unknown",)


def test_late_result_before_the_second_post_is_simply_taken(connection: Connection) -> None:
    """A result that shows before the resubmission was POSTed saves the second charge."""
    make_batch(connection)
    (submission,) = claim(connection)
    give_up(connection)

    record_reports(connection, [answer(submission, success())], POLICY)

    assert states(connection) == {"ready": 1}
    assert one(connection, "SELECT outcome, doubled FROM submissions") == ("succeeded", False)


def test_late_result_beside_a_resubmission_is_written_down_as_doubled(connection: Connection) -> None:
    """Both results come: the first one's images are kept, both charges stand, the old submission is `doubled`."""
    make_batch(connection)
    (old,) = claim(connection)
    give_up(connection)
    (new,) = claim(connection)
    accept(connection, [new])

    record_reports(connection, [answer(new, success()), answer(old, success())], POLICY)

    assert states(connection) == {"ready": 1}
    rows = connection.exec_driver_sql("SELECT id, outcome, doubled FROM submissions ORDER BY attempt").all()
    assert [tuple(row) for row in rows] == [(old.id, "succeeded", True), (new.id, "succeeded", False)]
    assert one(connection, "SELECT sum(cost) FROM submissions") == (Decimal("0.06"),)
    images = connection.exec_driver_sql("SELECT submission_id, state FROM images").all()
    assert {tuple(row) for row in images} == {(new.id, "waiting"), (old.id, "discarded")}


def taken_back_then_posted_again(connection: Connection) -> tuple[Submission, Submission]:
    """A POST that was refused for the account, so that the next one carries its number; that one is in flight."""
    make_batch(connection)
    (first,) = claim(connection)
    revert_unsent(connection, [first.id], reason="locked", delay=0)
    (second,) = claim(connection)
    assert first.attempt == second.attempt
    return first, second


@pytest.mark.parametrize("verdict", [success(2), failure("content_policy_violation", Retry.NEVER)])
def test_result_that_was_held_to_be_gone_comes_after_all(verdict: Verdict, engine: Engine) -> None:
    """Whoever still tells what became of the request is believed: what is paid for is stored, and nothing is POSTed."""
    gone = Verdict(Kind.FAILED, error_type="result_expired", message="gone")
    with engine.begin() as connection:
        [submission] = make_submitted(connection)
        record_reports(connection, [answer(submission, gone, LearnedBy.POLL)], POLICY)
        assert states(connection) == {"failed": 1}
        assert record_reports(connection, [answer(submission, verdict)], POLICY) == [Effect.APPLIED]
        assert states(connection) == {"ready" if verdict.images else "failed": 1}
        row = connection.exec_driver_sql("SELECT error_type, images_returned FROM submissions").one()
        assert tuple(row) == (verdict.error_type, len(verdict.images) or None)
        assert record_reports(connection, [answer(submission, verdict)], POLICY) == [Effect.DUPLICATE]
        assert unbalanced(connection) == []


@pytest.mark.parametrize("verdict", [failure(), failure("content_policy_violation", Retry.NEVER)])
def test_late_failure_of_a_refused_post_leaves_the_edit_to_the_newer_one(
    verdict: Verdict, connection: Connection
) -> None:
    """The provider ran what it had refused, and it failed: the edit is neither failed nor paid for a third time."""
    first, second = taken_back_then_posted_again(connection)
    accept(connection, [second])

    assert record_reports(connection, [answer(first, verdict)], POLICY) == [Effect.APPLIED]
    assert states(connection) == {"submitted": 1}

    record_reports(connection, [answer(second, success())], POLICY)
    assert states(connection) == {"ready": 1}


def test_late_failure_that_waited_for_the_newer_post_sees_it(engine: Engine) -> None:
    """The newer POST is being written down when the failure of the refused one comes in."""
    with engine.begin() as connection:
        make_batch(connection)
        (first,) = claim(connection)
        revert_unsent(connection, [first.id], reason="locked", delay=0)

    def report() -> None:
        with engine.begin() as connection:
            record_reports(connection, [answer(first, failure())], POLICY)

    with engine.begin() as connection:
        claim(connection)
        thread = threading.Thread(target=report)
        thread.start()
        wait_for_a_lock(engine, thread)
    thread.join()
    with engine.begin() as connection:
        assert states(connection) == {"submitting": 1}


def test_refused_post_that_shows_itself_does_not_speak_for_the_newer_one(connection: Connection) -> None:
    """Its request is asked about, but the newer POST's outcome stays unknown until its own deadline."""
    first, _ = taken_back_then_posted_again(connection)

    record_reports(connection, [answer(first, Verdict(Kind.UNFETCHED))], POLICY)
    assert states(connection) == {"submitting": 1}
    record_reports(connection, [answer(first, failure(), LearnedBy.POLL)], POLICY)
    give_up(connection)

    assert states(connection) == {"pending": 1}
    assert one(connection, "SELECT count(*) FROM submissions WHERE outcome IS NULL") == (0,)


@pytest.mark.parametrize("late", [0, 1])
def test_success_of_a_refused_post_is_written_down_as_doubled_once(late: int, connection: Connection) -> None:
    """Both POSTs were paid, in whichever order that shows: one set of images, one `doubled`, two prices."""
    both = taken_back_then_posted_again(connection)
    accept(connection, [both[1]])

    record_reports(connection, [answer(both[1 - late], success()), answer(both[late], success())], POLICY)

    assert states(connection) == {"ready": 1}
    rows = connection.exec_driver_sql("SELECT id FROM submissions WHERE doubled").all()
    assert [row.id for row in rows] == [both[late].id]
    assert one(connection, "SELECT sum(cost) FROM submissions") == (Decimal("0.06"),)


def test_image_that_cannot_be_stored_fails_the_edit_without_a_second_charge(connection: Connection) -> None:
    """One bad file of two fails the edit once the other is stored; nothing is submitted again by itself."""
    (submission,) = make_submitted(connection)
    record_reports(connection, [answer(submission, success(2))], POLICY)
    good, bad = claim_images(connection, limit=10, lease=60)

    record_image_faults(connection, [ImageFault(bad.id, "undecodable", "broken", None)])
    assert states(connection) == {"ready": 1}
    record_stored(connection, [StoredImage(good.id, "k", "ab", 1, "image/png", 1, 1)])

    assert states(connection) == {"failed": 1}
    assert one(connection, "SELECT type, message FROM edit_errors") == ("undecodable", "broken")
    assert one(connection, "SELECT count(*) FROM submissions") == (1,)


def test_cancelled_by_the_provider(connection: Connection) -> None:
    """A 499 that was wished for ends `cancelled`; one that nobody asked for is a failure named client_cancelled."""
    to_cancel, unasked = make_submitted(connection, 2)
    connection.exec_driver_sql("UPDATE edits SET cancel_requested_at = now() WHERE id = %s", (to_cancel.edit_id,))
    verdict = Verdict(Kind.CANCELLED, error_type="client_cancelled", message="cancelled")

    record_reports(connection, [answer(to_cancel, verdict), answer(unasked, verdict)], POLICY)

    assert states(connection) == {"cancelled": 1, "failed": 1}


def test_settle_finishes_a_batch_exactly_when_all_edits_are_final(connection: Connection) -> None:
    """A batch with an open edit stays open; once the last is final it is finished, once."""
    first, second = make_submitted(connection, 2)
    record_reports(connection, [answer(first, failure("value_error", Retry.NEVER))], POLICY)
    assert settle_batches(connection) == []

    record_reports(connection, [answer(second, success())], POLICY)
    store_all(connection)

    assert len(settle_batches(connection)) == 1
    assert settle_batches(connection) == []


def test_two_last_edits_at_once_do_not_leave_the_batch_open(engine: Engine) -> None:
    """Each ends in its own transaction, blind to the other; settling after both commits finishes the batch."""
    for _ in range(10):
        with engine.begin() as connection:
            submissions = make_submitted(connection, 2)
        barrier = threading.Barrier(2)

        def end(submission, barrier=barrier) -> None:
            with engine.begin() as connection:
                record_reports(connection, [answer(submission, failure("value_error", Retry.NEVER))], POLICY)
                barrier.wait(60)
            with engine.begin() as connection:
                settle_batches(connection)

        threads = [threading.Thread(target=end, args=(submission,)) for submission in submissions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with engine.begin() as connection:
        assert one(connection, "SELECT count(*) FROM batches WHERE finished_at IS NULL") == (0,)


def test_two_open_submissions_of_one_edit_that_fail_at_once_end_it(engine: Engine) -> None:
    """Each leaves the edit to the other only as long as the other is really open: the second must not judge by what it
    saw before it waited."""
    with engine.begin() as connection:
        make_batch(connection, max_attempts=2)
        (first,) = claim(connection)
        fall_due(connection)
        resolve_unknown(connection, [first.id], resubmit=True, max_attempts=2)
        (second,) = claim(connection)
        accept(connection, [second])
        attach_request_id(connection, first.id, request_id(first), overdue_after=60)

    def fail(submission: Submission) -> None:
        with engine.begin() as other:
            record_reports(other, [answer(submission, failure("value_error", Retry.NEVER))], POLICY)

    late = threading.Thread(target=fail, args=(second,))
    with engine.begin() as connection:
        record_reports(connection, [answer(first, failure("value_error", Retry.NEVER))], POLICY)
        late.start()
        wait_for_a_lock(engine, late)
    late.join(60)
    with engine.begin() as connection:
        assert states(connection) == {"failed": 1}


def test_two_open_submissions_of_one_edit_that_fail_in_one_set_end_it(engine: Engine) -> None:
    """The same where both answers are recorded in one wave: each judged by itself would leave the edit to the other."""
    with engine.begin() as connection:
        make_batch(connection, max_attempts=2)
        (first,) = claim(connection)
        fall_due(connection)
        resolve_unknown(connection, [first.id], resubmit=True, max_attempts=2)
        (second,) = claim(connection)
        accept(connection, [second])
        attach_request_id(connection, first.id, request_id(first), overdue_after=60)
        verdict = failure("value_error", Retry.NEVER)
        record_reports(connection, [answer(submission, verdict) for submission in (first, second)], POLICY)
        assert states(connection) == {"failed": 1}


def test_of_many_who_bring_the_same_result_one_applies_it(engine: Engine) -> None:
    """Eight threads deliver one result at once: one applies it, seven are told that it is known."""
    with engine.begin() as connection:
        (submission,) = make_submitted(connection)
    effects: list[Effect] = []

    def deliver() -> None:
        with engine.begin() as connection:
            effects.extend(record_reports(connection, [answer(submission, success())], POLICY))

    threads = [threading.Thread(target=deliver) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(effects) == [Effect.APPLIED] + [Effect.DUPLICATE] * 4
    with engine.begin() as connection:
        assert one(connection, "SELECT count(*) FROM images") == (1,)


def test_reply_with_a_request_id_that_another_submission_has_is_not_believed(connection: Connection) -> None:
    """Two POSTs answered with one request id: the first keeps it, the second stays unknown."""
    make_batch(connection, 2)
    first, second = claim(connection)

    record_accepted(
        connection, [(first.id, "same"), (second.id, "same")], poll_after=60, unknown_deadline=UNKNOWN_DEADLINE
    )

    assert states(connection) == {"submitted": 1, "submitting": 1}


def test_start_submissions_skips_what_somebody_else_moved(connection: Connection) -> None:
    """Claimed ids whose edits are no longer pending get no submission, hence no POST."""
    make_batch(connection, 2)
    first, second = claim_edits(connection, limit=10, window=10, probe_after=60, price=PRICE)
    start_submissions(connection, [first], unknown_deadline=UNKNOWN_DEADLINE, price=PRICE)

    written = start_submissions(connection, [first, second], unknown_deadline=UNKNOWN_DEADLINE, price=PRICE)

    assert [submission.edit_id for submission in written] == [second]
