"""`darkroom notify`: tell a batch's caller again, by hand."""

from urllib.parse import urlsplit

import click

from cli.batches.progress import find_batch, when
from cli.batches.status import BATCH
from cli.connection import open_database
from cli.output import escape, json_option, print_json, screen
from core.errors import NotFound
from models.notifications import Redelivery, redeliver
from models.queries.batches import NOTIFY_URL

MASK = "***"


@click.command()
@BATCH
@click.option("--all", "every", is_flag=True, help="Every notification of the batch, not only the newest.")
@json_option
def notify(batch: str, every: bool, as_json: bool) -> None:
    """Notify a batch's caller again.

    The newest notification is delivered again, from its first attempt. BATCH is an id, the beginning of one, or `last`.
    """
    engine = open_database()
    batch_id = find_batch(engine, batch)
    with engine.begin() as connection:
        again = redeliver(connection, batch_id, every=every)
        found = connection.exec_driver_sql(NOTIFY_URL, (batch_id,)).scalar()
    if not again:
        raise NotFound(
            f"Batch {batch_id} has a notify_url, but has not ended yet: nothing was to be told."
            if found
            else f"Batch {batch_id} has no notify_url: nobody is to be told."
        )
    for notification in again:
        shown = {**notification._asdict(), "batch_id": batch_id, "url": without_secrets(notification.url)}
        if as_json:
            print_json(shown)
        else:
            place = f"{notification.event}  {escape(str(shown['url']))}"
            screen.print(f"{place}  due again; until now: {escape(_notification_text(notification))}", soft_wrap=True)


def _notification_text(notification: Redelivery) -> str:
    attempts = f"{notification.attempt} attempt{'' if notification.attempt == 1 else 's'}"
    if notification.delivered_at:
        return f"{attempts}, delivered {when(notification.delivered_at)}"
    return f"{attempts}, {notification.last_error}" if notification.last_error else attempts


def without_secrets(url: str) -> str:
    """A URL as it may be shown: user and password, and what stands in the query, are often secrets."""
    try:
        parts = urlsplit(url)
        user = f"{MASK}@" if "@" in parts.netloc else ""
        place = parts._replace(netloc=user + parts.netloc.rpartition("@")[2], fragment="")
        return place._replace(query=MASK if parts.query else "").geturl()
    except ValueError:
        return MASK
