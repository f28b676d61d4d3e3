"""Six sample images, drawn with gradients and shapes, so that the demo needs no file and no network.

Each scene is a function of a blank canvas; everything is drawn at twice the size and scaled down, which smooths
the edges. Randomness is seeded: the same images every time.
"""

import math
import random
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

SCALE = 2
LANDSCAPE, PORTRAIT = (1280, 960), (960, 1280)

Colour = tuple[int, int, int]
Point = tuple[float, float]


class Canvas:
    """An image measured from 0 to 1 in both directions."""

    def __init__(self, size: tuple[int, int], seed: str) -> None:
        self.width, self.height = size[0] * SCALE, size[1] * SCALE
        self.image = Image.new("RGB", (self.width, self.height))
        self.random = random.Random(seed)

    def at(self, x: float, y: float) -> Point:
        """A place in pixels."""
        return x * self.width, y * self.height

    def shade(self, top: Colour, bottom: Colour, *, start: float = 0.0, end: float = 1.0) -> None:
        """A band from `start` to `end` that changes from one colour into the other."""
        height = round((end - start) * self.height)
        mask = Image.linear_gradient("L").resize((self.width, height))
        band = Image.composite(Image.new("RGB", mask.size, bottom), Image.new("RGB", mask.size, top), mask.convert("L"))
        self.image.paste(band, (0, round(start * self.height)))

    def polygon(self, points: list[Point], colour: Colour) -> None:
        """A filled shape."""
        ImageDraw.Draw(self.image).polygon([self.at(*point) for point in points], fill=colour)

    def taper(self, x: float, between: tuple[float, float], halves: tuple[float, float], colour: Colour) -> None:
        """An upright shape around `x` whose half width changes from top to bottom."""
        (top, bottom), (above, below) = between, halves
        self.polygon([(x - above, top), (x + above, top), (x + below, bottom), (x - below, bottom)], colour)

    def disc(self, x: float, y: float, radius: float, colour: Colour, *, flat: float = 1.0) -> None:
        """A circle; `radius` is a share of the width, `flat` squeezes it."""
        centre_x, centre_y = self.at(x, y)
        across, down = radius * self.width, radius * self.width * flat
        box = (centre_x - across, centre_y - down, centre_x + across, centre_y + down)
        ImageDraw.Draw(self.image).ellipse(box, fill=colour)

    def glow(self, x: float, y: float, radius: float, colour: Colour, strength: float) -> None:
        """Light that fades out around a point."""
        mask = Image.new("L", (self.width // 8, self.height // 8))
        across = radius * mask.width
        box = (x * mask.width - across, y * mask.height - across, x * mask.width + across, y * mask.height + across)
        ImageDraw.Draw(mask).ellipse(box, fill=round(255 * strength))
        mask = mask.filter(ImageFilter.GaussianBlur(across / 2)).resize(self.image.size, Image.Resampling.BICUBIC)
        self.image.paste(Image.new("RGB", self.image.size, colour), mask=mask)

    def ridge(self, base: float, rough: float, colour: Colour, *, waves: tuple[float, ...] = (1.5, 4, 11)) -> None:
        """A skyline of hills, filled to the bottom."""
        phases = [self.random.uniform(0, math.tau) for _ in waves]
        line = [
            (x / 160, base - sum(rough / wave * math.sin(wave * x / 160 * math.tau / 2 + phase)
                                 for wave, phase in zip(waves, phases, strict=True)))
            for x in range(161)
        ]  # fmt: skip
        self.polygon([(0.0, 1.0), *line, (1.0, 1.0)], colour)

    def save(self, path: Path) -> None:
        """Write it as a JPEG, at half of the size it was drawn in."""
        size = (self.width // SCALE, self.height // SCALE)
        self.image.resize(size, Image.Resampling.LANCZOS).save(path, quality=92)


def mountains(canvas: Canvas) -> None:
    """Blue ranges in the evening light."""
    canvas.shade((38, 52, 105), (250, 176, 120), end=0.75)
    canvas.glow(0.68, 0.52, 0.28, (255, 226, 170), 0.8)
    canvas.disc(0.68, 0.52, 0.055, (255, 240, 205))
    for step in range(5):
        fade = step / 4
        colour = (round(150 - 125 * fade), round(120 - 92 * fade), round(150 - 98 * fade))
        canvas.ridge(0.56 + 0.11 * step, 0.11 - 0.012 * step, colour)


def harbour(canvas: Canvas) -> None:
    """A sailing boat on a bright sea."""
    canvas.shade((88, 172, 222), (226, 242, 246), end=0.56)
    for x, y in ((0.16, 0.14), (0.23, 0.17), (0.30, 0.145), (0.74, 0.24), (0.81, 0.22)):
        canvas.disc(x, y, 0.06, (250, 252, 253), flat=0.42)
    canvas.shade((30, 128, 158), (8, 58, 92), start=0.56)
    for _ in range(130):
        x, y = canvas.random.random(), canvas.random.uniform(0.58, 0.99)
        length = 0.01 + 0.05 * (y - 0.55)
        canvas.polygon([(x - length, y), (x, y - 0.0025), (x + length, y), (x, y + 0.0025)], (120, 198, 212))
    canvas.polygon([(0.36, 0.655), (0.66, 0.655), (0.61, 0.72), (0.41, 0.72)], (168, 44, 40))
    canvas.polygon([(0.36, 0.655), (0.66, 0.655), (0.655, 0.667), (0.365, 0.667)], (245, 236, 220))
    canvas.polygon([(0.497, 0.16), (0.503, 0.16), (0.503, 0.66), (0.497, 0.66)], (92, 62, 40))
    canvas.polygon([(0.508, 0.18), (0.508, 0.63), (0.665, 0.63)], (252, 248, 238))
    canvas.polygon([(0.492, 0.22), (0.492, 0.63), (0.375, 0.63)], (240, 190, 92))


def still_life(canvas: Canvas) -> None:
    """Oranges and a pear before a dark wall."""
    canvas.shade((46, 40, 48), (92, 74, 70), end=0.68)
    canvas.glow(0.25, 0.3, 0.4, (168, 138, 112), 0.7)
    canvas.shade((150, 98, 58), (84, 50, 30), start=0.68)
    fruits = (
        (0.34, 0.66, 0.125, (226, 122, 32)),
        (0.58, 0.69, 0.14, (236, 142, 44)),
        (0.45, 0.76, 0.13, (214, 98, 26)),
    )
    canvas.disc(0.48, 0.855, 0.33, (52, 30, 20), flat=0.13)
    canvas.disc(0.785, 0.63, 0.075, (158, 164, 52))
    canvas.disc(0.785, 0.755, 0.115, (158, 164, 52))
    canvas.polygon([(0.712, 0.64), (0.858, 0.64), (0.892, 0.72), (0.678, 0.72)], (158, 164, 52))
    canvas.polygon([(0.783, 0.56), (0.797, 0.50), (0.805, 0.505), (0.795, 0.57)], (74, 50, 30))
    for x, y, radius, colour in fruits:
        for step in range(24):
            share = step / 24
            lit = tuple(min(255, round(part * (0.62 + 0.6 * share))) for part in colour)
            canvas.disc(x - 0.3 * radius * share, y - 0.3 * radius * share, radius * (1 - 0.85 * share), lit)  # type: ignore[arg-type]  # three parts stay three
        canvas.disc(x + 0.01, y - radius * 0.71, 0.012, (70, 92, 40), flat=0.5)


def city(canvas: Canvas) -> None:
    """A skyline by night, with lit windows."""
    canvas.shade((10, 14, 44), (104, 58, 118), end=0.85)
    for _ in range(120):
        canvas.disc(canvas.random.random(), canvas.random.uniform(0, 0.5), 0.0012, (240, 240, 255))
    canvas.disc(0.22, 0.17, 0.075, (250, 244, 214))
    canvas.disc(0.25, 0.155, 0.065, (27, 22, 57))
    for depth, tone in ((0, (46, 34, 84)), (1, (22, 20, 50))):
        x = -0.02
        while x < 1:
            width = canvas.random.uniform(0.07, 0.13)
            top = canvas.random.uniform(0.34, 0.6) + 0.16 * depth
            canvas.polygon([(x, 1), (x, top), (x + width, top), (x + width, 1)], tone)
            for row in range(int((1 - top) / 0.03)):
                for column in range(int(width / 0.022)):
                    if canvas.random.random() < 0.4:
                        left, up = x + 0.008 + column * 0.022, top + 0.012 + row * 0.03
                        pane = [(left, up), (left + 0.01, up), (left + 0.01, up + 0.014), (left, up + 0.014)]
                        canvas.polygon(pane, canvas.random.choice(((255, 214, 120), (255, 236, 178), (150, 190, 240))))
            x += width + 0.008


def forest(canvas: Canvas) -> None:
    """Fir trees that fade into the mist."""
    canvas.shade((206, 224, 214), (240, 236, 214))
    canvas.glow(0.5, 0.2, 0.35, (255, 250, 226), 0.9)
    for layer in range(4):
        fade = layer / 3
        colour = (round(150 - 132 * fade), round(184 - 128 * fade), round(168 - 124 * fade))
        ground = 0.55 + 0.14 * layer
        canvas.ridge(ground, 0.03, colour, waves=(1, 3))
        for _ in range(16 - 3 * layer):
            x, size = canvas.random.random(), canvas.random.uniform(0.7, 1.2) * (0.12 + 0.09 * layer)
            for tier in range(5):
                high, wide = ground + 0.03 - size * (1 - tier * 0.17), size * (0.09 + 0.055 * tier)
                canvas.polygon([(x, high), (x - wide, high + size * 0.34), (x + wide, high + size * 0.34)], colour)


def balloons(canvas: Canvas) -> None:
    """Balloons over sand dunes."""
    canvas.shade((250, 190, 140), (255, 234, 196), end=0.8)
    for x, y, radius, colours in (
        (0.3, 0.27, 0.15, ((206, 52, 58), (250, 226, 190))),
        (0.72, 0.17, 0.085, ((34, 112, 152), (244, 202, 88))),
        (0.83, 0.45, 0.055, ((96, 62, 132), (240, 150, 110))),
    ):
        drop = radius * canvas.width / canvas.height
        canvas.taper(x, (y + drop * 0.55, y + drop * 1.5), (radius * 0.82, radius * 0.16), colours[0])
        for stripe in range(7):
            across = radius * (1 - stripe / 7)
            centre_x, centre_y = canvas.at(x, y)
            box = (centre_x - across * canvas.width, centre_y - drop * canvas.height,
                   centre_x + across * canvas.width, centre_y + drop * canvas.height)  # fmt: skip
            ImageDraw.Draw(canvas.image).ellipse(box, fill=colours[stripe % 2])
        canvas.taper(x, (y + drop * 1.72, y + drop * 1.96), (radius * 0.15, radius * 0.12), (110, 72, 44))
    for base, colour in ((0.74, (232, 166, 104)), (0.82, (206, 128, 74)), (0.91, (166, 92, 54))):
        canvas.ridge(base, 0.05, colour, waves=(1, 2))


SCENES: tuple[tuple[Callable[[Canvas], None], tuple[int, int]], ...] = (
    (mountains, LANDSCAPE),
    (still_life, PORTRAIT),
    (harbour, LANDSCAPE),
    (city, PORTRAIT),
    (forest, PORTRAIT),
    (balloons, LANDSCAPE),
)


def draw_samples(folder: Path) -> list[Path]:
    """Draw every scene into `folder`."""
    paths = []
    for scene, size in SCENES:
        canvas = Canvas(size, scene.__name__)
        scene(canvas)
        paths.append(folder / f"{scene.__name__.replace('_', '-')}.jpg")
        canvas.save(paths[-1])
    return paths
