"""Batches that are over, as the tests of audits and retention want them: called back, stored, and old."""

from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine

from models.audits import audit_batch, unaudited_batches
from models.claims import claim_images
from models.record_reports import record_reports
from models.states import Effect
from models.transitions import StoredImage, record_stored, settle_batches
from models.verdict import Retry
from tests.support.factories import POLICY, accept, answer, claim, failure, make_batch, request_id
from tests.support.provider_callbacks import ok
from webhook_receiver.recording import Delivery, record_deliveries
from webhook_receiver.signature import Signed

KEPT = 3600.0
"""Seconds; whatever `finished` makes is older."""


def called_back(connection: Connection, token: object, request: str, body: bytes | None = None) -> Effect:
    """One delivery."""
    now = connection.exec_driver_sql("SELECT now()").scalar_one()
    delivery = Delivery(str(token), body or ok(request), {}, Signed(request, "github|1", now, stale=False))
    return record_deliveries(connection, [delivery], POLICY)[0]


def finished(engine: Engine, edits: int = 3, *, failed: int = 0, **header: Any) -> UUID:
    """A batch that is over, called back, audited, and older than `KEPT`."""
    with engine.begin() as connection:
        batch = make_batch(connection, edits, **header)
        submissions = claim(connection, limit=edits, window=edits)
        accept(connection, submissions)
        bad = failure("content_policy_violation", Retry.NEVER)
        record_reports(connection, [answer(submission, bad) for submission in submissions[:failed]], POLICY)
        for submission in submissions[failed:]:
            called_back(connection, submission.id, request_id(submission))
        stored = [
            StoredImage(image.id, f"{image.name}.png", "ab", 1000, "image/png", 1, 1)
            for image in claim_images(connection, limit=edits, lease=60)
        ]
        record_stored(connection, stored)
        assert settle_batches(connection, [batch]) == [batch]
    audited(engine)
    age(engine)
    return batch


def audited(engine: Engine) -> None:
    """Audit what was not."""
    with engine.begin() as connection:
        for batch in unaudited_batches(connection, 100):
            audit_batch(connection, batch)


def age(engine: Engine) -> None:
    """Let it be longer ago than `KEPT` that everything came about."""
    with engine.begin() as connection:
        for change in (
            "UPDATE batches SET finished_at = finished_at - interval '2 h'",
            "UPDATE callbacks SET received_at = received_at - interval '2 h'",
        ):
            connection.exec_driver_sql(change)
