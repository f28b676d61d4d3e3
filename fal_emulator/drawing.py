"""Draws the "edit": the real input images, toned by the seed, with a figure that the prompt chooses.

A person sees at a glance that this input became that output: the untouched input stands small
in the strip below, beside the prompt, the seed and the note that no AI was at work. The same inputs, prompt,
seed and index give the same bytes.
"""

import colorsys
import hashlib
import io
import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageDraw, ImageOps

from .caption import Box, write_caption
from .figures import mask

Colour = tuple[int, int, int]

BACKGROUND = (247, 244, 238)
OUTLINE = (206, 199, 187)
MOST_PIXELS = 60_000_000  # of one input; beyond it the image is not opened
WORKING_SIDE = 2048  # inputs are brought down to this before anything else
INPUTS_SHOWN = 3  # untouched inputs shown in the strip
NOTE = "emulator - no AI"
GRADIENT_SIDE = 48  # soft shapes are computed this small and scaled up


class Unreadable(Exception):
    """An input is no image; `position` says which."""

    def __init__(self, position: int) -> None:
        super().__init__(f"input {position} is not a readable image")
        self.position = position


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """What one image is to show."""

    prompt: str
    seed: int
    width: int
    height: int
    index: int

    def make_rng(self, purpose: str) -> random.Random:
        """A generator that gives the same numbers for the same image and purpose."""
        return random.Random(f"{purpose}:{self.seed}:{self.index}:{self.prompt_digest().hex()}")

    def prompt_digest(self) -> bytes:
        """The prompt in a few bytes; JSON may carry half a character, which no strict encoding takes."""
        return hashlib.sha256(self.prompt.encode("utf-8", "surrogatepass")).digest()


def open_inputs(data: Sequence[bytes]) -> list[Image.Image]:
    """Decode the inputs, upright and in RGB; the first that cannot be read is named."""
    opened = []
    for position, raw in enumerate(data):
        try:
            opened.append(_open(raw))
        except Exception as error:  # Pillow's plugins raise nearly anything at broken files
            raise Unreadable(position) from error
    return opened


def _open(raw: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image: Image.Image = Image.open(io.BytesIO(raw))
        if image.width * image.height > MOST_PIXELS:
            raise ValueError("too many pixels")
        image.draft("RGB", (WORKING_SIDE, WORKING_SIDE))  # a JPEG decodes smaller at once
        image.load()
        image = ImageOps.exif_transpose(image)
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), image.convert("RGBA"))
        image = image.convert("RGB")
    image.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.BILINEAR)
    return image


def draw(spec: ImageSpec, inputs: Sequence[Image.Image], encoding: str) -> bytes:
    """Draw one image and encode it."""
    canvas = Image.new("RGB", (spec.width, spec.height), BACKGROUND)
    short = min(canvas.size)
    border, strip = max(2, round(short * 0.034)), max(10, round(short * 0.148))
    window = (spec.width - 2 * border, spec.height - border - strip)
    palette = Palette.choose(spec.make_rng("palette"))
    canvas.paste(tone_inputs(spec, inputs, window, palette), (border, border))
    _write_strip(canvas, spec, inputs, palette, Box(border, spec.height - strip, window[0], strip))
    target = io.BytesIO()
    if encoding == "jpeg":
        canvas.save(target, "JPEG", quality=90)
    else:
        canvas.save(target, "PNG", compress_level=1)
    return target.getvalue()


@dataclass(frozen=True, slots=True)
class Palette:
    """Two tonings and an accent."""

    shadow: Colour
    middle: Colour
    light: Colour
    accent: Colour

    @staticmethod
    def choose(rng: random.Random) -> "Palette":
        """One by chance."""
        hue = rng.random()
        shift = rng.choice((0.08, 0.14, 0.42, 0.5, 0.58, 0.86))
        return Palette(
            shadow=_hsv(hue, 0.62, 0.17),
            middle=_hsv(hue + shift / 3, 0.42, 0.7),
            light=_hsv(hue + shift, 0.13, 0.99),
            accent=_hsv(hue + shift, 0.66, 0.93),
        )


