"""Commands that look at batches; none of them changes anything."""

import click

from cli.batches.batch_text import WIDEST, batch_summary, paused_account, status_pairs, unanswered_pairs
from cli.batches.poll_progress import exit_code, poll_progress, print_batches
from cli.batches.progress import (
    counts,
    errors_of,
    find_batch,
    lane_pauses,
    last_notification,
    newest_batches,
    progress_of,
    provider_pause,
    unanswered_of,
)
from cli.batches.watch_batches import watch_batches
from cli.connection import open_database
from cli.output import escape, json_option, print_json, print_pairs, screen

BATCH = click.argument("batch", metavar="BATCH")
"""An id, a beginning that only one id has, or `last`."""


@click.command()
@BATCH
@json_option
def status(batch: str, as_json: bool) -> None:
    """Show where a batch stands.

    Edits by state, images, cost, errors, and what holds it up. BATCH is an id, the beginning of one, or `last`.
    """
    engine = open_database()
    batch_id = find_batch(engine, batch)
    row, errors = progress_of(engine, batch_id), errors_of(engine, batch_id)
    with engine.connect() as connection:
        pause, notification = provider_pause(connection), last_notification(connection, batch_id)
        unanswered, lanes = unanswered_of(connection, batch_id), lane_pauses(connection)
    if as_json:
        shown = {"errors": errors, "unanswered": unanswered, "provider": pause, "pauses": lanes}
        print_json({**row, **shown, "notification": notification})
    else:
        print_pairs([*status_pairs(row, errors, pause, lanes, notification), *unanswered_pairs(unanswered)])


@click.command()
@click.argument("batches", metavar="BATCH...", nargs=-1, required=True)
@json_option
def watch(batches: tuple[str, ...], as_json: bool) -> int:
    """Watch batches until they are finished.

    How far each is, its rate, the time left, and errors as they come. The exit code is 0 only if every edit is
    stored, else 1. BATCH is an id, the beginning of one, or `last`.
    """
    engine = open_database()
    batch_ids = list(dict.fromkeys(find_batch(engine, batch) for batch in batches))
    updates = poll_progress(engine, batch_ids)
    return exit_code(print_batches(updates) if as_json else watch_batches(updates))


@click.command()
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@json_option
def batches(limit: int, as_json: bool) -> None:
    """List the newest batches."""
    engine = open_database()
    rows = newest_batches(engine, limit)
    if as_json:
        for row in rows:
            print_json(row)
        return
    with engine.connect() as connection:
        pause = provider_pause(connection)
    if pause:
        screen.print(f"The provider's account is {paused_account(pause)}.", soft_wrap=True)
    for row in rows:
        name, why = escape(row["name"] or ""), row["broken_criterion"]
        columns = f"{row['batch_id']}  {batch_summary(row):<{WIDEST}}{row['edits']:>8}  {counts(row)}"
        screen.print(f"{columns}{f', [yellow]stopped by its {why}[/]' if why else ''}  {name}", soft_wrap=True)
    if not rows:
        print("There is no batch yet.")
