"""How a contact sheet looks: thumbnails on dark paper, each with its name beneath. Knows no database and no store."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from cli.batches.progress import Row
from cli.streams import one_line

TILE = 240
"""Pixels of an image's longer side."""
GAP, MARGIN = 18, 40
CAPTION, HEADER = 30, 92
COLUMNS = (4, 10)
"""The fewest and the most side by side; fewer than the fewest only where there are no more tiles."""

Colour = tuple[int, int, int]
PAPER: Colour = (20, 20, 22)
CARD: Colour = (31, 31, 34)
MISSING: Colour = (88, 88, 92)
BRIGHT: Colour = (236, 234, 228)
QUIET: Colour = (150, 148, 144)
SAFELIGHT: Colour = (214, 72, 52)


class Tile(NamedTuple):
    """One place on the sheet: an image in storage, or the reason why there is none."""

    name: str
    key: str | None = None
    error: str | None = None


def draw_page(
    row: Row, tiles: Iterable[tuple[Tile, Image.Image | str]], count: int, *, number: int, pages: int
) -> Image.Image:
    """One page of `count` tiles, each with its thumbnail or a word in its place; `row` is that of `batch_progress`."""
    columns = min(count, max(COLUMNS[0], min(COLUMNS[1], math.ceil(math.sqrt(count * 1.5)))))
    width = max(2 * MARGIN + columns * (TILE + GAP) - GAP, 2 * MARGIN + 3 * TILE)
    height = 2 * MARGIN + HEADER + math.ceil(count / columns) * (TILE + CAPTION + GAP) - GAP
    page = Image.new("RGB", (width, height), PAPER)
    _draw_header(page, row, number, pages)
    for place, (tile, image) in enumerate(tiles):
        left = MARGIN + place % columns * (TILE + GAP)
        top = MARGIN + HEADER + place // columns * (TILE + CAPTION + GAP)
        if isinstance(image, str):
            _reason(page, image, left, top)
        else:
            _image(page, image, left, top)
        _caption(page, tile.name, left, top, failed=isinstance(image, str))
    return page


def _draw_header(page: Image.Image, row: Row, number: int, pages: int) -> None:
    draw = ImageDraw.Draw(page)
    title = one_line(str(row["name"] or row["batch_id"]))
    facts = f"{row['stored']} of {row['edits']} edits stored"
    if row["failed"]:
        facts += f", {row['failed']} failed"
    facts += f"   ·   {row['created_at'].astimezone():%Y-%m-%d %H:%M}"
    if row["name"]:
        facts += f"   ·   {row['batch_id']}"
    place = f"{number} / {pages}" if pages > 1 else ""
    edge = page.width - MARGIN
    draw.rectangle((MARGIN, MARGIN + 4, MARGIN + 5, MARGIN + 54), fill=SAFELIGHT)
    draw.text((MARGIN + 22, MARGIN), _cut(title, _font(28), edge - MARGIN - 120), font=_font(28), fill=BRIGHT)
    draw.text((MARGIN + 22, MARGIN + 38), _cut(facts, _font(16), edge - MARGIN - 22), font=_font(16), fill=QUIET)
    draw.text((edge, MARGIN + 6), place, font=_font(18), fill=QUIET, anchor="ra")


def _image(page: Image.Image, image: Image.Image, left: int, top: int) -> None:
    ImageDraw.Draw(page).rectangle((left, top, left + TILE - 1, top + TILE - 1), fill=CARD)
    place = (left + (TILE - image.width) // 2, top + (TILE - image.height) // 2)
    page.paste(image, place, mask=image if image.mode == "RGBA" else None)


def _reason(page: Image.Image, reason: str, left: int, top: int) -> None:
    draw, font = ImageDraw.Draw(page), _font(17)
    draw.rectangle((left, top, left + TILE - 1, top + TILE - 1), fill=MISSING)
    middle = left + TILE // 2
    draw.line([(middle - 13, top + 74), (middle + 13, top + 100)], fill=PAPER, width=4)
    draw.line([(middle + 13, top + 74), (middle - 13, top + 100)], fill=PAPER, width=4)
    for line, text in enumerate(_lines(one_line(reason), font, TILE - 24)[:4]):
        draw.text((middle, top + 132 + 22 * line), text, font=font, fill=PAPER, anchor="mm")


def _caption(page: Image.Image, name: str, left: int, top: int, *, failed: bool) -> None:
    font = _font(16)
    place = (left + TILE // 2, top + TILE + CAPTION // 2 + 1)
    colour = QUIET if failed else BRIGHT
    ImageDraw.Draw(page).text(place, _cut(name, font, TILE), font=font, fill=colour, anchor="mm")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """As much of the text as fits; of a name that is too long the middle goes, its ends tell it from its neighbours."""
    if font.getlength(text) <= width:
        return text
    kept = len(text)
    while kept > 2 and font.getlength(shown := f"{text[: kept // 2]}…{text[-(kept - kept // 2) :]}") > width:
        kept -= 1
    return shown


def _lines(reason: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> list[str]:
    """An error type in lines that fit, broken behind its underscores and blanks."""
    lines: list[str] = [""]
    for part in reason.replace("_", "_\0").replace(" ", " \0").split("\0"):
        if lines[-1] and font.getlength(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return [_cut(line.strip(), font, width) for line in lines]
