"""One POST at a time, one set of images an edit, and words about money that mean what they say."""

import threading
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError

from benchmarks.chaos import unfinished
from models.claims import DueImage, claim_images, claim_polls, claim_unknown
from models.decisions import ProviderReport
from models.record_reports import record_reports
from models.states import Effect, LearnedBy
from models.transitions import (
    ImageFault,
    Refusal,
    StoredImage,
    Submission,
    attach_request_id,
    lock_edits,
    record_image_faults,
    record_refused,
    record_stored,
    resolve_unknown,
    retry_failed,
    revert_unsent,
    settle_batches,
    start_submissions,
)
from models.verdict import DeclaredImage, Kind, Retry, Verdict, read_result
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
    request_id,
    states,
    success,
    unbalanced,
)
from tests.support.locks import wait_for_a_lock

UNREADABLE = Verdict(Kind.UNFETCHED)


@pytest.fixture
def connection(engine: Engine):
    """One transaction, at the end of which the accounts balance."""
    with engine.begin() as connection:
        yield connection
        assert unbalanced(connection) == []


def one(connection: Connection, query: str) -> tuple:
    return tuple(connection.exec_driver_sql(query).one())


def give_up(connection: Connection, *submissions: Submission, resubmit: bool = True) -> None:
    resolve_unknown(connection, [s.id for s in submissions], resubmit=resubmit, max_attempts=3)


def report(connection: Connection, submission: Submission, verdict: Verdict) -> Effect:
    (effect,) = record_reports(connection, [answer(submission, verdict)], POLICY)
    return effect


def given_up(connection: Connection) -> Submission:
    make_batch(connection)
    (first,) = claim(connection)
    give_up(connection, first)
    return first


def taken_back(connection: Connection) -> Submission:
    make_batch(connection)
    (first,) = claim(connection)
    revert_unsent(connection, [first.id], reason="locked", delay=0)
    return first


def parked_and_retried(connection: Connection) -> Submission:
    batch_id = make_batch(connection)
    (first,) = claim(connection)
    give_up(connection, first, resubmit=False)
    report(connection, first, UNREADABLE)
    assert retry_failed(connection, batch_id) == 1
    assert states(connection) == {"submitted": 1}
    return first


@pytest.mark.parametrize("history", [given_up, taken_back, parked_and_retried])
def test_no_post_while_the_first_shows_itself(history, connection: Connection) -> None:
    """A callback that cannot be used names the request: it is asked about, and nothing is POSTed before its end."""
    first = history(connection)
    report(connection, first, UNREADABLE)

    assert states(connection) == {"submitted": 1}
    fall_due(connection)
    assert claim(connection) == []
    assert [due.request_id for due in claim_polls(connection, limit=9, lease=60)] == [request_id(first)]

    record_reports(connection, [answer(first, failure(), LearnedBy.POLL)], POLICY)
    assert states(connection) == {"pending": 1}
    fall_due(connection)
    assert len(claim(connection)) == 1


def test_late_reply_keeps_the_edit_from_being_posted_again(connection: Connection) -> None:
    """A reply that is recorded after its submission was given up says that it is in flight."""
    first = given_up(connection)
    accept(connection, [first])
    assert states(connection) == {"submitted": 1}
    fall_due(connection)
    assert claim(connection) == []


def both_open(connection: Connection) -> tuple[Submission, Submission]:
    """The first was given up, the second is in flight, and the first shows itself."""
    first = given_up(connection)
    (second,) = claim(connection)
    report(connection, first, UNREADABLE)
    assert one(connection, "SELECT count(*) FROM submissions WHERE outcome IS NULL") == (2,)
    return first, second


