"""`darkroom download`: copy a batch's stored images into a folder; what lies there already is not copied again."""

from collections import Counter
from collections.abc import Callable, Container
from pathlib import Path
from uuid import UUID

import click

from cli.batches.copy_images import Copied, FolderCopy, Outcome
from cli.batches.file_names import FileNames
from cli.batches.progress import Row, done, find_batch, progress_of
from cli.batches.status import BATCH
from cli.batches.stored_images import ImageRow, for_each_image, image_bar
from cli.connection import open_database
from cli.output import escape, json_option, plural, print_json, screen, stderr
from core.errors import Pruned
from core.settings import StorageSettings, load
from models.states import EditState
from storage.store import Storage


@click.command()
@BATCH
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--state", type=click.Choice([state.value for state in EditState]), help="Only the edits in this state.")
@click.option("--only", type=click.Choice(["failed"]), help="Only what the last call could not copy into DIR.")
@click.option(
    "--name",
    "template",
    metavar="TEMPLATE",
    default="{custom_id}/{index}",
    show_default=True,
    help="What a file is called, without its extension; also {position:05}, {seed}, {sha256}, {batch_id}.",
)
@json_option
def download(batch: str, folder: Path, state: str | None, only: str | None, template: str, as_json: bool) -> None:
    """Copy the stored images of a batch into DIR.

    What lies there already, and is the same, is not copied again: after an
    interruption the same call goes on. An edit without a custom_id goes by its
    position. BATCH is an id, the beginning of one, or `last`. Exit code 1: some
    images could not be copied.
    """
    names = FileNames(template)
    engine = open_database()
    row = progress_of(engine, find_batch(engine, batch))
    if row["pruned_at"]:
        raise Pruned
    batch_id: UUID = row["batch_id"]
    storage = Storage(load(StorageSettings).storage_url, make=False)
    copy = FolderCopy(storage, folder, names, batch_id)
    work = choose(copy.copy, copy.read_failures()) if only else copy.copy
    counts: Counter[Outcome] = Counter()
    with copy.keep_failures() as keep, image_bar("copying", int(row["images_stored"])) as bar:
        for image, copied in for_each_image(engine, batch_id, work, state=EditState(state) if state else None):
            counts[copied.outcome] += 1
            bar.advance()
            if copied.outcome is Outcome.FAILED:
                keep(image)
                stderr.print(f"{escape(image.name)}/{image.index}  {escape(copied.reason)}", soft_wrap=True)
    _report(counts, row, folder, as_json=as_json)
    if counts[Outcome.FAILED]:
        raise SystemExit(1)


def choose(copy: Callable[[ImageRow], Copied], wanted: Container[int]) -> Callable[[ImageRow], Copied]:
    """Copy none but the images with these ids."""
    return lambda image: copy(image) if image.id in wanted else Copied(Outcome.NOT_WANTED)


def _report(counts: Counter[Outcome], row: Row, folder: Path, *, as_json: bool) -> None:
    result = {outcome.value: counts[outcome] for outcome in Outcome if outcome is not Outcome.NOT_WANTED}
    if as_json:
        print_json({"batch_id": row["batch_id"], "folder": str(folder), **result})
        return
    parts = [f"{plural(result['copied'], 'image')} copied to {escape(str(folder))}"]
    if result["present"]:
        parts.append(f"{result['present']} lay there already")
    if result["deleted"]:
        parts.append(f"{result['deleted']} were deleted when their time was over")
    if result["failed"]:
        parts.append(f"{result['failed']} could not be copied")
    screen.print(", ".join(parts), soft_wrap=True)
    if unfinished := int(row["edits"]) - done(row):
        stderr.print(f"{plural(unfinished, 'edit')} of the batch not done yet: call again later.", soft_wrap=True)
