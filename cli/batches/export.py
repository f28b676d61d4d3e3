"""`darkroom export`: the results of a batch as JSON lines; a file of them is whole or not there."""

import sys
from pathlib import Path
from uuid import UUID

import click

from cli.batches.progress import find_batch
from cli.batches.status import BATCH
from cli.connection import open_database
from cli.streams import quote_controls
from cli.whole_file import write_whole
from core.errors import UserError
from core.settings import LinkSettings, load
from core.storage_url import can_sign
from intake.image_links import ImageLinks, link_files
from intake.results import results
from models.states import EditState


@click.command()
@BATCH
@click.option("--state", type=click.Choice([state.value for state in EditState]), help="Only the edits in this state.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="A file; it appears when it is whole.")
def export(batch: str, state: str | None, output: Path | None) -> None:
    """Write the results of a batch, one JSON object a line.

    Each line has the edit's state, its images and its errors, and can be
    submitted again as it is: then the edit that it carries is what counts.
    BATCH is an id, the beginning of one, or `last`.
    """
    engine = open_database()
    batch_id = UUID(find_batch(engine, batch))
    settings = load(LinkSettings)
    pages = results(engine, batch_id, choose_links(settings), EditState(state) if state else None)
    if output is None:
        if sys.stdout is None:
            raise UserError("There is no standard output; name a file with --output.")
        if sys.stdout.isatty():  # a terminal takes characters, of which some would move its cursor
            for page in pages:
                print(quote_controls(page.decode()), end="")
        else:
            sys.stdout.buffer.writelines(pages)
            sys.stdout.buffer.flush()
        return
    with write_whole(output, "wb") as file:
        file.writelines(pages)


def choose_links(settings: LinkSettings) -> ImageLinks:
    """Links that the store signs, or the places of the images in it."""
    found = None
    if can_sign(settings.storage_url):
        from intake.link_signer import LinkSigner  # whoever has a folder waits for none of it
        from storage.store import Storage

        found = LinkSigner(settings, lambda: Storage(settings.storage_url)).sign()
    return found or link_files(settings.storage_url)
