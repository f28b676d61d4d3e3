"""The poll lane: ask about what was not heard of in time; silence is a state too.

Status first, then the result, which goes the same way as a callback's (`models/apply_reports.py`). With no public URL
this lane alone carries the system. What the queue has forgotten may still stand in the provider's listing; what
never showed a request id is `unknown_submits.py`'s.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog
from sqlalchemy import Connection, Engine

from core.errors import AccountPaused, Gone, TryLater
from models.apply_reports import apply_reports
from models.claims import DuePoll, claim_polls, renew_polls
from models.decisions import RESULT_EXPIRED, ProviderReport
from models.provider import is_paused
from models.states import Effect, LearnedBy
from models.transitions import NextPoll, record_cancel_sent, schedule_poll
from models.verdict import Kind, Verdict
from provider.listing import Listing
from provider.queue_api import QueueAPI
from worker.lane_loop import run_lane
from worker.settings import WorkerSettings

log = structlog.get_logger()

WAVE = 100
WIDTH = 32
"""Questions under way at one time, per process."""
LONGEST_TURN = 60.0
"""Seconds; after a turn come the submits that nobody heard of."""
SLOWEST = 8
"""The interval between polls of one submission grows to this many times `POLL_EVERY`."""
DENIALS = 3
"""404s in a row, at least, over `RESULT_RETENTION` seconds, before a result is held to be gone."""

EXPIRED = Verdict(
    Kind.FAILED, error_type=RESULT_EXPIRED, message="The provider no longer has the result; it may have been charged."
)


class PollOutcome(NamedTuple):
    """What asking about one submission brought: a verdict, or nothing yet."""

    due: DuePoll
    verdict: Verdict | None
    learned_by: LearnedBy = LearnedBy.POLL
    cancel_sent: bool = False
    """The provider accepted or refused the cancel."""
    inference_time: float | None = None
    """Seconds, as the status reports."""
    note: str | None = None
    """Why there is no verdict."""
    denied: bool | None = False
    """True: a 404 that counts, but does not suffice yet; None: no answer came."""


def run(
    engine: Engine, queue: QueueAPI, listing: Listing, settings: WorkerSettings, should_continue: Callable[[], bool]
) -> int:
    """Ask until nobody is due; returns the number of submissions asked about."""

    def claim(free: int) -> Sequence[DuePoll]:
        with engine.begin() as connection:
            return claim_polls(connection, limit=min(free, WAVE), lease=settings.claim_lease)

    def call(due: DuePoll) -> PollOutcome:
        return ask(queue, listing, due, settings)

    def record(heard: Sequence[PollOutcome]) -> None:
        with engine.begin() as connection:
            record_polls(connection, heard, settings)

    def renew(under_way: Sequence[DuePoll]) -> None:
        with engine.begin() as connection:
            renew_polls(connection, [due.id for due in under_way], lease=settings.claim_lease)

    return run_lane(
        width=WIDTH,
        claim=claim,
        call=call,
        record=record,
        should_continue=should_continue,
        renew=renew,
        lease=settings.claim_lease,
        longest_turn=LONGEST_TURN,
    )


def ask(queue: QueueAPI, listing: Listing, due: DuePoll, settings: WorkerSettings) -> PollOutcome:
    """What the provider says about one submission, after sending a cancel where one was requested."""
    cancel_sent = due.cancel and _send_cancel(queue, due)
    return _ask(queue, listing, due, settings)._replace(cancel_sent=cancel_sent)


def _send_cancel(queue: QueueAPI, due: DuePoll) -> bool:
    """Whether the provider was reached; what came of the cancel, status and result tell (fal-protocol 2.5)."""
    try:
        taken = queue.cancel(due.endpoint, due.request_id)
    except (TryLater, AccountPaused) as error:
        log.info("cancel_unanswered", request=due.request_id, reason=str(error))
        return False
    log.info("cancel_asked", request=due.request_id, taken=taken)
    return True


def _ask(queue: QueueAPI, listing: Listing, due: DuePoll, settings: WorkerSettings) -> PollOutcome:
    try:
        status = queue.status(due.endpoint, due.request_id)
        if not status.completed:
            return PollOutcome(due, None)
        verdict = queue.result(due.endpoint, due.request_id, failed=status.failed)
        return PollOutcome(due, verdict, inference_time=status.inference_time)
    except Gone:
        # nothing expires before it has ended: an earlier 404 is somebody's mistake, and the result may be read yet
        if due.age < settings.submit_start_timeout + settings.run_allowance:
            return PollOutcome(due, None, note="the queue answers 404, before the request can have ended")
        return _search_listing(listing, due, settings)
    except (TryLater, AccountPaused) as error:
        log.info("poll_unanswered", request=due.request_id, reason=str(error))
        return PollOutcome(due, None, note=str(error), denied=None)


def _search_listing(listing: Listing, due: DuePoll, settings: WorkerSettings) -> PollOutcome:
    """404 means expired, never "did not run" (fal-protocol 14.8): the result may have been charged.

    One 404 may be a mistake as well; so only several in a row are believed, over as long as a result is kept at least,
    each with a listing that does not have it either, or is not for this key.
    """
    try:
        verdict = listing.one(due.endpoint, due.request_id)
    except Gone:
        verdict = None
    except TryLater as error:
        return PollOutcome(due, None, note=str(error), denied=None)
    if verdict is None and (due.denials + 1 < DENIALS or due.denied_for < settings.result_retention):
        return PollOutcome(due, None, note="the queue answers 404, and the listing does not have it", denied=True)
    log.warning("result_expired", request=due.request_id, listed=verdict is not None)
    return PollOutcome(due, verdict or EXPIRED, LearnedBy.LISTING if verdict else LearnedBy.POLL)


def record_polls(connection: Connection, heard: Sequence[PollOutcome], settings: WorkerSettings) -> None:
    """One transaction for a set of answers; who gave none is asked again later."""
    # what the provider refuses while the account is paused, it refuses the account
    if any(item.denied or item.verdict is EXPIRED for item in heard) and is_paused(connection):
        heard = [
            item._replace(verdict=None, denied=None) if item.denied or item.verdict is EXPIRED else item
            for item in heard
        ]
    answers = [
        ProviderReport(item.due.id, item.due.request_id, item.verdict, item.learned_by, item.inference_time)
        for item in heard
        if item.verdict is not None and item.verdict.kind is not Kind.UNFETCHED
    ]
    effects = apply_reports(connection, answers, settings) if answers else []
    for answer, effect in zip(answers, effects, strict=True):
        if effect is not Effect.APPLIED:
            log.info("poll_overtaken", request=answer.request_id, effect=effect.value)
    if told := [item.due.id for item in heard if item.cancel_sent]:
        record_cancel_sent(connection, told)
    answered = {answer.submission_id for answer in answers}
    silent = [item for item in heard if item.due.id not in answered]
    schedule_poll(
        connection,
        [
            NextPoll(
                item.due.id,
                settings.poll_every * min(SLOWEST, 1 + item.due.polls / 10),
                item.note,
                item.denied,
            )
            for item in silent
        ],
    )
