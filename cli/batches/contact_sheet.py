"""`darkroom contact-sheet`: a batch's stored images on a page to look at, or on several.

Reads page by page, so that memory holds one page and a few decoded images, however large the batch is. How a page
looks is `contact_sheet_page.py`'s.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import click
from PIL import Image
from sqlalchemy import Engine

from cli.batches.contact_sheet_page import TILE, Tile, draw_page
from cli.batches.progress import Row, find_batch, progress_of
from cli.connection import open_database
from cli.output import json_option, plural, print_json, screen, stderr
from core.errors import NotFound, UserError
from core.image_files import FORMATS
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
    help="A .png; unless given, contact-sheet-ID.png here.",
)
@click.option("--limit", type=click.IntRange(1), default=1_000, show_default=True, help="Tiles, over all pages.")
@json_option
def contact_sheet(batch: str, output: Path | None, limit: int, as_json: bool) -> None:
    """Draw a batch's images on one page.

    Each with its custom_id or position; a failed edit is a grey tile with its error's type. After 100 tiles
    another page begins: sheet.png, sheet-2.png. BATCH is an id, the beginning of one, or `last`.
    """
    engine = open_database()
    batch_id = find_batch(engine, batch)
    row = progress_of(engine, batch_id)
    total = int(row["images_stored"]) + int(row["failed"])
    if not total:
        raise NotFound(f"Batch {batch_id} has no image and no failed edit yet.")
    output = output or Path(f"contact-sheet-{batch_id[:8]}.png")
    if output.suffix.lower() != ".png":
        raise UserError(f"{output} does not end in .png; a contact sheet is a PNG.")
    settings = load(WorkerSettings)
    read = partial(thumbnail, Storage(settings.storage_url), settings.picture_max_bytes)
    written: list[Path] = []
    for page in draw_pages(engine, row, read, min(limit, total)):
        written.append(_numbered(output, len(written) + 1))
        _save(page, written[-1])
        if not as_json:
            screen.print(str(written[-1]), markup=False, soft_wrap=True)
    if total > limit:
        stderr.print(f"The first {limit} of {plural(total, 'tile')}; more with --limit.", markup=False)
    if as_json:
        print_json({"batch_id": batch_id, "tiles": min(limit, total), "of": total, "files": list(map(str, written))})


def draw_pages(engine: Engine, row: Row, read: "partial[Image.Image | str]", limit: int) -> Iterator[Image.Image]:
    """The pages."""
    pages = -(-limit // PAGE_TILES)
    with ThreadPoolExecutor(READERS) as pool:
        left, number = islice(tiles(engine, str(row["batch_id"])), limit), 0
        while page := list(islice(left, PAGE_TILES)):
            number += 1
            images = pool.map(lambda tile: read(tile.key) if tile.key else str(tile.error), page)
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


def thumbnail(storage: Storage, max_bytes: int, key: str) -> Image.Image | str:
    """A stored image made small, or in a word why there is none."""
    try:
        with storage.get(key, max_bytes=max_bytes) as file, Image.open(file, formats=list(FORMATS)) as image:
            image.draft("RGB", (2 * TILE, 2 * TILE))  # a JPEG need not be decoded whole
            small = image.convert("RGBA" if image.has_transparency_data else "RGB")
            small.thumbnail((TILE, TILE), Image.Resampling.LANCZOS, reducing_gap=2.0)
            return small
    except NotFound:
        return "not in storage"
    except (UserError, OSError, ValueError, Image.DecompressionBombError):
        return "cannot be read"


def _numbered(output: Path, number: int) -> Path:
    return output if number == 1 else output.with_stem(f"{output.stem}-{number}")


def _save(page: Image.Image, path: Path) -> None:
    try:
        page.save(path, format="PNG")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from None