@pytest.mark.parametrize(
    "end",
    [
        lambda connection, second: give_up(connection, second),
        lambda connection, second: give_up(connection, second, resubmit=False),
        lambda connection, second: revert_unsent(connection, [second.id], reason="locked", delay=0),
        lambda connection, second: record_refused(connection, [Refusal(second.id, "bad_request", "no")]),
    ],
    ids=["dead", "parked", "taken back", "refused"],
)
def test_end_of_the_second_leaves_the_edit_to_the_first(end, connection: Connection) -> None:
    """It is neither POSTed a third time nor failed while the first is in flight."""
    first, second = both_open(connection)
    end(connection, second)

    assert states(connection) == {"submitted": 1}
    fall_due(connection)
    assert claim(connection) == []
    report(connection, first, success())
    assert states(connection) == {"ready": 1}


def test_edit_that_is_pending_beside_a_submission_in_flight(connection: Connection) -> None:
    """As the release before left them: it is not claimed, nor written down, and stops no other edit."""
    make_batch(connection, 2)
    first, _ = claim(connection)
    connection.exec_driver_sql("UPDATE edits SET state = 'pending', due_at = now()")
    connection.exec_driver_sql(
        "UPDATE submissions SET outcome = 'rejected', learned_by = 'reply', due_at = NULL WHERE id <> %s", (first.id,)
    )
    assert first.edit_id not in [submission.edit_id for submission in claim(connection)]
    assert start_submissions(connection, [first.edit_id], unknown_deadline=UNKNOWN_DEADLINE, price=PRICE) == []


def test_database_refuses_a_second_post(engine: Engine) -> None:
    """Whoever writes a submission down beside one in flight, by whatever program, is refused."""
    with engine.begin() as connection:
        make_batch(connection)
        (first,) = claim(connection)
    with pytest.raises(IntegrityError, match="in flight"), engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO submissions (id, edit_id, attempt, due_at) VALUES (gen_random_uuid(), %s, 2, now())",
            (first.edit_id,),
        )


def test_claim_that_waited_sees_the_first_open_again(engine: Engine) -> None:
    """The edit was claimable when the claim looked, and is not any more when it may write."""
    with engine.begin() as connection:
        first = given_up(connection)
    written: list[Submission] = []

    def submit() -> None:
        with engine.begin() as connection:
            written.extend(
                start_submissions(connection, [first.edit_id], unknown_deadline=UNKNOWN_DEADLINE, price=PRICE)
            )

    with engine.begin() as connection:
        lock_edits(connection, [first.id])
        thread = threading.Thread(target=submit)
        thread.start()
        wait_for_a_lock(engine, thread)
        attach_request_id(connection, first.id, request_id(first), overdue_after=60)
    thread.join()
    assert written == []
    with engine.begin() as connection:
        assert states(connection) == {"submitted": 1}


# --- one set of images an edit


class Shelf:
    """Storage as a folder: what lies under each key, and whether the rows tell the same."""

    def __init__(self, connection: Connection, folder: Path) -> None:
        self.connection, self.folder = connection, folder

    def fetch(self, limit: int = 100) -> list[DueImage]:
        fall_due(self.connection)
        return claim_images(self.connection, limit=limit, lease=60)

    def write(self, due: DueImage) -> StoredImage:
        """The bytes of an image are its URL and the submission that it came from."""
        content = f"{due.id} {due.url}".encode()
        key = f"{due.name}.png"
        (self.folder / key).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / key).write_bytes(content)
        return StoredImage(due.id, key, content.hex(), len(content), "image/png", 1, 1)

    def store(self, *due: DueImage) -> None:
        record_stored(self.connection, [self.write(one) for one in due])
        self.agrees()

    def fail(self, due: DueImage) -> None:
        record_image_faults(self.connection, [ImageFault(due.id, "undecodable", "broken", None)])
        self.agrees()

    def agrees(self) -> None:
        rows = self.connection.exec_driver_sql(
            "SELECT storage_key, sha256 FROM images WHERE storage_key IS NOT NULL"
        ).all()
        for key, digest in rows:
            assert (self.folder / key).read_bytes().hex() == digest, key
        assert len({key for key, _ in rows}) == len(rows)


