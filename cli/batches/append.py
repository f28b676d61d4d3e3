"""`darkroom append`: more edits for a batch that is still at work, all of them or none."""

from pathlib import Path
from uuid import UUID

import click

from cli.batches.header_options import convert_option, on_invalid_option
from cli.batches.local_files import Manifest
from cli.batches.manifest_file import open_manifest
from cli.batches.progress import find_batch, progress_of
from cli.batches.status import BATCH
from cli.batches.submit import MANIFEST_FILE, upload_inputs
from cli.connection import open_database
from cli.output import json_option, plural, print_json, print_warnings, screen
from cli.provider.fault_options import faults_as_json
from core.errors import Conflict
from intake.batch_actions import append as append_edits
from intake.batch_actions import next_position
from intake.insert_edits import OnInvalid
from intake.read_manifest import reader_for


@click.command()
@BATCH
@click.argument("manifest", type=MANIFEST_FILE)
@click.option("--idempotency-key", metavar="K", help="The same key and content again adds nothing.")
@on_invalid_option
@convert_option
@json_option
def append(
    batch: str, manifest: Path, idempotency_key: str | None, on_invalid: OnInvalid, convert: bool, as_json: bool
) -> None:
    """Add the edits of a manifest to a batch.

    The batch must not be finished or cancelled. MANIFEST is as for `darkroom submit`; BATCH is an id, the beginning
    of one, or `last`.
    """
    engine = open_database()
    batch_id = UUID(find_batch(engine, batch))
    with faults_as_json(as_json), open_manifest(manifest) as (stream, folder):
        row = progress_of(engine, str(batch_id))
        if idempotency_key is None and (row["cancelled_at"] or row["finished_at"]):  # before anything is uploaded
            raise Conflict(f"The batch is {'cancelled' if row['cancelled_at'] else 'finished'}; nothing can be added.")
        given = Manifest(stream, folder, reader_for(manifest.name), convert)
        urls = upload_inputs(given, engine, on_invalid=on_invalid)
        with engine.begin() as connection:
            entries = given.entries(urls, first=next_position(connection, batch_id))
            added = append_edits(connection, batch_id, entries, idempotency_key=idempotency_key, on_invalid=on_invalid)
    print_warnings((*added.warnings, *given.warnings()))
    if as_json:
        facts = {"batch_id": batch_id, "added": 0 if added.existing else added.edits, "edits": added.edits}
        print_json({**facts, "skipped": added.skipped, "existing": added.existing})
        return
    skipped = f", {plural(added.skipped, 'faulty line')} among them skipped" if added.skipped else ""
    done = "were there already under this idempotency key" if added.existing else "added"
    screen.print(f"batch {batch_id}: {plural(added.edits, 'edit')} {done}{skipped}", markup=False, soft_wrap=True)
