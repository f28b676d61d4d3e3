"""Commands that steer a batch, or the provider's account, while it runs; each may be given again without harm.

What each of them means for the edits is decided in `intake/batch_actions.py`; here it is only said in a line.
"""

from typing import Any
from uuid import UUID

import click
from sqlalchemy import Engine

from cli.batches.batch_text import why_paused
from cli.batches.progress import Row, find_batch, progress_of, provider_pause, read_progress, when
from cli.batches.status import BATCH
from cli.connection import open_database
from cli.output import json_option, plural, print_json, screen
from intake import batch_actions
from models import provider
from models.pauses import list_pauses, resume_lane

LOWEST, HIGHEST = -(2**15), 2**15 - 1


@click.command()
@BATCH
@json_option
def cancel(batch: str, as_json: bool) -> None:
    """Cancel what is not paid for yet.

    Edits that wait are cancelled at once. The provider is asked to cancel those in flight; what it makes all the
    same is kept.
    """
    engine, batch_id = _open(batch)
    with engine.begin() as connection:
        concerned = batch_actions.cancel(connection, batch_id)
        row = read_progress(connection, batch_id)  # before the settle lane can finish it
    in_flight = _open_edits(row)
    if row["finished_at"]:
        sentence = "is finished; nothing was left to cancel"
    elif not concerned:
        sentence = "is cancelled; nothing more was left to cancel"
        sentence += f", {plural(in_flight, 'edit')} in flight" if in_flight else ""
    else:
        sentence = f"cancelled: {plural(concerned, 'edit')} concerned"
        sentence += f", {in_flight} of them in flight end as the provider decides" if in_flight else ""
    _say(as_json, batch_id, sentence, concerned=concerned, in_flight=in_flight, cancelled_at=row["cancelled_at"])


@click.command()
@BATCH
@json_option
def pause(batch: str, as_json: bool) -> None:
    """Submit no more of a batch for now.

    Edits at the provider finish and are stored.
    """
    engine, batch_id = _open(batch)
    paused = progress_of(engine, str(batch_id))["paused_at"] is not None
    with engine.begin() as connection:
        batch_actions.pause(connection, batch_id)
    row = progress_of(engine, str(batch_id))
    sentence = (
        f"{'is paused already' if paused else 'paused'}: {plural(int(row['pending']), 'edit')} wait until "
        f"`darkroom resume`, {_open_edits(row)} in flight finish"
    )
    _say(as_json, batch_id, sentence, paused_at=row["paused_at"], pending=row["pending"], in_flight=_open_edits(row))


@click.command()
@click.argument("batch", metavar="[BATCH]", required=False)
@click.option("--provider", "account", is_flag=True, help="Try the paused account of the provider at once.")
@json_option
def resume(batch: str | None, account: bool, as_json: bool) -> None:
    """Go on with a paused batch, or with a paused account.

    A paused account is tried again by itself; --provider does not wait for that. BATCH is an id, the beginning of
    one, or `last`.
    """
    if account == (batch is not None):
        raise click.UsageError("Give either a BATCH or --provider.")
    if batch is None:
        _resume_provider(as_json=as_json)
        return
    engine, batch_id = _open(batch)
    row = progress_of(engine, str(batch_id))
    with engine.begin() as connection:
        batch_actions.resume(connection, batch_id)
    sentence = "was not paused"
    if row["paused_at"]:
        waiting = "it is finished" if row["finished_at"] else f"{plural(int(row['pending']), 'edit')} to be submitted"
        sentence = f"goes on: {waiting}; it was paused {when(row['paused_at'])}"
    _say(as_json, batch_id, sentence, was_paused_at=row["paused_at"], pending=row["pending"])


def _resume_provider(*, as_json: bool) -> None:
    engine = open_database()
    with engine.begin() as connection:
        was = provider_pause(connection)
        ended = provider.resume(connection)
        paused = [pause for pause in list_pauses(connection) if pause.lane == "submit"]
        endpoints = [pause for pause in paused if resume_lane(connection, "submit", pause.subject)]
    if as_json:
        names = [pause.subject for pause in endpoints]
        print_json({"resumed": ended, "was": was if ended else None, "endpoints": names})
        return
    if ended and was:
        since, reason = when(was["paused_at"]), why_paused(was).rstrip(".")
        print(f"The provider's account is tried at once; it was paused {since} for {reason}.")
    for pause in endpoints:
        print(f"The endpoint {pause.subject} is tried at once; it was paused {when(pause.paused_at)}: {pause.message}.")
    if not ended and not endpoints:
        print("The provider's account was not paused.")


@click.command()
@BATCH
@click.option(
    "--error-type", "types", multiple=True, metavar="TYPE", help="Only edits that failed for this; repeatable."
)
@json_option
def retry(batch: str, types: tuple[str, ...], as_json: bool) -> None:
    """Try failed edits again.

    Images that are paid for and only could not be stored are fetched again; every other retry is a new paid
    attempt. `darkroom status` shows the types.
    """
    engine, batch_id = _open(batch)
    with engine.begin() as connection:
        retried = batch_actions.retry(connection, batch_id, types)
    row = progress_of(engine, str(batch_id))
    _say(
        as_json, batch_id, _retried(retried, types, row), retried=retried, skipped=row["skipped"], failed=row["failed"]
    )


def _retried(retried: int, types: tuple[str, ...], row: Row) -> str:
    if retried:
        return f"{plural(retried, 'failed edit')} tried again"
    skipped = int(row["skipped"])
    if skipped and skipped == row["failed"]:
        return f"nothing to retry: its {plural(skipped, 'skipped line')} can only be mended and submitted again"
    return f"nothing to retry: no edit failed{' for ' + ' or '.join(types) if types else ''}"


@click.command(context_settings={"ignore_unknown_options": True})
@BATCH
@click.argument("priority", metavar="N", type=click.IntRange(LOWEST, HIGHEST))
@json_option
def priority(batch: str, priority: int, as_json: bool) -> None:
    """Let a batch go before batches of a lower priority.

    N is a whole number, 0 unless somebody said otherwise; it counts from the next submit on.
    """
    engine, batch_id = _open(batch)
    before = progress_of(engine, str(batch_id))
    with engine.begin() as connection:
        batch_actions.set_priority(connection, batch_id, priority)
    sentence = f"has priority {priority} now, after {before['priority']}"
    if before["priority"] == priority:
        sentence = f"has priority {priority} already"
    _say(as_json, batch_id, sentence, priority=priority, before=before["priority"])


def _open(batch: str) -> tuple[Engine, UUID]:
    engine = open_database()
    return engine, UUID(find_batch(engine, batch))


def _open_edits(row: Row) -> int:
    return int(row["submitting"]) + int(row["submitted"])


def _say(as_json: bool, batch_id: UUID, sentence: str, **facts: Any) -> None:
    if as_json:
        print_json({"batch_id": batch_id, **facts})
    else:
        screen.print(f"batch {batch_id} {sentence}", markup=False, soft_wrap=True)
