"""`darkroom contact-sheet`: a batch's stored images on a page to look at, or on several.

Reads page by page, so that memory holds one page and a few decoded images, however large the batch is. How a page
looks is `contact_sheet_page.py`'s; as HTML it is `html_sheet.py`'s.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path

import click
from PIL import Image
from sqlalchemy import Engine

from cli.batches.contact_sheet_page import TILE, Tile, draw_page
from cli.batches.html_sheet import Sheet, name_page, write_html_sheet
from cli.batches.progress import Row, find_batch, progress_of
from cli.batches.thumbnails import Thumbnails, read_stored
from cli.connection import open_database
from cli.output import json_option, plural, print_json, screen, stderr
from core.errors import NotFound, Pruned, UserError
from core.settings import load
from models.queries.edits import CONTACT_SHEET_PAGE
from storage.store import Storage
from worker.settings import WorkerSettings

PAGE_TILES = 100
READERS = 4
"""Images read at one time; each may take some hundred megabytes while it is decoded."""
EDITS_AT_ONCE = 100
"""Edits looked up with one question."""


@click.command("contact-sheet")
@click.argument("batch", metavar="BATCH")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A .png or .html; unless given, contact-sheet-ID.png here.",
)
@click.option(
    "--limit", type=click.IntRange(1), default=1_000, show_default=True, help="Tiles, or edits, over all pages."
)
@json_option
def contact_sheet(batch: str, output: Path | None, limit: int, as_json: bool) -> None:
    """Show a batch's images on one page, an image or HTML.

    As a PNG: each image with its custom_id or position; a failed edit is a grey tile with its error's type. As HTML:
    each edit with its inputs beside its images, prompt, seed, size and state; the file loads nothing. What is too much
    for one page goes on in another: sheet.png, sheet-2.png. BATCH is an id, the beginning of one, or `last`.
    """
    engine = open_database()
    row = progress_of(engine, find_batch(engine, batch))
    if row["pruned_at"]:
        raise Pruned
    output = output or Path(f"contact-sheet-{str(row['batch_id'])[:8]}.png")
    kind = output.suffix.lower()
    if kind not in (".png", ".html"):
        raise UserError(f"{output} does not end in .png or .html; a contact sheet is one of the two.")
    if kind == ".html":
        what, total = "edit", int(row["edits"])
        written = write_html(engine, row, output, limit)
    else:
        what, total = "tile", int(row["images_stored"]) + int(row["failed"])
        if not total:
            raise NotFound(f"Batch {row['batch_id']} has no image and no failed edit yet.")
        written = write_png(engine, row, output, min(limit, total))
    names = []
    for path in written:
        names.append(str(path))
        if not as_json:
            screen.print(names[-1], markup=False, soft_wrap=True)
    if total > limit:
        stderr.print(first_of(limit, total, what), markup=False)
    if as_json:
        print_json({"batch_id": row["batch_id"], f"{what}s": min(limit, total), "of": total, "files": names})


def first_of(limit: int, total: int, what: str) -> str:
    """How much of the batch is shown."""
    return f"The first {limit} of {plural(total, what)}; more with --limit."


def write_html(engine: Engine, row: Row, output: Path, limit: int) -> Iterator[Path]:
    """Write the pages as HTML; gives each file when it is there."""
    sheet = Sheet(engine, row["batch_id"], Thumbnails(load(WorkerSettings), row["client"]))
    note = first_of(limit, int(row["edits"]), "edit") if row["edits"] > limit else ""
    with closing(sheet.cards(limit)) as cards:
        yield from write_html_sheet(row, cards, output, note)


def write_png(engine: Engine, row: Row, output: Path, limit: int) -> Iterator[Path]:
    """Draw the pages; gives each file when it is there."""
    settings = load(WorkerSettings)
    read = partial(read_stored, Storage(settings.storage_url), settings.picture_max_bytes)
    for number, page in enumerate(draw_pages(engine, row, read, limit), 1):
        path = name_page(output, number)
        _save(page, path)
        yield path


def draw_pages(engine: Engine, row: Row, read: "partial[Image.Image | str]", limit: int) -> Iterator[Image.Image]:
    """The pages."""
    pages = -(-limit // PAGE_TILES)
    with ThreadPoolExecutor(READERS) as pool:
        left, number = islice(tiles(engine, str(row["batch_id"])), limit), 0
        while page := list(islice(left, PAGE_TILES)):
            number += 1
            images = pool.map(lambda tile: read(tile.key, TILE) if tile.key else str(tile.error), page)
            yield draw_page(row, zip(page, images, strict=True), len(page), number=number, pages=pages)


def tiles(engine: Engine, batch_id: str) -> Iterator[Tile]:
    """A tile for each stored image and for each failed edit, in the order of the manifest."""
    after = -1
    while True:
        with engine.connect() as connection:
            rows = connection.exec_driver_sql(CONTACT_SHEET_PAGE, (batch_id, after, EDITS_AT_ONCE)).all()
        for row in rows:
            for number, key in enumerate(row.keys, 1):
                yield Tile(f"{row.name} · {number}" if len(row.keys) > 1 else row.name, key=key)
            if row.error:
                yield Tile(row.name, error=row.error)
        if len(rows) < EDITS_AT_ONCE:
            return
        after = rows[-1].position


def _save(page: Image.Image, path: Path) -> None:
    try:
        page.save(path, format="PNG")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from None
