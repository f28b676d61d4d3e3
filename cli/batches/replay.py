"""`darkroom replay`: stored callbacks go once more through the code that took them, after a bug of it was mended.

Never believes more than the receiver did: what was stale when it came is stale, and what was sent for another account
than ours changes nothing. Each callback is a transaction of its own, as when it came. A row of `callbacks` keeps the
effect that it had, unless the replay applied it; so an applied one stays applied, however often it is replayed.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import click
from sqlalchemy import Connection, Engine

from cli.batches.header_options import moment
from cli.batches.progress import find_batch
from cli.connection import open_database
from cli.output import json_option, plural, print_json
from core.settings import PolicySettings, load
from models.deliveries import KeptDelivery, read_delivery
from models.provider import user_id
from models.queries.callbacks import CALLBACK, CALLBACKS_TO_REPLAY, LAST_CALLBACK, RECORD_REPLAY
from models.states import Effect
from webhook_receiver.recording import Delivery, apply_deliveries
from webhook_receiver.signature import Signed, is_stale

CHUNK = 1_000
"""Callbacks looked up at one time; bodies are read one by one, each may have megabytes."""
REFUSED = "other account"
"""In the place of an effect: the receiver would turn it away today."""


class Replayed(NamedTuple):
    """What a callback did when it came, and what it did now."""

    before: str
    after: str


@click.command()
@click.argument("batch", metavar="[BATCH]", required=False)
@click.option(
    "--effect",
    "effects",
    multiple=True,
    type=click.Choice([effect.value for effect in Effect]),
    help="Only those of this effect.",
)
@click.option("--since", metavar="WHEN", help="Only those received since: 2h, or an ISO time.")
@click.option("--dry-run", is_flag=True, help="Only say what each of them would do by itself; changes nothing.")
@json_option
def replay(batch: str | None, effects: tuple[str, ...], since: str | None, dry_run: bool, as_json: bool) -> None:
    """Take stored callbacks once more.

    For after a bug was mended: nothing is believed that was not believable when it came, and what is
    known already stays. BATCH is an id, the beginning of one, or `last`; without it, callbacks of all batches.
    """
    received = moment(since, "--since", ahead=False) if since else None
    engine = open_database()
    batch_id = find_batch(engine, batch) if batch else None
    counts: Counter[Replayed] = Counter()
    for number in choose_callbacks(engine, batch_id, effects, received):
        if found := take_again(engine, number, load(PolicySettings), dry_run=dry_run):
            counts[found] += 1
    _report(counts, dry_run=dry_run, as_json=as_json)


def choose_callbacks(
    engine: Engine, batch_id: str | None, effects: Sequence[str], since: datetime | None
) -> Iterator[int]:
    """Ids of the callbacks, in the order in which they came; those that come meanwhile are not among them."""
    with engine.connect() as connection:
        last = connection.exec_driver_sql(LAST_CALLBACK).scalar_one()
    given = {"last": last, "since": since, "effects": list(effects), "batch": batch_id, "limit": CHUNK}
    after = 0
    while True:
        with engine.connect() as connection:
            found = connection.exec_driver_sql(CALLBACKS_TO_REPLAY, {**given, "after": after}).scalars().all()
        yield from found
        if len(found) < CHUNK:
            return
        after = found[-1]


def take_again(engine: Engine, number: int, policy: PolicySettings, *, dry_run: bool) -> Replayed | None:
    """Take one callback again; None where it, or its body, is gone."""
    with engine.connect() as connection, connection.begin() as transaction:
        row = connection.exec_driver_sql(CALLBACK, (number,)).mappings().first()
        if row is None:
            return None
        if (kept := read_delivery(dict(row))) is None:
            return None
        after = _take_again(connection, row, kept, policy)
        if dry_run:
            transaction.rollback()
    return Replayed(row["effect"], after)


def _take_again(connection: Connection, row: Any, kept: KeptDelivery, policy: PolicySettings) -> str:
    sender = kept.headers.get("x-fal-webhook-user-id", "")
    account = policy.fal_user_id or user_id(connection)
    if account is not None and sender != account:
        return REFUSED
    signed = Signed(row["request_id"], sender, row["signed_at"], stale=is_stale(row["signed_at"], row["received_at"]))
    delivery = Delivery(row["token"], kept.body, kept.headers, signed)
    ((effect, submission_id),) = apply_deliveries(connection, [delivery], policy, believed=account is not None)
    if effect is Effect.APPLIED:
        connection.exec_driver_sql(
            RECORD_REPLAY,
            (effect.value, submission_id, row["id"]),
        )
    return effect.value


def _report(counts: Counter[Replayed], *, dry_run: bool, as_json: bool) -> None:
    total, applied = counts.total(), sum(count for way, count in counts.items() if way.after == Effect.APPLIED)
    if as_json:
        ways = [{**way._asdict(), "count": count} for way, count in sorted(counts.items())]
        print_json({"callbacks": total, "applied": applied, "dry_run": dry_run, "effects": ways})
        return
    for way, count in sorted(counts.items()):
        print(f"{count:>8}  {way.before} -> {way.after}")
    if dry_run:
        print(f"{plural(total, 'callback')} looked at, {applied} would be applied; nothing was changed: a dry run.")
    else:
        print(f"{plural(total, 'callback')} taken again, {applied} applied.")
