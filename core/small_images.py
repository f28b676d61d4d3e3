"""Small versions of images from anywhere, to be looked at."""

from io import BytesIO
from typing import IO

from PIL import Image, ImageOps

from core.image_files import DECODED, FORMATS, MAX_PIXELS

TYPE = "image/webp"
QUALITY = 80


def shrink(file: IO[bytes], side: int) -> Image.Image:
    """An image of at most so many pixels on its longer side, upright, RGB or RGBA.

    Raises:
        ValueError: it is no image, or too large.
    """
    try:
        with Image.open(file, formats=list(FORMATS)) as image:
            pixels = image.width * image.height
            if pixels > MAX_PIXELS:
                raise ValueError("too large")
            with DECODED.hold(pixels):
                image.draft("RGB", (2 * side, 2 * side))  # a JPEG need not be decoded whole
                small: Image.Image = image
                if image.mode != "RGBA" and (image.mode != "RGB" or image.has_transparency_data):
                    small = image.convert("RGBA" if image.has_transparency_data else "RGB")
                small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
                return ImageOps.exif_transpose(small)
    except Exception as error:  # Pillow's plugins raise nearly anything at broken files
        raise ValueError(f"no image: {type(error).__name__}") from error


def encode_small(image: Image.Image) -> bytes:
    """As WebP."""
    file = BytesIO()
    image.save(file, "WEBP", quality=QUALITY)
    return file.getvalue()
