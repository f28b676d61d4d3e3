"""`darkroom submit`: a manifest becomes a batch, whole or not at all.

The manifest is read twice, as a stream: once for its faults and its local files, which are uploaded before
anything is written, and once for the batch itself. What a line must look like is decided in `intake` and `models`.
"""

import shutil
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import click
from pydantic import ValidationError
from sqlalchemy import Engine

from cli.connection import open_database
from cli.output import aside, json_option, print_json, screen
from cli.uploading import upload_progress
from cli.watching import exit_code, looks, wait_for_batch, watch_batch
from intake.batches import BatchHeader, CreatedBatch, create
from intake.manifest import Entry, FaultyLine, LineFault, ManifestFaults, NewEdit, read_jsonl
from intake.spreadsheet import Reader, reader_for
from models.errors import UserError
from models.seedream import is_local_path
from models.settings import load
from worker.settings import ProviderSettings
from worker.uploads import upload_files

SHOWN_WARNINGS = 10
FAULTS_MAX = 1000
"""Faults that are gathered before reading stops."""


@click.command()
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--name", help="What to call the batch.")
@click.option("--priority", type=click.IntRange(-32768, 32767), default=0, show_default=True, help="Higher goes first.")
@click.option("--wait", is_flag=True, help="Watch the batch; exit code 0 only if every edit is stored.")
@json_option
def submit(manifest: Path, name: str | None, priority: int, wait: bool, as_json: bool) -> int:
    """Hand in a batch.

    MANIFEST is JSONL, one edit a line, or CSV with the same names in its
    first row; - is JSONL on standard input. An entry of image_urls may be a
    URL, a data URI or a path, which is relative to the manifest's folder.
    """
    engine = open_database()
    with opened(manifest) as (stream, folder):
        created = hand_in(engine, stream, folder, reader_for(manifest.name), name=name, priority=priority)
    report(created, as_json=as_json)
    if not wait:
        return 0
    rows = looks(engine, str(created.batch_id))
    return exit_code(wait_for_batch(rows) if as_json else watch_batch(rows))


@contextmanager
def opened(manifest: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """The manifest as a stream that can be read twice, and the folder to which its paths are relative."""
    if str(manifest) != "-":
        with manifest.open("rb") as stream:
            yield stream, manifest.parent
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        yield copy, Path()


def hand_in(
    engine: Engine, stream: BinaryIO, folder: Path, read: Reader = read_jsonl, *, name: str | None, priority: int = 0
) -> CreatedBatch:
    """Upload the local files that a manifest names, then write its batch.

    Raises:
        ManifestFaults: lines are faulty; nothing was uploaded or written.
    """
    try:
        header = BatchHeader(name=name, priority=priority)
    except ValidationError as error:
        fault = error.errors()[0]
        raise UserError(f"The batch's {fault['loc'][0]} is wrong: {fault['msg']}.") from None
    stream.seek(0)
    files = local_files(read(stream, local_paths=True), folder)
    urls = uploaded(files.values(), engine)
    known = {entry: urls[path] for entry, path in files.items()}
    stream.seek(0)
    with engine.begin() as connection:
        return create(connection, header, with_urls(read(stream, local_paths=True), known))


def local_files(entries: Iterable[Entry], folder: Path) -> dict[str, Path]:
    """Every local path that the edits name, with the file that it means.

    Raises:
        ManifestFaults: a line is faulty, or names a file that is not there.
    """
    found: dict[str, Path] = {}
    faults: list[LineFault] = []
    for entry in entries:
        if isinstance(entry, FaultyLine):
            faults += entry.faults
        else:
            for given in filter(is_local_path, entry.arguments["image_urls"]):
                path = found.setdefault(given, (folder / given).resolve())
                if not path.is_file():
                    faults.append(LineFault(entry.line, entry.custom_id, "image_urls", f"there is no file {path}"))
        if len(faults) >= FAULTS_MAX:
            raise ManifestFaults(faults, more=True)
    if faults:
        raise ManifestFaults(faults)
    return found


def uploaded(paths: Collection[Path], engine: Engine) -> dict[Path, str]:
    """The URL of each file at the provider; what has to be uploaded shows how far it is."""
    if not paths:
        return {}
    with upload_progress() as begin:
        return upload_files(sorted(set(paths)), load(ProviderSettings), engine, begin=begin)


def with_urls(entries: Iterable[Entry], urls: Mapping[str, str]) -> Iterator[Entry]:
    """The edits with uploaded files in the place of paths."""
    for entry in entries:
        if isinstance(entry, NewEdit) and urls:
            pictures = [urls.get(given, given) for given in entry.arguments["image_urls"]]
            yield replace(entry, arguments={**entry.arguments, "image_urls": pictures})
        else:
            yield entry


def report(created: CreatedBatch, *, as_json: bool, quiet: bool = False) -> None:
    """Say what was written; warnings are for people, on standard error. `quiet`: nothing but these."""
    for warning in created.warnings[:SHOWN_WARNINGS]:
        aside.print(f"warning: {warning}", markup=False, soft_wrap=True)
    if len(created.warnings) > SHOWN_WARNINGS:
        aside.print(f"warning: {len(created.warnings) - SHOWN_WARNINGS} more of other kinds", markup=False)
    if quiet:
        return
    if as_json:
        print_json({"batch_id": created.batch_id, "edits": created.edits})
    else:
        screen.print(f"batch {created.batch_id}: {created.edits} edit{'' if created.edits == 1 else 's'}", markup=False)
