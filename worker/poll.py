"""The poll lane: ask about what was not heard of in time; silence is a state too.

Status first, then the result, which goes the same way as a callback's (`models/answers.py`). With no public URL
this lane alone carries the system. A submission whose POST is past the proven deadline, and which never showed
a request id, is given up here: resubmitted or parked, by policy, the possible second charge written down.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog
from sqlalchemy import Connection, Engine

from models.answers import record_answers
from models.claims import DuePoll, claim_polls
from models.errors import AccountPaused, Gone, TryLater
from models.rulings import Answer
from models.states import Effect, LearnedBy
from models.transitions import give_up_unknown, poll_again
from models.verdict import Kind, Verdict
from worker.queue_api import QueueAPI
from worker.settings import WorkerSettings
from worker.waves import flow

log = structlog.get_logger()

WAVE = 100
WIDTH = 32
"""Questions under way at one time, per process."""
LEASE = 120.0
"""Seconds; longer than a status and a result may take together."""
SLOWEST = 8
"""The interval between polls of one submission grows to this many times `POLL_EVERY`."""

EXPIRED = Verdict(
    Kind.FAILED, error_type="result_expired", message="The provider no longer has the result; it may have been charged."
)


class Heard(NamedTuple):
    """What asking about one submission brought: a verdict, or nothing yet."""

    due: DuePoll
    verdict: Verdict | None


def run(engine: Engine, queue: QueueAPI, settings: WorkerSettings, go_on: Callable[[], bool]) -> int:
    """Ask until nobody is due; returns the number of submissions asked about."""

    def claim(free: int) -> Sequence[DuePoll]:
        with engine.begin() as connection:
            give_up_unknown(
                connection,
                resubmit=settings.on_unknown == "resubmit",
                max_attempts=settings.max_attempts,
                limit=WAVE,
            )
            return claim_polls(connection, limit=min(free, WAVE), lease=LEASE)

    def call(due: DuePoll) -> Heard:
        return Heard(due, ask(queue, due))

    def record(heard: Sequence[Heard]) -> None:
        with engine.begin() as connection:
            record_heard(connection, heard, settings)

    return flow(width=WIDTH, claim=claim, call=call, record=record, go_on=go_on, linger=lambda: False)


def ask(queue: QueueAPI, due: DuePoll) -> Verdict | None:
    """The verdict about one submission, or None where there is none yet."""
    try:
        if not queue.status(due.endpoint, due.request_id).completed:
            return None
        return queue.result(due.endpoint, due.request_id)
    except Gone:
        log.warning("result_expired", submission=str(due.id), request=due.request_id)
        return EXPIRED
    except (TryLater, AccountPaused) as error:
        log.info("poll_unanswered", submission=str(due.id), request=due.request_id, reason=str(error))
        return None


def record_heard(connection: Connection, heard: Sequence[Heard], settings: WorkerSettings) -> None:
    """One transaction for a set of answers; who gave none is asked again later."""
    answers = [
        Answer(item.due.id, item.due.request_id, item.verdict, LearnedBy.POLL)
        for item in heard
        if item.verdict is not None and item.verdict.kind is not Kind.UNFETCHED
    ]
    effects = record_answers(connection, answers, settings) if answers else []
    for answer, effect in zip(answers, effects, strict=True):
        if effect is not Effect.APPLIED:
            log.info("poll_overtaken", submission=str(answer.submission_id), effect=effect.value)
    answered = {answer.submission_id for answer in answers}
    silent = [item.due for item in heard if item.due.id not in answered]
    poll_again(
        connection,
        [(due.id, settings.poll_every * min(SLOWEST, 1 + due.polls / 10)) for due in silent],
    )