def _hsv(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def tone_inputs(spec: ImageSpec, inputs: Sequence[Image.Image], size: tuple[int, int], palette: Palette) -> Image.Image:
    """Tone the inputs; inside the prompt's figure the toning is another one."""
    image = arrange_inputs(inputs, size)
    grey = ImageOps.autocontrast(image.convert("L"), cutoff=0.5)
    toned = Image.blend(image, ImageOps.colorize(grey, palette.shadow, palette.light, palette.middle), 0.6)
    other = ImageOps.colorize(grey, palette.shadow, (255, 255, 255), palette.accent, midpoint=150)
    figured = Image.composite(other, toned, mask(spec.prompt_digest()[0], size, spec.make_rng("figure")))
    lit = _add_glow(figured, spec.make_rng("leak"), palette.accent)
    return _darken_edges(ImageOps.autocontrast(lit, cutoff=0.3, preserve_tone=True))


def arrange_inputs(inputs: Sequence[Image.Image], size: tuple[int, int]) -> Image.Image:
    """One input fills the window; several share it in rows, with gaps between them."""
    if len(inputs) == 1:
        return ImageOps.fit(inputs[0], size, Image.Resampling.BICUBIC)
    width, height = size
    gap = max(2, round(min(size) * 0.008))
    rows = max(1, min(len(inputs), round((len(inputs) * height / width) ** 0.5)))
    page, placed = Image.new("RGB", size, BACKGROUND), 0
    for row in range(rows):
        count = (len(inputs) * (row + 1)) // rows - placed
        top, bottom = (height + gap) * row // rows, (height + gap) * (row + 1) // rows - gap
        for column, image in enumerate(inputs[placed : placed + count]):
            left, right = (width + gap) * column // count, (width + gap) * (column + 1) // count - gap
            tile = (max(1, right - left), max(1, bottom - top))
            page.paste(ImageOps.fit(image, tile, Image.Resampling.BICUBIC), (left, top))
        placed += count
    return page


def _add_glow(image: Image.Image, rng: random.Random, colour: Colour) -> Image.Image:
    """Add a soft glow from one corner."""
    side = GRADIENT_SIDE
    glow = ImageOps.invert(Image.radial_gradient("L").resize((2 * side, 2 * side)))
    left, top = rng.choice((0, side)), rng.choice((0, side))
    corner = glow.crop((left, top, left + side, top + side)).point([round(v * 0.62) for v in range(256)])
    mask = corner.resize(image.size, Image.Resampling.BICUBIC)
    return Image.composite(ImageChops.screen(image, Image.new("RGB", image.size, colour)), image, mask)


def _darken_edges(image: Image.Image) -> Image.Image:
    """Darken the edges a little."""
    shade = Image.radial_gradient("L").resize((GRADIENT_SIDE, GRADIENT_SIDE))
    shade = shade.point([round(255 - 0.3 * max(0, v - 110)) for v in range(256)])
    mask = shade.resize(image.size, Image.Resampling.BICUBIC)
    return ImageChops.multiply(image, Image.merge("RGB", (mask, mask, mask)))


def _write_strip(
    canvas: Image.Image, spec: ImageSpec, inputs: Sequence[Image.Image], palette: Palette, strip: Box
) -> None:
    """The strip below the image: prompt and note left, colours and the untouched inputs right."""
    pen = ImageDraw.Draw(canvas)
    side = round(strip.height * 0.66)
    top, right = strip.top + (strip.height - side) // 2, strip.left + strip.width
    for image in reversed(inputs[:INPUTS_SHOWN]):
        width = min(round(side * image.width / image.height), round(side * 1.5)) or 1
        right -= width
        canvas.paste(ImageOps.fit(image, (width, side), Image.Resampling.BILINEAR), (right, top))
        pen.rectangle((right - 1, top - 1, right + width, top + side), outline=OUTLINE)
        right -= max(2, side // 10)
    swatch = max(2, side // 6)
    for number, colour in enumerate((palette.shadow, palette.middle, palette.accent, palette.light)):
        y = top + number * (side - swatch) // 3
        pen.rectangle((right - swatch, y, right, y + swatch), fill=colour, outline=OUTLINE)
    right -= swatch + max(2, side // 6)
    note = f"seed {spec.seed}  ·  image {spec.index + 1}  ·  {NOTE}"
    write_caption(pen, Box(strip.left, top, max(1, right - strip.left), side), spec.prompt, note)
