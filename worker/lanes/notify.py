"""The notify lane: tell callers, signed, that their batches have ended (docs/notifications.md).

At least once: a worker that dies between a POST and its record has the message sent again, under the same
`webhook-id`. Never unsigned: a message to a client without a secret waits, with the reason, and loses no attempt by it.
"""

from collections.abc import Callable, Collection, Sequence
from random import uniform

import structlog
from sqlalchemy import Connection, Engine

from models.due_work import FirstDue, first_due_notification
from models.notifications import (
    Attempt,
    DueNotification,
    claim_notifications,
    put_off_notifications,
    record_attempts,
    renew_notifications,
)
from models.traces import TRACES_OF_NOTIFICATIONS
from worker.crash_points import crash_point
from worker.dependencies import Dependencies
from worker.lane import CallingLane, CallResult
from worker.settings import WorkerSettings
from worker.webhook_sender import TIMEOUT, WebhookResponse

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


class NotifyLane(CallingLane[DueNotification, Attempt]):
    """Delivers until nobody is owed a message that we can sign."""

    traces = TRACES_OF_NOTIFICATIONS
    longest_call = TIMEOUT
    width = WIDTH

    def __init__(self, dependencies: Dependencies) -> None:
        super().__init__(dependencies)
        self.lease, self._sender = self.settings.claim_lease, dependencies.sender

    def take_turn(self, should_continue: Callable[[], bool]) -> int:
        """Returns the number of tries."""
        if self._sender.clients is not None:
            put_off(self.engine, self._sender.clients)
        return super().take_turn(should_continue)

    def claim(self, free: int) -> Sequence[DueNotification]:
        """Due messages to clients for whom we can sign."""
        with self.engine.begin() as connection:
            return claim_notifications(connection, limit=free, lease=self.lease, clients=self._sender.clients)

    def perform(self, due: DueNotification) -> Attempt:
        """One signed POST."""
        answer = self._sender.deliver(due.url, str(due.id), due.payload, client=due.client)
        crash_point("after_notify", self.settings)
        return decide_delivery(due, answer)

    def record(self, attempts: Sequence[Attempt]) -> None:
        """What the callers answered."""
        with self.engine.begin() as connection:
            record_attempts(connection, attempts)

    def describe(self, attempt: Attempt) -> CallResult:
        """Delivered, or not."""
        return CallResult("delivered" if attempt.error is None else "not_delivered", attempt.error is not None)

    def renew(self, due: Sequence[DueNotification]) -> None:
        """Nobody else delivers these meanwhile."""
        with self.engine.begin() as connection:
            renew_notifications(connection, [notification.id for notification in due], lease=self.lease)

    @classmethod
    def find_first_due(cls, connection: Connection, settings: WorkerSettings) -> FirstDue | None:  # noqa: ARG003
        """The next message."""
        return first_due_notification(connection)


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
