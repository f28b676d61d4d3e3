"""The caption of an image: any text that a prompt may hold, cleaned, wrapped and cut to the room there is."""

import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import ceil

from PIL import ImageDraw, ImageFont

PROMPT_COLOUR = (43, 40, 37)
NOTE_COLOUR = (128, 120, 110)
LONGEST_READ = 600  # characters of a prompt that are looked at; no caption has room for more
SMALLEST_TYPE = 7  # pixels; below it nothing can be read
LINE_HEIGHT = 1.28
MISSING = "·"  # stands for a letter that the built-in font does not have
PLAINER = {"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "...", "ß": "ss", "æ": "ae", "ø": "o"}
_DROPPED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Mn", "Zl", "Zp"})

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@lru_cache(maxsize=64)
def typeface(size: int) -> Font:
    """Pillow's built-in font in this size."""
    return ImageFont.load_default(size)


@lru_cache(maxsize=4096)
def _has(letter: str) -> bool:
    """Whether the font can draw the letter; what it cannot draw looks like a private letter."""
    font = typeface(24)
    mask, unknown = font.getmask(letter), font.getmask("\ue000")
    return mask.size != unknown.size or bytes(mask) != bytes(unknown)


def clean(text: str) -> str:
    """One line of letters that can be drawn."""
    flat = unicodedata.normalize("NFC", text[:LONGEST_READ])
    kept = (" " if unicodedata.category(c) in _DROPPED or c.isspace() else c for c in flat)
    return " ".join("".join(c if c == " " else _drawable(c) for c in kept).split())


def _drawable(letter: str) -> str:
    """The letter, a plainer one of the same meaning, or a dot."""
    if _has(letter):
        return letter
    plainer = PLAINER.get(letter) or unicodedata.normalize("NFKD", letter)[0]
    return plainer if all(_has(c) for c in plainer) else MISSING


@dataclass(frozen=True, slots=True)
class Box:
    """Where the caption goes."""

    left: int
    top: int
    width: int
    height: int


def write_caption(canvas: ImageDraw.ImageDraw, box: Box, prompt: str, note: str) -> None:
    """Write the prompt, as large as fits well, and the note beneath it."""
    note_size = max(SMALLEST_TYPE, round(box.height * 0.19))
    prompt_size = max(SMALLEST_TYPE, round(box.height * 0.27))
    note_height = round(note_size * LINE_HEIGHT)
    max_lines = max(1, int((box.height - note_height) / (prompt_size * LINE_HEIGHT)))
    lines = wrap(clean(prompt), typeface(prompt_size), box.width, max_lines)
    text_height = round(prompt_size * LINE_HEIGHT) * len(lines) + note_height
    top = box.top + max(0, (box.height - text_height) // 2)
    for line in lines:
        canvas.text((box.left, top), line, font=typeface(prompt_size), fill=PROMPT_COLOUR)
        top += round(prompt_size * LINE_HEIGHT)
    short_note = next(iter(wrap(note, typeface(note_size), box.width, 1)), "")
    canvas.text((box.left, top + note_size // 4), short_note, font=typeface(note_size), fill=NOTE_COLOUR)


def wrap(text: str, font: Font, width: int, most: int) -> list[str]:
    """At most `most` lines of at most `width` pixels; an ellipsis where something was left out."""
    lines: list[str] = []
    for piece in _pieces(text, font, width):
        joined = f"{lines[-1]} {piece}" if lines else piece
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
        elif len(lines) < most:
            lines.append(piece)
        else:
            lines[-1] = _cut(f"{lines[-1]} {piece}", font, width)
            break
    return lines


def _pieces(text: str, font: Font, width: int) -> Iterator[str]:
    """Words; a word that is wider than the line comes in parts."""
    for word in text.split():
        while font.getlength(word) > width and len(word) > 1:
            fits = _fits(word, font, width)
            yield word[:fits]
            word = word[fits:]
        yield word


def _fits(word: str, font: Font, width: int) -> int:
    """How many letters of the word fit, at least one."""
    return max(1, bisect_right(range(len(word)), width, key=lambda count: ceil(font.getlength(word[:count]))) - 1)


def _cut(text: str, font: Font, width: int) -> str:
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1].rstrip()
    return f"{text}…"
