"""Limits of a batch's own: tolerated failures, deadline, ceiling of cost; and what becomes of the rest."""

from decimal import Decimal
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine

from intake import batch_actions
from intake.batches import BatchHeader, create
from intake.manifest import read_objects
from models.claims import claim_images
from models.criteria import broken_batches
from models.provider import learn_price, price_is_older, price_per_image
from models.record_reports import record_reports
from models.transitions import (
    ImageFault,
    Submission,
    cancel_batch,
    record_image_faults,
    resolve_unknown,
    revert_unsent,
    settle_batches,
)
from models.verdict import Retry
from tests.support.factories import (
    POLICY,
    PRICE,
    accept,
    answer,
    claim,
    failure,
    fall_due,
    make_batch,
    states,
    success,
    unbalanced,
)


def criteria(connection: Connection) -> list[str]:
    return [broken.criterion.value for broken in broken_batches(connection, price=PRICE)]


def fail(connection: Connection, submissions: list[Submission]) -> None:
    verdict = failure("content_policy_violation", Retry.NEVER)
    record_reports(connection, [answer(submission, verdict) for submission in submissions], POLICY)


def committed(connection: Connection) -> Decimal:
    found = connection.exec_driver_sql("SELECT committed FROM spending").scalar_one()
    assert isinstance(found, Decimal)
    return found


def test_tolerated_failures(engine: Engine) -> None:
    """As many failures as tolerated are; one more ends the batch, and its message says `batch.failed`."""
    with engine.begin() as connection:
        batch_id = make_batch(connection, 5, tolerated_failures=1, notify_url="https://example.com/hook")
        submissions = claim(connection, limit=2)
        accept(connection, submissions)
        fail(connection, submissions[:1])
        assert criteria(connection) == []
        fail(connection, submissions[1:])
        [broken] = broken_batches(connection, price=PRICE)
        assert cancel_batch(connection, batch_id, criterion=broken.criterion) == 3
        assert states(connection) == {"failed": 2, "cancelled": 3}
        assert settle_batches(connection) == [batch_id]
        event, payload = connection.exec_driver_sql("SELECT event, payload -> 'data' FROM notifications").one()
        assert event == "batch.failed"
        assert (payload["failed"], payload["cancelled"]) == (2, 3)
        assert payload["broken_criterion"] == "tolerated_failures"


def test_failures_in_percent(engine: Engine) -> None:
    """A quarter of four is one; two are more."""
    with engine.begin() as connection:
        make_batch(connection, 4, tolerated_failure_percent=Decimal(25))
        submissions = claim(connection, limit=2)
        accept(connection, submissions)
        fail(connection, submissions[:1])
        assert criteria(connection) == []
        fail(connection, submissions[1:])
        assert criteria(connection) == ["tolerated_failure_percent"]


def test_failures_of_the_last_edits_are_told_though_nothing_is_left(engine: Engine) -> None:
    """Whether the last failures come one tick earlier or later must make no difference to the caller."""
    with engine.begin() as connection:
        batch_id = make_batch(connection, 1, tolerated_failures=0)
        submissions = claim(connection)
        accept(connection, submissions)
        fail(connection, submissions)
        assert criteria(connection) == []
        settle_batches(connection)
        assert connection.exec_driver_sql("SELECT broken_criterion FROM batches").scalar() == "tolerated_failures"
        assert batch_actions.retry(connection, batch_id) == 1
        assert connection.exec_driver_sql("SELECT broken_criterion FROM batches").scalar() is None


def test_skipped_lines_are_no_failures(engine: Engine) -> None:
    """They were never tried."""
    good: dict[str, object] = {"prompt": "x", "image_urls": ["https://example.com/a.png"]}
    with engine.begin() as connection:
        create(connection, BatchHeader(tolerated_failures=0), read_objects([good, {}]), on_invalid="skip")
        assert criteria(connection) == []


def test_deadline(engine: Engine) -> None:
    """Past it nothing is submitted any more, even before the settle lane comes."""
    with engine.begin() as connection:
        make_batch(connection, 2)
        connection.exec_driver_sql("UPDATE batches SET deadline = now() + interval '1 hour'")
        assert len(claim(connection, limit=1)) == 1
        connection.exec_driver_sql("UPDATE batches SET deadline = now() - interval '1 s'")
        assert claim(connection) == []
        assert criteria(connection) == ["deadline"]


def priced_batch(connection: Connection, max_cost: str, *images: int) -> UUID:
    """Edits that may bring so many images each, under a ceiling."""
    edits = [{"prompt": "x", "image_urls": ["https://example.com/a.png"], "max_images": count} for count in images]
    return create(connection, BatchHeader(max_cost=Decimal(max_cost)), read_objects(edits)).batch_id


