"""`darkroom submit`: a manifest becomes a batch, whole or not at all.

The manifest is read twice, as a stream: once for its faults and its local files, which are uploaded before
anything is written, and once for the batch itself (`local_files.py`). What may be said about the batch as a whole
stands in `header_options.py`.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, BinaryIO

import click
from sqlalchemy import Engine

from cli.batches.estimate import estimate_manifest, print_estimate
from cli.batches.header_options import header_from, header_options, on_invalid_option
from cli.batches.local_files import Manifest
from cli.batches.poll_progress import exit_code, poll_progress, wait_for_batches
from cli.batches.upload_bar import upload_progress
from cli.batches.watch_batches import watch_batches
from cli.connection import open_database
from cli.output import json_option, plural, print_json, print_warnings, screen
from cli.provider.fault_options import faults_as_json
from core.errors import UserError
from core.settings import TracingSettings, load
from core.tracing import start_tracing, trace_command
from intake.batches import BatchHeader, CreatedBatch, create
from intake.insert_edits import OnInvalid
from intake.read_manifest import reader_for
from provider.settings import ProviderSettings
from provider.uploads import upload_files

MANIFEST = click.argument("manifest", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))


@click.command()
@MANIFEST
@header_options
@on_invalid_option
@click.option("--dry-run", is_flag=True, help="Only say what it would come to; uploads and writes nothing.")
@click.option("--wait", is_flag=True, help="Watch the batch; exit code 0 only if every edit is stored.")
@json_option
def submit(manifest: Path, on_invalid: OnInvalid, dry_run: bool, wait: bool, as_json: bool, **about: Any) -> int:
    """Hand in a batch.

    MANIFEST is JSONL, one edit a line, or CSV with the same names in its
    first row, also packed with gzip; - is standard input. An entry of
    image_urls may be a URL, a data URI or a path, which is relative to the
    manifest's folder.
    """
    header = header_from(**about)
    engine = open_database()
    read = reader_for(manifest.name)
    with faults_as_json(as_json), open_manifest(manifest) as (stream, folder):
        given = Manifest(stream, folder, read)
        if dry_run:
            found = estimate_manifest(engine, header, given, on_invalid=on_invalid)
            print_estimate(found, as_json=as_json)
            return 0
        created = hand_in(engine, header, given, on_invalid=on_invalid)
    report(created, as_json=as_json)
    if not wait:
        return 0
    updates = poll_progress(engine, [str(created.batch_id)])
    return exit_code(wait_for_batches(updates) if as_json else watch_batches(updates))


@contextmanager
def open_manifest(manifest: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """The manifest as a stream that can be read twice, and the folder to which its paths are relative."""
    if str(manifest) == "-":
        if sys.stdin is None:
            raise UserError("There is no standard input; give the manifest as a file.")
        source = _Source(sys.stdin.fileno(), closefd=False)
    else:
        source = _Source(manifest)
    with BufferedReader(source) as stream:
        if str(manifest) != "-" and manifest.is_file():
            yield stream, manifest.parent
        else:  # a pipe, also by name, as `<(…)` and /dev/stdin are; its folder is nobody's
            with _copy_to_file(stream) as copy:
                yield copy, Path()


class _Source(FileIO):
    """What a manifest is read from."""

    def readinto(self, buffer: Any, /) -> int:
        """Read the next bytes.

        Raises:
            UserError: it cannot be read.
        """
        try:
            return super().readinto(buffer) or 0
        except OSError as error:
            raise UserError(f"The manifest cannot be read: {error.strerror}.") from None


@contextmanager
def _copy_to_file(pipe: BinaryIO) -> Iterator[BinaryIO]:
    """What comes through a pipe, as a file that can be read twice.

    Raises:
        UserError: there is no room for it.
    """
    try:
        copy = tempfile.TemporaryFile()  # noqa: SIM115  # closed below, whoever fails
    except OSError as error:
        raise UserError(f"There is no folder for temporary files: {error.strerror}; set TMPDIR to one.") from None
    with copy:
        try:
            shutil.copyfileobj(pipe, copy)
            copy.seek(0)
        except OSError as error:
            raise UserError(
                f"The manifest cannot be kept in {tempfile.gettempdir()}: {error.strerror}; "
                "give it as a file, or set TMPDIR to a folder with room."
            ) from None
        yield copy


def hand_in(engine: Engine, header: BatchHeader, manifest: Manifest, *, on_invalid: OnInvalid = "fail") -> CreatedBatch:
    """Upload the local files that a manifest names, then write its batch.

    Raises:
        ManifestFaults: lines are faulty, and are not to be skipped; nothing was uploaded or written.
    """
    start_tracing("darkroom-cli", load(TracingSettings))
    urls = upload_inputs(manifest, engine, on_invalid=on_invalid)
    with trace_command("hand in a batch"), engine.begin() as connection:
        return create(connection, header, manifest.entries(urls), on_invalid=on_invalid)


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
        urls = upload_files(files, load(ProviderSettings), engine, begin=begin)
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
