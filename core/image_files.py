"""Is this file what the provider declared, and an image at all? Judged from the bytes alone.

Everything is read from a file on disk, so memory holds one decoded image at most, and none larger than
`MAX_PIXELS`. Only the formats listed are ever decoded.
"""

import hashlib
import warnings
from typing import IO, NamedTuple

from PIL import Image, PngImagePlugin

from core.errors import FetchAgain, Unusable
from core.memory_budget import Budget
from core.png_rows import has_every_row

FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}
"""What an image may be, as Pillow names it, and its type."""
MAX_PIXELS = 100_000_000
"""Four times the largest image the model is known to make; a bomb is refused before it is decoded."""

DECODED = Budget(50_000_000)
"""Pixels decoded at one time, per process, a larger image alone: about 200 MB at four bytes each. More threads than
processors gain nothing here."""
TEXT_MAX_BYTES = 64 * 2**20
"""Of a PNG's text chunks once unpacked, one or all together; ComfyUI keeps its whole workflow in one, far over
Pillow's own bound of one megabyte."""
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = TEXT_MAX_BYTES

# Odd metadata is nothing to tell anybody; not `catch_warnings`, which threads would undo for each other.
warnings.filterwarnings("ignore", module=r"PIL\.")


class CheckedImage(NamedTuple):
    """A checked file, as measured."""

    content_type: str
    width: int
    height: int
    bytes: int
    sha256: str


def check_image(file: IO[bytes], *, file_size: int | None, width: int | None, height: int | None) -> CheckedImage:
    """Decode the whole file and compare it with what was declared (None: nothing was).

    Raises:
        FetchAgain: not the declared bytes; it may come whole another time.
        Unusable: no image of an accepted kind, or too large.
    """
    file.seek(0)
    head = file.read(512)
    sha256, size = _digest(_rewound(file))
    if head.lstrip()[:1] in (b"<", b"{", b"["):
        raise FetchAgain("not_an_image", "The file is a page or a message, not an image.")
    if file_size is not None and size != file_size:
        raise FetchAgain("size_mismatch", f"The file has {size} bytes, {file_size} were declared.")
    content_type, found = _decode(file)
    if (width or found[0], height or found[1]) != found:
        raise FetchAgain("dimension_mismatch", f"The image is {found[0]}x{found[1]}, {width}x{height} were declared.")
    return CheckedImage(content_type, *found, bytes=size, sha256=sha256)


def _rewound(file: IO[bytes]) -> IO[bytes]:
    file.seek(0)
    return file


def _digest(file: IO[bytes]) -> tuple[str, int]:
    digest = hashlib.sha256()
    while part := file.read(1024 * 1024):
        digest.update(part)
    return digest.hexdigest(), file.tell()


def type_of(image: Image.Image) -> str:
    """The type of an opened image; several in one JPEG, as phones make them, are a JPEG to everybody else."""
    return FORMATS["JPEG" if image.format == "MPO" else str(image.format)]


def open_image(file: IO[bytes]) -> Image.Image:
    """The image of an accepted kind that begins where the file begins; nothing is decoded yet.

    Raises:
        UnidentifiedImageError: it is none.
        DecompressionBombError: it says that it is far larger than `MAX_PIXELS`.
        Exception: what Pillow raises at bytes that are damaged.
    """
    return Image.open(_rewound(file), formats=list(FORMATS))


def read_pixels(file: IO[bytes], image: Image.Image, *, draft: bool = False) -> None:
    """Read all of an image that was just opened; it is of no use afterwards. Hold `DECODED` meanwhile.

    `draft`: a JPEG is read whole, but drawn small, which takes two thirds of the time.

    Raises:
        Exception: what Pillow raises at bytes that are damaged, or cut short.
    """
    image.verify()  # checksums, which decoding alone skips
    with open_image(file) as image:
        decodable = has_every_row(image)
    if decodable:
        return
    with open_image(file) as image:  # no PNG, or one that is odd or broken
        if draft:
            image.draft("RGB", (64, 64))
        image.load()


def _decode(file: IO[bytes]) -> tuple[str, tuple[int, int]]:
    try:
        with open_image(file) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Unusable("too_large", f"The image is {image.width}x{image.height} pixels.")
            found = type_of(image), image.size
            with DECODED.hold(image.width * image.height):
                read_pixels(file, image)
    except (Unusable, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unusable("too_large", str(error)) from error
    except Exception as error:  # Pillow's decoders raise what they like on hostile bytes
        raise FetchAgain("undecodable", f"The file cannot be decoded: {error}"[:500]) from error
    return found
