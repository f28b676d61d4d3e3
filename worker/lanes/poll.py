"""The poll lane: ask about what was not heard of in time; silence is a state too.

Status first, then the result, which goes the same way as a callback's (`models/record_reports.py`). With no public URL
this lane alone carries the system. What the queue has forgotten may still stand in the provider's listing; what
never showed a request id is `unknown_submissions.py`'s.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog
from sqlalchemy import Connection

from core.errors import AccountPaused, Gone, TryLater
from http_client.sessions import BODY_TIMEOUT, CONNECT_TIMEOUT
from models.claims import DuePoll, claim_polls, claim_unknown, renew_polls
from models.decisions import RESULT_EXPIRED, ProviderReport
from models.due_work import FirstDue, first_due
from models.provider import is_paused
from models.record_reports import record_reports
from models.states import Effect, LearnedBy
from models.traces import TRACES_OF_SUBMISSIONS
from models.transitions import DenialCount, NextPoll, record_cancel_sent, schedule_poll
from models.verdict import Kind, Verdict
from provider import platform
from provider.listing import Listing
from provider.queue_api import ASK_TIMEOUT, QueueAPI
from worker.dependencies import Dependencies
from worker.lane import CallingLane, CallResult
from worker.settings import WorkerSettings
from worker.unknown_submissions import look_up_unknown

log = structlog.get_logger()

QUESTION = CONNECT_TIMEOUT + ASK_TIMEOUT + BODY_TIMEOUT
PLATFORM_QUESTION = CONNECT_TIMEOUT + platform.TIMEOUT + BODY_TIMEOUT
"""Seconds that one question to the queue, and one to the listing, takes at the most."""
CLAIM_MAX = 100
WIDTH = 32
"""Questions under way at one time, per process."""
LONGEST_TURN = 60.0
"""Seconds; after a turn come the unknown submissions."""
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
    denials: DenialCount = DenialCount.RESET


class PollLane(CallingLane[DuePoll, PollOutcome]):
    """Asks until nobody is due; then looks up what became of unknown submissions."""

    traces = TRACES_OF_SUBMISSIONS
    longest_call = 3 * QUESTION + PLATFORM_QUESTION  # the wish to cancel, the status, the result; then the listing
    longest_turn = LONGEST_TURN
    width = WIDTH

    def __init__(self, dependencies: Dependencies) -> None:
        super().__init__(dependencies)
        self.lease = self.settings.claim_lease

    def take_turn(self, should_continue: Callable[[], bool]) -> int:
        """Returns the number of submissions asked about."""
        polled = super().take_turn(should_continue)
        look_up_unknown(self.engine, self.dependencies.listing, self.settings)
        return polled

    def claim(self, free: int) -> Sequence[DuePoll]:
        """Submissions that were not heard of in time."""
        with self.engine.begin() as connection:
            return claim_polls(connection, limit=min(free, CLAIM_MAX), lease=self.lease)

    def perform(self, due: DuePoll) -> PollOutcome:
        """Ask the provider about one."""
        return ask(self.dependencies.queue, self.dependencies.listing, due, self.settings)

    def record(self, outcomes: Sequence[PollOutcome]) -> None:
        """What the provider answered."""
        with self.engine.begin() as connection:
            record_polls(connection, outcomes, self.settings)

    def describe(self, outcome: PollOutcome) -> CallResult:
        """The verdict's kind; without one, whether the provider was reached."""
        if outcome.verdict is None:
            return CallResult(
                "unanswered" if outcome.note else "unfinished", outcome.note is not None, outcome.due.request_id
            )
        kind = outcome.verdict.kind
        return CallResult(kind.value, kind is Kind.FAILED, outcome.due.request_id)

    def renew(self, due: Sequence[DuePoll]) -> None:
        """Nobody else asks about these meanwhile."""
        with self.engine.begin() as connection:
            renew_polls(connection, [poll.id for poll in due], lease=self.lease)

    @classmethod
    def find_first_due(cls, connection: Connection, settings: WorkerSettings) -> FirstDue | None:  # noqa: ARG003
        """The next submission, whether the provider is asked about it or the listing."""
        with connection.begin_nested() as claim:
            rows = claim_polls(connection, limit=1, lease=1) or claim_unknown(connection, limit=1, lease=1)
            claim.rollback()
        return first_due(connection, "submissions", [row.id for row in rows])