@pytest.fixture
def shelf(connection: Connection, tmp_path: Path) -> Shelf:
    return Shelf(connection, tmp_path)


def submissions_stored(connection: Connection) -> list[UUID]:
    rows = connection.exec_driver_sql(
        "SELECT DISTINCT s.id FROM submissions s JOIN images i ON i.submission_id = s.id WHERE i.state = 'stored'"
    )
    return list(rows.scalars())


def two_posts(connection: Connection) -> tuple[Submission, Submission]:
    first = given_up(connection)
    (second,) = claim(connection)
    accept(connection, [second])
    return first, second


def test_late_success_takes_the_place_of_a_set_that_is_not_whole(connection: Connection, shelf: Shelf) -> None:
    """The second leaves image 0 stored and image 1 failed; the first succeeds late: its set is stored, whole, and no
    object is overwritten."""
    first, second = two_posts(connection)
    report(connection, second, success(2))
    image_0, image_1 = shelf.fetch()
    shelf.store(image_0)
    shelf.fail(image_1)
    assert states(connection) == {"failed": 1}

    report(connection, first, success(2))
    assert states(connection) == {"ready": 1}
    shelf.agrees()
    shelf.store(*shelf.fetch())

    assert states(connection) == {"stored": 1}
    assert submissions_stored(connection) == [first.id]
    rows = connection.exec_driver_sql("SELECT id, doubled, set_number FROM submissions ORDER BY attempt").all()
    assert [tuple(row) for row in rows] == [(first.id, False, 2), (second.id, True, 1)]


def test_a_run_goes_on_while_a_late_result_is_asked_for(engine: Engine) -> None:
    """What `make chaos` waits for before it judges: a stale callback opens the first POST of a failed edit again."""
    with engine.begin() as connection:
        first, second = two_posts(connection)
        report(connection, second, failure(retry=Retry.NEVER))
    with engine.begin() as connection:
        settle_batches(connection)
    assert unfinished(engine) == 0
    with engine.begin() as connection:
        report(connection, first, UNREADABLE)
        assert states(connection) == {"failed": 1}
    assert unfinished(engine) == 1


def test_download_that_outlives_its_set(connection: Connection, shelf: Shelf) -> None:
    """A worker whose lease lapsed still writes an image of the old set after the switch: another set's bytes are never
    touched, and what it reports moves no row."""
    first, second = two_posts(connection)
    report(connection, second, success(2))
    slow, broken = shelf.fetch()
    shelf.fail(broken)
    record_image_faults(connection, [ImageFault(slow.id, "http_404", "gone", None)])
    report(connection, first, success(2))
    new = shelf.fetch()
    shelf.store(new[0])

    late = shelf.write(slow)
    shelf.agrees()
    record_stored(connection, [late])
    shelf.store(new[1])

    shelf.agrees()
    assert states(connection) == {"stored": 1}
    assert submissions_stored(connection) == [first.id]


def test_spare_set_is_taken_before_the_edit_fails(connection: Connection, shelf: Shelf) -> None:
    """The other result had come while the first set was being fetched, and was put aside: it is there when needed."""
    first, second = two_posts(connection)
    report(connection, second, success(2))
    report(connection, first, success(2))
    image_0, image_1 = shelf.fetch()
    shelf.store(image_0)
    shelf.fail(image_1)

    assert states(connection) == {"ready": 1}
    shelf.store(*shelf.fetch())
    assert states(connection) == {"stored": 1}
    assert submissions_stored(connection) == [first.id]


def test_first_set_has_the_key_of_the_contract(connection: Connection, shelf: Shelf) -> None:
    """`{batch_id}/{custom_id or position}/{index}.{ext}`; a late result that is taken first has it too."""
    first = given_up(connection)
    report(connection, first, success(2))
    shelf.store(*shelf.fetch())
    rows = connection.exec_driver_sql("SELECT storage_key, batch_id FROM images, edits ORDER BY index").all()
    assert [key for key, _ in rows] == [f"{batch_id}/0/{index}.png" for index, (_, batch_id) in enumerate(rows)]


