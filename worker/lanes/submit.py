"""The submit lane: write submissions down, POST them, record what the provider replied.

The write-ahead row is committed before the POST; its id is the token in the webhook URL. What the reply says is
sorted by the client (`queue_api.py`) into: accepted, certainly not sent, refused for the account, refused for
good, unknown. An unknown outcome is left alone here: the callback reveals its request id, or the poll lane proves it
dead.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import Connection, Engine

from core.errors import AccountPaused, ProviderError, Refused, UnknownOutcome, Unsent
from core.memory_budget import Tally
from models.claims import claim_edits, fit_edits, lanes_due
from models.provider import count_unknown, pause, price_per_image, resume
from models.seedream import as_sent
from models.transitions import (
    Refusal,
    Submission,
    record_accepted,
    record_refused,
    revert_unsent,
    start_submissions,
)
from provider.queue_api import QueueAPI
from worker.crash_points import crash_point
from worker.lane_loop import run_lane
from worker.settings import WorkerSettings

log = structlog.get_logger()

WAVE = 100
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


def run(engine: Engine, queue: QueueAPI, settings: WorkerSettings, should_continue: Callable[[], bool]) -> int:
    """Submit until no pending edit may be submitted any more; returns the number of POSTs made.

    While the window is full the lane waits: a freed place should be filled at once, not at the next tick.
    """
    bodies = Tally(BODY_BYTES)

    def claim(free: int) -> Sequence[Submission]:
        if bodies.free <= 0:
            return []
        with engine.begin() as connection:
            price = price_per_image(connection, settings.price_per_image)
            ids = claim_edits(
                connection,
                limit=min(free, WAVE),
                window=settings.max_in_flight,
                probe_after=settings.provider_retry_after,
                price=price,
            )
            ids = fit_edits(connection, ids, max_bytes=bodies.free) if ids else []
            submissions = (
                start_submissions(connection, ids, unknown_deadline=settings.unknown_deadline, price=price)
                if ids
                else []
            )
        for submission in submissions:
            bodies.add(submission.id, text_size(submission.arguments))
        if submissions:
            crash_point("after_claim", settings)
        return submissions

    def call(submission: Submission) -> Reply:
        try:
            reply = post(queue, submission, webhook_url(settings, submission.id))
        finally:
            submission.arguments.clear()  # sent, whatever became of it: nobody needs it while others are waited for
            bodies.remove(submission.id)
        crash_point("after_post", settings)
        return reply

    def record(replies: Sequence[Reply]) -> None:
        crash_point("before_record", settings)
        with engine.begin() as connection:
            record_replies(connection, replies, settings)
        crash_point("after_record", settings)

    def work_is_left() -> bool:
        with engine.connect() as connection:
            return lanes_due(connection).submit

    return run_lane(
        width=settings.submit_threads,
        claim=claim,
        call=call,
        record=record,
        should_continue=should_continue,
        has_backlog=work_is_left,
    )


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
