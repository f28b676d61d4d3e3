"""`darkroom submit`: a manifest becomes a batch, whole or not at all.

The manifest is read twice, as a stream: once for its faults and its local files, which are uploaded before
anything is written, and once for the batch itself (`local_files.py`). What may be said about the batch as a whole
stands in `header_options.py`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from sqlalchemy import Engine

from cli.batches.check_urls import Check
from cli.batches.convert_images import open_content
from cli.batches.estimate import estimate_manifest, print_estimate
from cli.batches.header_options import convert_option, header_from, header_options, on_invalid_option
from cli.batches.local_files import Manifest
from cli.batches.manifest_file import open_manifest
from cli.batches.pair_edits import PairedEdits
from cli.batches.poll_progress import exit_code, poll_progress, wait_for_batches
from cli.batches.submit_pairs import (
    confirm,
    open_pairs,
    pair_options,
    print_pairing,
    read_pairs,
    require_consent,
    write_pairs,
)
from cli.batches.upload_bar import upload_progress
from cli.batches.watch_batches import watch_batches
from cli.connection import open_database
from cli.output import json_option, plural, print_json, print_warnings, screen
from cli.provider.fault_options import faults_as_json
from core.settings import TracingSettings, load
from core.tracing import start_tracing, trace_command
from intake.batches import BatchHeader, CreatedBatch, create
from intake.insert_edits import OnInvalid
from intake.read_manifest import reader_for
from provider.settings import ProviderSettings
from provider.uploads import upload_files

MANIFEST_FILE = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)


@click.command()
@click.argument("manifest", type=MANIFEST_FILE, required=False)
@pair_options
@header_options
@on_invalid_option
@convert_option
@click.option("--dry-run", is_flag=True, help="Only say what it would come to; uploads and writes nothing.")
@click.option("--wait", is_flag=True, help="Watch the batch; exit code 0 only if every edit is stored.")
@json_option
def submit(
    manifest: Path | None,
    images: Path | None,
    prompts: Path | None,
    sample: int | None,
    out: Path | None,
    yes: bool,
    on_invalid: OnInvalid,
    convert: bool,
    dry_run: bool,
    check_inputs: Check,
    wait: bool,
    as_json: bool,
    **about: Any,
) -> int:
    """Hand in a batch.

    MANIFEST is JSONL, one edit a line, or CSV with the same names in its
    first row, also packed with gzip; - is standard input. An entry of
    image_urls may be a URL, a data URI, an object of the store (storage://KEY)
    or a path, which is relative to the manifest's folder.

    With --images and --prompts each image is edited with each prompt. What
    that would cost is shown first, and confirmed.
    """
    with faults_as_json(as_json):
        pairs = read_pairs(manifest, images, prompts, sample=sample, out=out, yes=yes)
        if pairs is not None and out is not None:
            write_pairs(pairs, out, as_json=as_json)
            return 0
        if pairs is not None and not dry_run:
            require_consent(pairs, yes=yes, as_json=as_json)
        header, engine = header_from(check_inputs=check_inputs, **about), open_database()
        with _open_edits(manifest, pairs, convert=convert, on_invalid=on_invalid) as given:
            if dry_run:
                found = estimate_manifest(engine, header, given, on_invalid=on_invalid, check=check_inputs)
                return print_dry_run(found, pairs, as_json=as_json)
            if pairs is not None and not as_json:
                confirm(engine, header, given, pairs, on_invalid=on_invalid, yes=yes)
            created = hand_in(engine, header, given, on_invalid=on_invalid)
            if pairs is not None and not as_json:
                created = replace(created, warnings=())  # they were shown before it was confirmed
    report(created, as_json=as_json)
    if not wait:
        return 0
    updates = poll_progress(engine, [str(created.batch_id)])
    return exit_code(wait_for_batches(updates) if as_json else watch_batches(updates))


def print_dry_run(found: Mapping[str, Any], pairs: PairedEdits | None, *, as_json: bool) -> int:
    """Say what a batch would come to; the exit code is 1 where an input was refused."""
    if pairs is not None and not as_json:
        print_pairing(pairs)
    print_estimate(found, as_json=as_json)
    return int(bool(found.get("inputs", {}).get("refused")))


@contextmanager
def _open_edits(
    manifest: Path | None, pairs: PairedEdits | None, *, convert: bool, on_invalid: OnInvalid
) -> Iterator[Manifest]:
    if pairs is not None:
        with open_pairs(pairs, convert=convert, on_invalid=on_invalid) as given:
            yield given
    else:
        assert manifest is not None
        with open_manifest(manifest) as (stream, folder):
            yield Manifest(stream, folder, reader_for(manifest.name), convert)


def hand_in(engine: Engine, header: BatchHeader, manifest: Manifest, *, on_invalid: OnInvalid = "fail") -> CreatedBatch:
    """Upload the local files that a manifest names, then write its batch.

    Raises:
        ManifestFaults: lines are faulty, and are not to be skipped; nothing was uploaded or written.
    """
    start_tracing("darkroom-cli", load(TracingSettings))
    urls = upload_inputs(manifest, engine, on_invalid=on_invalid)
    with trace_command("hand in a batch"), engine.begin() as connection:
        created = create(connection, header, manifest.entries(urls), on_invalid=on_invalid)
    return replace(created, warnings=(*created.warnings, *manifest.warnings()))


def upload_inputs(manifest: Manifest, engine: Engine, *, on_invalid: OnInvalid) -> dict[str, str]:
    """Where the local files of a manifest are at the provider now, by path as given.

    Raises:
        ManifestFaults: lines are faulty, and are not to be skipped; nothing was uploaded.
    """
    manifest.look_through(on_invalid=on_invalid)
    if not manifest.files:
        return {}
    files = sorted(set(manifest.files.values()))
    with upload_progress() as begin:
        urls = upload_files(files, load(ProviderSettings), engine, begin=begin, open_content=open_content)
    return {given: urls[file.path] for given, file in manifest.files.items()}


def report(created: CreatedBatch, *, as_json: bool, quiet: bool = False) -> None:
    """Say what was written; warnings are for people, on standard error. `quiet`: nothing but these."""
    print_warnings(created.warnings)
    if quiet:
        return
    if as_json:
        rare = {"skipped": created.skipped, "existing": created.existing}
        extra = {name: value for name, value in rare.items() if value}
        print_json({"batch_id": created.batch_id, "edits": created.edits, **extra})
        return
    skipped = f", {plural(created.skipped, 'faulty line')} among them skipped" if created.skipped else ""
    again = ", there already under this idempotency key" if created.existing else ""
    screen.print(f"batch {created.batch_id}: {plural(created.edits, 'edit')}{skipped}{again}", markup=False)