def test_both_sets_fail(connection: Connection, shelf: Shelf) -> None:
    """Then the edit fails, and a retry fetches again what was taken last; nothing is paid for again."""
    first, second = two_posts(connection)
    report(connection, second, success(1))
    report(connection, first, success(1))
    for _ in range(2):
        (due,) = shelf.fetch()
        shelf.fail(due)
    assert states(connection) == {"failed": 1}
    (batch_id,) = one(connection, "SELECT id FROM batches")
    assert retry_failed(connection, batch_id) == 1
    shelf.store(*shelf.fetch())
    assert states(connection) == {"stored": 1}
    assert submissions_stored(connection) == [first.id]


# --- words about money


def money(connection: Connection) -> tuple:
    return one(connection, "SELECT sum(paid)::text, sum(wasted)::text, sum(uncertain)::text FROM charges")


def test_late_first_success_then_a_failing_second(connection: Connection, shelf: Shelf) -> None:
    """One charge, one set: nothing is doubled, nothing wasted."""
    first, second = two_posts(connection)
    report(connection, first, success())
    report(connection, second, failure())
    shelf.store(*shelf.fetch())

    assert states(connection) == {"stored": 1}
    assert one(connection, "SELECT count(*) FILTER (WHERE doubled) FROM submissions") == (0,)
    assert money(connection) == ("0.03", "0", "0")


@pytest.mark.parametrize("first_is_first", [True, False])
def test_two_successes_are_one_doubled(first_is_first: bool, connection: Connection, shelf: Shelf) -> None:
    """Whichever comes first is kept, the other is what was paid for nothing."""
    order = two_posts(connection)
    for submission in order if first_is_first else order[::-1]:
        report(connection, submission, success())
    shelf.store(*shelf.fetch())
    kept, doubled = order if first_is_first else order[::-1]
    rows = connection.exec_driver_sql("SELECT id FROM submissions WHERE doubled").all()
    assert [row.id for row in rows] == [doubled.id]
    assert submissions_stored(connection) == [kept.id]
    assert money(connection) == ("0.06", "0.03", "0")


def test_set_that_was_given_up_for_another_is_the_doubled_one(connection: Connection, shelf: Shelf) -> None:
    """What was paid for the set that could not be stored is wasted; the set that is kept is not."""
    first, second = two_posts(connection)
    report(connection, second, success(2))
    image_0, image_1 = shelf.fetch()
    shelf.store(image_0)
    shelf.fail(image_1)
    assert money(connection) == ("0.06", "0.06", "0.03")  # nobody has heard of the first one yet
    report(connection, first, success(1))
    shelf.store(*shelf.fetch())
    assert money(connection) == ("0.09", "0.06", "0")


def test_what_a_result_says_of_itself_is_kept(connection: Connection) -> None:
    """Seed, running time, units and file data, as the provider declares them; it charges what it says."""
    make_batch(connection)
    (submission,) = claim(connection)
    accept(connection, [submission])
    verdict = Verdict(
        Kind.SUCCEEDED,
        (DeclaredImage("https://v3.fal.media/a.png", file_data="abc"), DeclaredImage("https://v3.fal.media/b.png")),
        seed=746406749,
        billable_units=Decimal(1),
    )
    record_reports(
        connection, [ProviderReport(submission.id, request_id(submission), verdict, LearnedBy.POLL, 7.42)], POLICY
    )
    assert one(connection, "SELECT seed, inference_time, billable_units, cost, images_returned FROM submissions") == (
        746406749,
        7.42,
        Decimal(1),
        Decimal("0.03"),
        2,
    )
    rows = connection.exec_driver_sql("SELECT file_data FROM images ORDER BY index").scalars()
    assert list(rows) == ["abc", None]


