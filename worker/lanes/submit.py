"""The submit lane: write submissions down, POST them, record what the provider replied.

The write-ahead row is committed before the POST; its id is the token in the webhook URL. What the reply says is
sorted by the client (`queue_api.py`) into: accepted, certainly not sent, refused for the account, refused for
good, unknown. An unknown outcome is left alone here: the callback reveals its request id, or the poll lane proves it
dead.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import Connection

from core.errors import AccountPaused, ProviderError, Refused, UnknownOutcome, Unsent
from core.memory_budget import Tally
from http_client.sessions import BODY_TIMEOUT, CONNECT_TIMEOUT
from models.claims import claim_edits, fit_edits
from models.due_work import EDITS_DUE, FirstDue, first_due, which_hold
from models.provider import count_unknown, pause, price_per_image, resume
from models.seedream import as_sent
from models.sent_inputs import put_delivered_inputs
from models.traces import TRACES_OF_SUBMISSIONS
from models.transitions import (
    Refusal,
    Submission,
    record_accepted,
    record_refused,
    revert_unsent,
    start_submissions,
)
from provider.queue_api import SUBMIT_TIMEOUT, QueueAPI
from worker.crash_points import crash_point
from worker.dependencies import Dependencies
from worker.lane import CallingLane, CallResult
from worker.settings import WorkerSettings

log = structlog.get_logger()

CLAIM_MAX = 100
"""Edits claimed at one time, at most: one statement, one commit."""
BODY_BYTES = 32 * 2**20
"""Bytes of arguments in hand at one time, per process, beside one edit: an edit may hold its images in itself.
Each byte is there several times: as the database's answer, as values, as the body of the POST."""
OUTAGE = 5
"""Submits in a row with unknown outcome after which submitting pauses: each of them waits for its unknown deadline."""


class Reply(NamedTuple):
    """What became of one POST: a request id, or the error that tells what to do."""

    submission: Submission
    request_id: str | None
    error: ProviderError | None


class SubmitLane(CallingLane[Submission, Reply]):
    """Submits until no pending edit may be submitted any more.

    While the window is full it waits: a freed place should be filled at once, not at the next tick.
    """

    traces = TRACES_OF_SUBMISSIONS
    longest_call = CONNECT_TIMEOUT + SUBMIT_TIMEOUT + BODY_TIMEOUT

    def __init__(self, dependencies: Dependencies) -> None:
        super().__init__(dependencies)
        self.width = self.settings.submit_threads
        self._bodies = Tally(BODY_BYTES)

    def claim(self, free: int) -> Sequence[Submission]:
        """Due edits, each with its submission written down."""
        if self._bodies.free <= 0:
            return []
        with self.engine.begin() as connection:
            submissions = start_due_edits(
                connection, self.settings, limit=min(free, CLAIM_MAX), max_bytes=self._bodies.free
            )
        for submission in submissions:
            self._bodies.add(submission.id, text_size(submission.arguments))
        if submissions:
            crash_point("after_claim", self.settings)
        return submissions

    def perform(self, submission: Submission) -> Reply:
        """The one POST of a submission."""
        try:
            reply = post(self.dependencies.queue, submission, webhook_url(self.settings, submission.id))
        finally:
            submission.arguments.clear()  # sent, whatever became of it: nobody needs it while others are waited for
            self._bodies.remove(submission.id)
        crash_point("after_post", self.settings)
        return reply

    def record(self, replies: Sequence[Reply]) -> None:
        """What became of the POSTs."""
        crash_point("before_record", self.settings)
        with self.engine.begin() as connection:
            record_replies(connection, replies, self.settings)
        crash_point("after_record", self.settings)

    def describe(self, reply: Reply) -> CallResult:
        """Accepted, or by which error it was not."""
        outcome = "accepted" if reply.error is None else type(reply.error).__name__
        return CallResult(outcome, reply.error is not None, reply.request_id)

    def has_backlog(self) -> bool:
        """Whether edits are due that find no place in the window."""
        with self.engine.begin() as connection:
            return which_hold(connection, {"edits": EDITS_DUE})["edits"]

    @classmethod
    def find_first_due(cls, connection: Connection, settings: WorkerSettings) -> FirstDue | None:
        """The next edit."""
        price = price_per_image(connection, settings.price_per_image)
        return first_due(connection, "edits", claim_due_edits(connection, settings, limit=1, price=price))