def ask(queue: QueueAPI, listing: Listing, due: DuePoll, settings: WorkerSettings) -> PollOutcome:
    """What the provider says about one submission, after sending a cancel where one was requested."""
    cancel_sent = due.cancel and _send_cancel(queue, due)
    return _ask(queue, listing, due, settings)._replace(cancel_sent=cancel_sent)


def _send_cancel(queue: QueueAPI, due: DuePoll) -> bool:
    """Whether the provider was reached; what came of the cancel, status and result tell (provider-protocol 2.5)."""
    try:
        accepted = queue.cancel(due.endpoint, due.request_id)
    except (TryLater, AccountPaused) as error:
        log.info("cancel_unanswered", request=due.request_id, reason=str(error))
        return False
    log.info("cancel_sent", request=due.request_id, accepted=accepted)
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
        return PollOutcome(due, None, note=str(error), denials=DenialCount.KEEP)


def _search_listing(listing: Listing, due: DuePoll, settings: WorkerSettings) -> PollOutcome:
    """404 means expired, never "did not run" (provider-protocol 14.8): the result may have been charged.

    One 404 may be a mistake as well; so only several in a row are believed, over as long as a result is kept at least,
    each with a listing that does not have it either, or is not for this key.
    """
    try:
        verdict = listing.one(due.endpoint, due.request_id)
    except Gone:
        verdict = None
    except TryLater as error:
        return PollOutcome(due, None, note=str(error), denials=DenialCount.KEEP)
    if verdict is None and (due.denials + 1 < DENIALS or due.denied_for < settings.result_retention):
        note = "the queue answers 404, and the listing does not have it"
        return PollOutcome(due, None, note=note, denials=DenialCount.ADD)
    log.warning("result_expired", request=due.request_id, listed=verdict is not None)
    return PollOutcome(due, verdict or EXPIRED, LearnedBy.LISTING if verdict else LearnedBy.POLL)


def record_polls(connection: Connection, outcomes: Sequence[PollOutcome], settings: WorkerSettings) -> None:
    """One transaction for a set of answers; who gave none is asked again later."""
    # what the provider refuses while the account is paused, it refuses the account
    if any(map(_is_denial, outcomes)) and is_paused(connection):
        outcomes = [
            item._replace(verdict=None, denials=DenialCount.KEEP) if _is_denial(item) else item for item in outcomes
        ]
    answers = [
        ProviderReport(item.due.id, item.due.request_id, item.verdict, item.learned_by, item.inference_time)
        for item in outcomes
        if item.verdict is not None and item.verdict.kind is not Kind.UNFETCHED
    ]
    effects = record_reports(connection, answers, settings) if answers else []
    for answer, effect in zip(answers, effects, strict=True):
        if effect is not Effect.APPLIED:
            log.info("poll_overtaken", request=answer.request_id, effect=effect.value)
    if cancelled := [item.due.id for item in outcomes if item.cancel_sent]:
        record_cancel_sent(connection, cancelled)
    answered = {answer.submission_id for answer in answers}
    silent = [item for item in outcomes if item.due.id not in answered]
    schedule_poll(
        connection,
        [
            NextPoll(
                item.due.id,
                settings.poll_every * min(SLOWEST, 1 + item.due.polls / 10),
                item.note,
                item.denials,
            )
            for item in silent
        ],
    )


def _is_denial(outcome: PollOutcome) -> bool:
    return outcome.denials is DenialCount.ADD or outcome.verdict is EXPIRED
