"""The notify lane: tell callers, signed, that their batches have ended (docs/notifications.md).

At least once: a worker that dies between a POST and its record has the message sent again, under the same
`webhook-id`. Never unsigned: a message to a client without a secret waits, with the reason, and loses no attempt by it.
"""

from collections.abc import Callable, Collection, Sequence
from random import uniform

import structlog
from sqlalchemy import Engine

from models.notifications import (
    Attempt,
    DueNotification,
    claim_notifications,
    put_off_notifications,
    record_attempts,
    renew_notifications,
)
from worker.crash_points import crash_point
from worker.lane_loop import run_lane
from worker.settings import WorkerSettings
from worker.webhook_sender import WebhookResponse, WebhookSender

log = structlog.get_logger()

WIDTH = 16
"""POSTs under way at one time, per process; a silent receiver holds one of them for `webhook_sender.TIMEOUT`."""
MINUTE, HOUR = 60.0, 3600.0
DELAYS = (5.0, 5 * MINUTE, 30 * MINUTE, *(hours * HOUR for hours in (2, 5, 10, 14, 20, 24)))
"""Seconds from a failed attempt to the next: ten attempts over about three days, then it is given up."""
JITTER = (0.9, 1.1)
LONGEST_WAIT = 24 * HOUR
"""What a receiver may ask for with `Retry-After`. It never shortens a delay: with ten attempts, one that always
asks for a second would be given up after ten."""
UNSIGNED = "NOTIFY_SECRET has no secret for this client where the notify lane runs; this waits until it has one."
SECRET_DELAY = MINUTE
"""Seconds until a message that waits for a secret is looked at again."""
SET = 1000


def run(engine: Engine, sender: WebhookSender, settings: WorkerSettings, should_continue: Callable[[], bool]) -> int:
    """Deliver until nothing is due; returns the number of tries."""
    if sender.clients is not None:
        put_off(engine, sender.clients)

    def claim(free: int) -> Sequence[DueNotification]:
        with engine.begin() as connection:
            return claim_notifications(connection, limit=free, lease=settings.claim_lease, clients=sender.clients)

    def call(due: DueNotification) -> Attempt:
        answer = sender.deliver(due.url, str(due.id), due.payload, client=due.client)
        crash_point("after_notify", settings)
        return decide_delivery(due, answer)

    def record(attempts: Sequence[Attempt]) -> None:
        with engine.begin() as connection:
            record_attempts(connection, attempts)

    def renew(under_way: Sequence[DueNotification]) -> None:
        with engine.begin() as connection:
            renew_notifications(connection, [due.id for due in under_way], lease=settings.claim_lease)

    return run_lane(
        width=WIDTH,
        claim=claim,
        call=call,
        record=record,
        should_continue=should_continue,
        renew=renew,
        lease=settings.claim_lease,
    )


def put_off(engine: Engine, signable: Collection[str]) -> None:
    """Have everything that is due to any other client wait for a secret."""
    waiting = SET
    while waiting == SET:
        with engine.begin() as connection:
            waiting = len(put_off_notifications(connection, UNSIGNED, signable, limit=SET, delay=SECRET_DELAY))
        if waiting:
            log.warning("notifications_wait", waiting=waiting, reason=UNSIGNED)


def decide_delivery(due: DueNotification, answer: WebhookResponse) -> Attempt:
    """What follows from an answer."""
    if answer.error is None:
        log.info("notified", notification=str(due.id), batch=str(due.batch_id), status=answer.status)
        return Attempt(due.id, due.attempt, answer.status, None, None)
    delay = None if answer.permanent else _delay(due.attempt, answer.retry_after)
    log.warning(
        "notification_given_up" if delay is None else "not_notified",
        notification=str(due.id),
        batch=str(due.batch_id),
        attempt=due.attempt,
        status=answer.status,
        reason=answer.error,
    )
    return Attempt(due.id, due.attempt, answer.status, answer.error, delay)


def _delay(attempt: int, retry_after: float) -> float | None:
    """Seconds until the next attempt; None after the last."""
    if attempt > len(DELAYS):
        return None
    return max(DELAYS[attempt - 1] * uniform(*JITTER), min(retry_after, LONGEST_WAIT))