def claim_due_edits(connection: Connection, settings: WorkerSettings, *, limit: int, price: Decimal) -> list[int]:
    """Ids of edits to submit now, at `price` (USD an image)."""
    window, probe_after = settings.max_in_flight, settings.provider_retry_after
    return claim_edits(connection, limit=limit, window=window, probe_after=probe_after, price=price)


def start_due_edits(
    connection: Connection, settings: WorkerSettings, *, limit: int, max_bytes: int
) -> list[Submission]:
    """Submissions of due edits with `max_bytes` bytes of arguments between them, but always one, if any is due."""
    price = price_per_image(connection, settings.price_per_image)
    ids = claim_due_edits(connection, settings, limit=limit, price=price)
    if not ids:
        return []
    ids = fit_edits(connection, ids, max_bytes=max_bytes)
    submissions = start_submissions(connection, ids, unknown_deadline=settings.unknown_deadline, price=price)
    return put_delivered_inputs(connection, submissions, needed_for=settings.input_needed_for)


def text_size(value: object) -> int:
    """Characters of all texts in JSON; near enough its bytes where these matter, in data URIs."""
    if isinstance(value, str):
        return len(value)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(map(text_size, parts))


def webhook_url(settings: WorkerSettings, token: UUID) -> str | None:
    """Where the provider should deliver; None where it cannot reach us."""
    return f"{settings.public_url}/webhooks/fal/{token}" if settings.public_url else None


def post(queue: QueueAPI, submission: Submission, url: str | None) -> Reply:
    """The one POST of a submission."""
    arguments = as_sent(submission.arguments, submission.seed)
    try:
        return Reply(submission, queue.submit(submission.endpoint, arguments, webhook_url=url), None)
    except ProviderError as error:
        log.warning("submit_failed", edit=submission.edit_id, outcome=type(error).__name__)
        return Reply(submission, None, error)


def record_replies(connection: Connection, replies: Sequence[Reply], settings: WorkerSettings) -> None:
    """One transaction for a set of replies."""
    accepted = [(reply.submission.id, reply.request_id) for reply in replies if reply.request_id]
    if accepted:
        record_accepted(
            connection, accepted, poll_after=settings.poll_after, unknown_deadline=settings.unknown_deadline
        )
    refused = [
        Refusal(reply.submission.id, reply.error.type, reply.error.message)
        for reply in replies
        if isinstance(reply.error, Refused)
    ]
    record_refused(connection, refused)
    if accepted or refused:  # both are an answer about the edit, which a refused account does not get
        resume(connection)
    for kind in (Unsent, AccountPaused):
        back = [reply for reply in replies if isinstance(reply.error, kind)]
        if back:
            _record_pause(connection, back, settings)
    _watch_for_outage(connection, [reply for reply in replies if isinstance(reply.error, UnknownOutcome)], settings)


def _watch_for_outage(connection: Connection, unknown: Sequence[Reply], settings: WorkerSettings) -> None:
    """Pause where POSTs go out and nothing usable comes back, neither reply nor callback."""
    if unknown and count_unknown(connection, [reply.submission.id for reply in unknown]) >= OUTAGE:
        pause(connection, "outage", str(unknown[-1].error), retry_after=settings.provider_retry_after)


def _record_pause(connection: Connection, replies: Sequence[Reply], settings: WorkerSettings) -> None:
    """The edits go back as they were; the account waits, because the next POST would fare the same."""
    error = replies[0].error
    reason = error.reason if isinstance(error, AccountPaused) else "unreachable"
    revert_unsent(connection, [reply.submission.id for reply in replies], reason=reason, delay=0)
    pause(connection, reason, str(error), retry_after=settings.provider_retry_after)