def test_ceiling_counts_the_worst_case_until_the_real_number_is_known(engine: Engine) -> None:
    """0.12 USD are four images: one edit of three at a time; when it brings one only, the next has room."""
    with engine.begin() as connection:
        priced_batch(connection, "0.12", 3, 3)
        [first] = claim(connection)
        assert committed(connection) == Decimal("0.09")
        assert claim(connection) == []
        assert criteria(connection) == []  # what is in flight may turn out cheaper
        accept(connection, [first])
        record_reports(connection, [answer(first, success(1))], POLICY)
        assert committed(connection) == Decimal("0.03")
        assert len(claim(connection)) == 1
        assert unbalanced(connection) == []


def test_ceiling_that_nothing_fits_under_ends_the_batch(engine: Engine) -> None:
    """Nothing in flight, and the next edit costs too much: it would wait for ever."""
    with engine.begin() as connection:
        priced_batch(connection, "0.10", 3, 3)
        [first] = claim(connection)
        accept(connection, [first])
        record_reports(connection, [answer(first, success(3))], POLICY)
        assert claim(connection) == []
        assert criteria(connection) == ["max_cost"]


def test_ceiling_is_never_passed_by_one_claim(engine: Engine) -> None:
    """Ten edits, room for three: a claim takes three."""
    with engine.begin() as connection:
        priced_batch(connection, "0.10", *[1] * 10)
        assert len(claim(connection, limit=10)) == 3


@pytest.mark.parametrize("resubmit", [True, False])
def test_unknown_submit_stays_reserved(engine: Engine, resubmit: bool) -> None:
    """It may have been charged, and nobody will ever know."""
    with engine.begin() as connection:
        priced_batch(connection, "1", 2)
        [lost] = claim(connection)
        fall_due(connection)
        resolve_unknown(connection, [lost.id], resubmit=resubmit, max_attempts=3)
        assert committed(connection) == Decimal("0.06")
        claim(connection)
        assert committed(connection) == Decimal("0.12" if resubmit else "0.06")
        assert unbalanced(connection) == []


def test_what_was_never_sent_or_failed_is_free(engine: Engine) -> None:
    """The reservation is given back."""
    with engine.begin() as connection:
        priced_batch(connection, "1", 2, 2)
        unsent, refused = claim(connection)
        revert_unsent(connection, [unsent.id], reason="unreachable", delay=3600)
        accept(connection, [refused])
        fail(connection, [refused])
        assert committed(connection) == 0
        assert unbalanced(connection) == []


def test_a_batch_without_ceiling_keeps_no_account(engine: Engine) -> None:
    """Most batches have none, and pay nothing for it."""
    with engine.begin() as connection:
        make_batch(connection)
        claim(connection)
        assert connection.exec_driver_sql("SELECT count(*) FROM spending").scalar() == 0


def test_costs_tell_reserved_paid_wasted_and_uncertain(engine: Engine) -> None:
    """One in flight, one paid, one paid and failed in storage, one never heard of: each in its own column, and the sums
    of every view are the same."""
    with engine.begin() as connection:
        priced_batch(connection, "10", 2, 2, 2, 2)
        _, paid, broken, lost = in_flight = claim(connection)
        accept(connection, in_flight[:3])
        record_reports(connection, [answer(paid, success(2)), answer(broken, success(1))], POLICY)
        [*_, image] = claim_images(connection, limit=10, lease=60)
        owner = connection.exec_driver_sql(
            "SELECT edit_id FROM submissions s JOIN images i ON i.submission_id = s.id WHERE i.id = %s", (image.id,)
        ).scalar_one()
        assert owner == broken.edit_id
        record_image_faults(connection, [ImageFault(image.id, "undecodable", "broken", None)])
        fall_due(connection)
        resolve_unknown(connection, [lost.id], resubmit=False, max_attempts=3)
        amounts = (Decimal("0.06"), Decimal("0.09"), Decimal("0.03"), Decimal("0.06"))
        for view in ("edit_costs", "batch_costs", "client_costs", "daily_costs", "charges"):
            query = f"SELECT sum(reserved), sum(paid), sum(wasted), sum(uncertain) FROM {view}"
            assert tuple(connection.exec_driver_sql(query).one()) == amounts, view


def test_price_of_the_provider_holds_unless_configured(engine: Engine) -> None:
    """What was submitted at a price is charged at it."""
    with engine.begin() as connection:
        assert price_per_image(connection, None) == PRICE
        assert price_is_older(connection, 60)
        assert not price_is_older(connection, 60)
        learn_price(connection, Decimal("0.05"))
        assert price_per_image(connection, None) == Decimal("0.05")
        assert price_per_image(connection, Decimal("0.01")) == Decimal("0.01")
        learn_price(connection, Decimal(0))  # as a release before this one did; no `max_cost` would hold
        assert price_per_image(connection, None) == PRICE
