"""Write one verified delivery down and apply what it says, in one transaction of the caller."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import Connection

from core.settings import PolicySettings
from models.apply_reports import apply_reports
from models.decisions import ProviderReport
from models.provider import learn_user_id
from models.queries.callbacks import KEEP_CALLBACK, NAMED_BY_US, SUBMISSION_EXISTS
from models.states import Effect, LearnedBy
from models.verdict import Kind, Unreadable, Verdict, read_callback
from webhook_receiver.signature import Signed

UNFETCHED = Verdict(Kind.UNFETCHED)
"""What a delivery that is not believed still tells: ask the provider about this request."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One verified delivery, verbatim."""

    token: str
    body: bytes
    headers: Mapping[str, str]
    signed: Signed


def record_delivery(connection: Connection, delivery: Delivery, policy: PolicySettings) -> Effect:
    """Apply a delivery of our account and keep it, with what it did to us."""
    effect, submission_id = apply_delivery(connection, delivery, policy)
    _keep(connection, delivery, submission_id, effect)
    return effect


def record_first_delivery(connection: Connection, delivery: Delivery, policy: PolicySettings) -> Effect:
    """Apply a delivery while nobody knows yet what the provider calls our account.

    The signature proves the provider alone, so whoever knows a token could be the sender. Hence the sender is taken
    for our account only where the request is one that our own reply has named; any other body is not believed: the
    provider is asked about the request it names. What is about no submission of ours is not kept.
    """
    named = _is_named_by_us(connection, delivery)
    effect, submission_id = apply_delivery(connection, delivery, policy, believed=named)
    if named:
        learn_user_id(connection, delivery.signed.user_id)
    if effect is not Effect.ORPHAN:
        _keep(connection, delivery, submission_id, effect)
    return effect


def _is_named_by_us(connection: Connection, delivery: Delivery) -> bool:
    """Whether the delivery's request was known before any callback could have named it."""
    row = connection.exec_driver_sql(
        NAMED_BY_US,
        (_token(delivery.token), delivery.signed.request_id),
    ).first()
    return row is not None


def apply_delivery(
    connection: Connection, delivery: Delivery, policy: PolicySettings, *, believed: bool = True
) -> tuple[Effect, UUID | None]:
    """Apply a delivery; answers what it did to us, and which submission of ours it is about.

    Of a delivery that is not `believed` only the request that it names is taken, for the poll lane to ask about.
    """
    token = _token(delivery.token)
    verdict, distrust = _believe(delivery)
    if verdict is not None and not believed:
        verdict = UNFETCHED
    if token is None:
        effect = Effect.ORPHAN
    elif verdict is None:
        effect = Effect.MISMATCH if _is_ours(connection, token) else Effect.ORPHAN
    else:
        answer = ProviderReport(token, delivery.signed.request_id, verdict, LearnedBy.CALLBACK)
        effect = apply_reports(connection, [answer], policy)[0]
    if effect is Effect.APPLIED:
        effect = distrust or effect
    return effect, None if effect is Effect.ORPHAN else token


def _token(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _is_ours(connection: Connection, token: UUID) -> bool:
    return connection.exec_driver_sql(SUBMISSION_EXISTS, (token,)).first() is not None


def _believe(delivery: Delivery) -> tuple[Verdict | None, Effect | None]:
    """The verdict that may be applied, and why the body's own is not; no verdict where ids contradict each other.

    A stale or unreadable delivery still reveals a signed request id: the poll lane asks about it at once.
    """
    try:
        said = read_callback(delivery.body)
    except Unreadable:
        return UNFETCHED, Effect.UNREADABLE
    if said.request_id != delivery.signed.request_id:
        return None, None
    if delivery.signed.stale:
        return UNFETCHED, Effect.STALE
    return said.verdict, None


def _keep(connection: Connection, delivery: Delivery, submission_id: UUID | None, effect: Effect) -> None:
    connection.exec_driver_sql(
        KEEP_CALLBACK,
        {
            "effect": effect.value,
            "submission": submission_id,
            "token": delivery.token,
            "request": delivery.signed.request_id,
            "signed_at": delivery.signed.signed_at,
            "headers": Jsonb(dict(delivery.headers)),
            "body": delivery.body,
            "sha256": hashlib.sha256(delivery.body).hexdigest(),
        },
    )
