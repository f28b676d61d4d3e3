"""Images as people bring them, drawn and encoded when a test needs them."""

import io
import random
from typing import Any

from PIL import Image


def drawn(size: tuple[int, int] = (60, 40), *, seed: int = 1) -> Image.Image:
    """An image with something on it, so that it does not compress to nothing."""
    return Image.frombytes("RGB", size, random.Random(seed).randbytes(size[0] * size[1] * 3))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """As a file of a kind, as Pillow names it."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(orientation: int) -> Image.Exif:
    """The EXIF of a camera that was held so."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif
