"""The simple figures that a prompt chooses, each drawn as a mask: full where the other toning shows."""

import random
from collections.abc import Callable

from PIL import Image, ImageDraw, ImageFilter

LONGEST_SIDE = 720  # masks are drawn this small and scaled up

Figure = Callable[[ImageDraw.ImageDraw, tuple[int, int], random.Random], None]


def mask(choice: int, size: tuple[int, int], rng: random.Random) -> Image.Image:
    """A mask of this size; any number chooses a figure, chance places it."""
    scale = LONGEST_SIDE / max(size)
    small = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    drawn = Image.new("L", small, 0)
    FIGURES[choice % len(FIGURES)](ImageDraw.Draw(drawn), small, rng)
    return drawn.filter(ImageFilter.GaussianBlur(0.8)).resize(size, Image.Resampling.BICUBIC)


def _sun(pen: ImageDraw.ImageDraw, size: tuple[int, int], rng: random.Random) -> None:
    radius = min(size) * rng.uniform(0.26, 0.36)
    x, y = size[0] * rng.uniform(0.25, 0.75), size[1] * rng.uniform(0.28, 0.6)
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=225)


def _rings(pen: ImageDraw.ImageDraw, size: tuple[int, int], rng: random.Random) -> None:
    x, y = size[0] * rng.uniform(0.1, 0.9), size[1] * rng.uniform(0.1, 0.9)
    step = max(size) * rng.uniform(0.06, 0.09)
    for ring in range(14, 0, -1):
        extent = ring * step
        pen.ellipse((x - extent, y - extent, x + extent, y + extent), fill=200 if ring % 2 else 0)


def _beams(pen: ImageDraw.ImageDraw, size: tuple[int, int], rng: random.Random) -> None:
    width, height = size
    lean, step = height * rng.choice((-0.7, 0.7)), max(size) * rng.uniform(0.12, 0.18)
    start = -abs(lean) + step * rng.random()
    while start < width + abs(lean):
        pen.polygon(((start, height), (start + step / 2, height), (start + step / 2 + lean, 0), (start + lean, 0)), 190)
        start += step


def _dots(pen: ImageDraw.ImageDraw, size: tuple[int, int], rng: random.Random) -> None:
    step = max(size) / rng.randint(16, 22)
    x0, y0 = size[0] * rng.random(), size[1] * rng.random()
    extent = (size[0] ** 2 + size[1] ** 2) ** 0.5
    for row in range(int(size[1] / step) + 2):
        for column in range(int(size[0] / step) + 2):
            x, y = (column + (row % 2) / 2) * step, row * step
            radius = step * 0.62 * max(0.0, 1 - 1.5 * ((x - x0) ** 2 + (y - y0) ** 2) ** 0.5 / extent)
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=230)


def _hills(pen: ImageDraw.ImageDraw, size: tuple[int, int], rng: random.Random) -> None:
    width, height = size
    for level, fill in ((0.62, 120), (0.74, 170), (0.86, 225)):
        x, radius = width * rng.uniform(0.0, 1.0), max(size) * rng.uniform(0.7, 1.0)
        top = height * level
        pen.ellipse((x - radius, top, x + radius, top + 2 * radius), fill=fill)


def _window(pen: ImageDraw.ImageDraw, size: tuple[int, int], rng: random.Random) -> None:
    width, height = size
    x, y = width * rng.uniform(0.08, 0.45), height * rng.uniform(0.08, 0.4)
    pen.rectangle((x, y, x + width * 0.46, y + height * 0.5), fill=165)
    x, y = x + width * 0.08, y + height * 0.1
    pen.rectangle((x, y, x + width * 0.46, y + height * 0.5), fill=90)


FIGURES: tuple[Figure, ...] = (_sun, _rings, _beams, _dots, _hills, _window)
