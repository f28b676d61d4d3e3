"""Write verified deliveries down and apply what they say, in one transaction of the caller."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from core.settings import PolicySettings
from models.decisions import ProviderReport
from models.deliveries import pack
from models.provider import learn_user_id
from models.queries.callbacks import CALLBACKS, KEEP_CALLBACKS, NAMED_BY_US, SUBMISSIONS_THAT_EXIST
from models.record_reports import record_reports
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


class Applied(NamedTuple):
    """What a delivery did to us, and which submission of ours it is about."""

    effect: Effect
    submission_id: UUID | None


def record_deliveries(connection: Connection, deliveries: Sequence[Delivery], policy: PolicySettings) -> list[Effect]:
    """Apply deliveries of our account and keep them, with what each did to us; the effects come in their order."""
    applied = apply_deliveries(connection, deliveries, policy)
    _keep(connection, list(zip(deliveries, applied, strict=True)))
    return [effect for effect, _ in applied]


def record_first_delivery(connection: Connection, delivery: Delivery, policy: PolicySettings) -> Effect:
    """Apply a delivery while nobody knows yet what the provider calls our account.

    The signature proves the provider alone, so whoever knows a token could be the sender. Hence the sender is taken
    for our account only where the request is one that our own reply has named; any other body is not believed: the
    provider is asked about the request it names. What is about no submission of ours is not kept.
    """
    named = _is_named_by_us(connection, delivery)
    (applied,) = apply_deliveries(connection, [delivery], policy, believed=named)
    if named:
        learn_user_id(connection, delivery.signed.user_id)
    if applied.effect is not Effect.ORPHAN:
        _keep(connection, [(delivery, applied)])
    return applied.effect


def _is_named_by_us(connection: Connection, delivery: Delivery) -> bool:
    """Whether the delivery's request was known before any callback could have named it."""
    row = connection.exec_driver_sql(
        NAMED_BY_US,
        (read_token(delivery.token), delivery.signed.request_id),
    ).first()
    return row is not None


def apply_deliveries(
    connection: Connection, deliveries: Sequence[Delivery], policy: PolicySettings, *, believed: bool = True
) -> list[Applied]:
    """Apply a set of deliveries, each on what those before it left behind.

    Of deliveries that are not `believed` only the requests that they name are taken, for the poll lane to ask about.
    """
    read = [(read_token(delivery.token), *_believe(delivery)) for delivery in deliveries]
    reports = {
        number: ProviderReport(
            token, deliveries[number].signed.request_id, verdict if believed else UNFETCHED, LearnedBy.CALLBACK
        )
        for number, (token, verdict, _) in enumerate(read)
        if token is not None and verdict is not None
    }
    effects = dict(zip(reports, record_reports(connection, list(reports.values()), policy), strict=True))
    ours = _ours(connection, [token for token, verdict, _ in read if token is not None and verdict is None])
    applied = []
    for number, (token, _, distrust) in enumerate(read):
        effect = effects.get(number, Effect.MISMATCH if token in ours else Effect.ORPHAN)
        if effect is Effect.APPLIED and distrust is not None:
            effect = distrust
        applied.append(Applied(effect, None if effect is Effect.ORPHAN else token))
    return applied


def read_token(text: str) -> UUID | None:
    """The submission that a token would be; None where it can be none."""
    try:
        return UUID(text)
    except ValueError:
        return None


def _ours(connection: Connection, tokens: Sequence[UUID]) -> set[UUID]:
    """Which of them are submissions of ours."""
    if not tokens:
        return set()
    return set(connection.exec_driver_sql(SUBMISSIONS_THAT_EXIST, (list(tokens),)).scalars())


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


def _keep(connection: Connection, applied: Sequence[tuple[Delivery, Applied]]) -> None:
    rows = (
        (
            done.effect.value,
            done.submission_id,
            delivery.token,
            delivery.signed.request_id,
            delivery.signed.signed_at,
            pack(delivery.signed.request_id, delivery.headers, delivery.body),
            hashlib.sha256(delivery.body).hexdigest(),
        )
        for delivery, done in applied
    )
    connection.exec_driver_sql(KEEP_CALLBACKS, CALLBACKS.arrays(rows))
