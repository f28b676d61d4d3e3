"""The poll lane: ask about what was not heard of in time; silence is a state too.

Status first, then the result, which goes the same way as a callback's (`models/answers.py`). With no public URL
this lane alone carries the system. What the queue has forgotten may still stand in the provider's listing; what
never showed a request id is `lost.py`'s.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog
from sqlalchemy import Connection, Engine

from models.answers import record_answers
from models.claims import DuePoll, claim_polls, renew_polls
from models.errors import AccountPaused, Gone, TryLater
from models.rulings import RESULT_EXPIRED, Answer
from models.states import Effect, LearnedBy
from models.transitions import poll_again, record_cancel_asked
from models.verdict import Kind, Verdict
from worker.listing import Listing
from worker.queue_api import QueueAPI
from worker.settings import WorkerSettings
from worker.waves import flow

log = structlog.get_logger()

WAVE = 100
WIDTH = 32
"""Questions under way at one time, per process."""
SLOWEST = 8
"""The interval between polls of one submission grows to this many times `POLL_EVERY`."""

EXPIRED = Verdict(
    Kind.FAILED, error_type=RESULT_EXPIRED, message="The provider no longer has the result; it may have been charged."
)


class Heard(NamedTuple):
    """What asking about one submission brought: a verdict, or nothing yet."""

    due: DuePoll
    verdict: Verdict | None
    learned_by: LearnedBy = LearnedBy.POLL
    cancel_heard: bool = False
    """The provider took or refused the wish to cancel."""


def run(engine: Engine, queue: QueueAPI, listing: Listing, settings: WorkerSettings, go_on: Callable[[], bool]) -> int:
    """Ask until nobody is due; returns the number of submissions asked about."""

    def claim(free: int) -> Sequence[DuePoll]:
        with engine.begin() as connection:
            return claim_polls(connection, limit=min(free, WAVE), lease=settings.claim_lease)

    def call(due: DuePoll) -> Heard:
        return ask(queue, listing, due, result_retention=settings.result_retention)

    def record(heard: Sequence[Heard]) -> None:
        with engine.begin() as connection:
            record_heard(connection, heard, settings)

    def renew(under_way: Sequence[DuePoll]) -> None:
        with engine.begin() as connection:
            renew_polls(connection, [due.id for due in under_way], lease=settings.claim_lease)

    return flow(
        width=WIDTH, claim=claim, call=call, record=record, go_on=go_on, renew=renew, lease=settings.claim_lease
    )


def ask(queue: QueueAPI, listing: Listing, due: DuePoll, *, result_retention: float) -> Heard:
    """What the provider says about one submission, having been told of a wish to cancel it."""
    cancel_heard = due.cancel and _tell_of_the_wish(queue, due)
    return _ask(queue, listing, due, result_retention=result_retention)._replace(cancel_heard=cancel_heard)


def _tell_of_the_wish(queue: QueueAPI, due: DuePoll) -> bool:
    """Whether the provider heard; what it made of the wish, the status and the result tell (fal-protocol 2.5)."""
    try:
        taken = queue.cancel(due.endpoint, due.request_id)
    except (TryLater, AccountPaused) as error:
        log.info("cancel_unanswered", request=due.request_id, reason=str(error))
        return False
    log.info("cancel_asked", request=due.request_id, taken=taken)
    return True


def _ask(queue: QueueAPI, listing: Listing, due: DuePoll, *, result_retention: float) -> Heard:
    try:
        status = queue.status(due.endpoint, due.request_id)
        if not status.completed:
            return Heard(due, None)
        return Heard(due, queue.result(due.endpoint, due.request_id, failed=status.failed))
    except Gone:
        # nothing expires so soon: an early 404 is somebody's mistake, and the result may be read yet
        return _ask_the_listing(listing, due) if due.age > result_retention else Heard(due, None)
    except (TryLater, AccountPaused) as error:
        log.info("poll_unanswered", request=due.request_id, reason=str(error))
        return Heard(due, None)


def _ask_the_listing(listing: Listing, due: DuePoll) -> Heard:
    """404 means expired, never "did not run" (fal-protocol 14.8): the result may have been charged."""
    try:
        verdict = listing.one(due.endpoint, due.request_id)
    except Gone:
        verdict = None
    except TryLater:
        return Heard(due, None)
    log.warning("result_expired", request=due.request_id, listed=verdict is not None)
    return Heard(due, verdict or EXPIRED, LearnedBy.LISTING if verdict else LearnedBy.POLL)


def record_heard(connection: Connection, heard: Sequence[Heard], settings: WorkerSettings) -> None:
    """One transaction for a set of answers; who gave none is asked again later."""
    answers = [
        Answer(item.due.id, item.due.request_id, item.verdict, item.learned_by)
        for item in heard
        if item.verdict is not None and item.verdict.kind is not Kind.UNFETCHED
    ]
    effects = record_answers(connection, answers, settings) if answers else []
    for answer, effect in zip(answers, effects, strict=True):
        if effect is not Effect.APPLIED:
            log.info("poll_overtaken", request=answer.request_id, effect=effect.value)
    if told := [item.due.id for item in heard if item.cancel_heard]:
        record_cancel_asked(connection, told)
    answered = {answer.submission_id for answer in answers}
    silent = [item.due for item in heard if item.due.id not in answered]
    poll_again(
        connection,
        [(due.id, settings.poll_every * min(SLOWEST, 1 + due.polls / 10)) for due in silent],
    )