REFUSED = b'{"detail": [{"loc": ["body", "prompt"], "msg": "no", "type": "content_policy_violation"}]}'


@pytest.mark.parametrize(
    ("units", "expected"),
    [(None, (None, True, "0.06")), ("0", (Decimal(0), False, "0.00")), ("2", (Decimal("0.06"), False, "0.06"))],
)
def test_refusal_after_a_run(units: str | None, expected: tuple, connection: Connection) -> None:
    """A 422 may be charged: where the provider does not say, its worst case stays committed; where it does, that."""
    make_batch(connection, max_cost=Decimal(1))
    connection.exec_driver_sql("""UPDATE edits SET arguments = arguments || '{"num_images": 2}'""")
    (submission,) = claim(connection)
    accept(connection, [submission])
    report(connection, submission, read_result(422, REFUSED, billable_units=units))
    assert states(connection) == {"failed": 1}
    assert one(connection, "SELECT cost, may_be_charged, round(committed, 2)::text FROM submissions") == expected
    assert one(connection, "SELECT round(uncertain, 2)::text FROM batch_costs") == (
        "0.06" if units is None else "0.00",
    )
    assert one(connection, "SELECT round(wasted, 2)::text FROM batch_costs") == ("0.06" if units == "2" else "0.00",)


@pytest.mark.parametrize("odd", ["", "x", "NaN", "-1", "1e99", "Infinity"])
def test_odd_units_say_nothing(odd: str) -> None:
    """A header that is no small number leaves what is known without it."""
    assert read_result(422, REFUSED, billable_units=odd) == read_result(422, REFUSED)


def test_failure_of_the_infrastructure_is_never_charged(connection: Connection) -> None:
    """A 5xx is not (provider-protocol 6): nothing stays committed."""
    make_batch(connection, max_cost=Decimal(1))
    (submission,) = claim(connection)
    accept(connection, [submission])
    report(connection, submission, read_result(500, b'{"detail": "x", "error_type": "internal_error"}'))
    assert one(connection, "SELECT may_be_charged, committed::text FROM submissions") == (False, "0")


# --- when a result may be gone


@pytest.mark.parametrize("way", ["reply", "callback", "listing", "closing"])
def test_every_known_request_has_a_deadline_of_its_result(way: str, connection: Connection) -> None:
    """However its id was learned, and the sooner the result may be gone, the sooner it is asked for."""
    make_batch(connection)
    (submission,) = claim(connection)
    match way:
        case "reply":
            accept(connection, [submission])
        case "callback":
            report(connection, submission, UNREADABLE)
        case "listing":
            attach_request_id(connection, submission.id, "r", overdue_after=60)
        case "closing":
            report(connection, submission, success())
    assert one(connection, "SELECT result_lost_after > now() FROM submissions") == (True,)


def test_what_ended_already_is_asked_for_first(connection: Connection) -> None:
    """A request that a callback named has ended; one that was just accepted may not even have begun."""
    make_batch(connection, 2)
    accepted, named = claim(connection)
    accept(connection, [accepted])
    report(connection, named, UNREADABLE)
    fall_due(connection)
    assert [due.id for due in claim_polls(connection, limit=1, lease=60)] == [named.id]


def test_permanent_failure_of_a_reopened_submission_ends_the_edit(connection: Connection) -> None:
    """Once it is in flight again it decides, as any other."""
    first = given_up(connection)
    report(connection, first, UNREADABLE)
    record_reports(
        connection, [answer(first, failure("content_policy_violation", Retry.NEVER), LearnedBy.POLL)], POLICY
    )
    assert states(connection) == {"failed": 1}


def test_lookup_tells_what_it_needs(connection: Connection) -> None:
    """A submission past its deadline comes without its input, which may be megabytes."""
    make_batch(connection)
    claim(connection)
    fall_due(connection)
    (due,) = claim_unknown(connection, limit=9, lease=60)
    assert (due.lookups, due.denials, due.searched_to) == (1, 0, None)
