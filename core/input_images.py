"""Can the model be given this file as an input? Judged from its bytes, to the last pixel, before money is spent.

Refused is what is no image of an accepted kind, is damaged, or is beyond our own bounds: the provider names none
(provider-protocol 9.1). What it may refuse, or may show otherwise than a person sees it, is a warning.
"""

import hashlib
from typing import IO, NamedTuple

from PIL import Image, UnidentifiedImageError

from core.errors import UnfitInput
from core.image_files import DECODED, FORMATS, MAX_PIXELS, TEXT_MAX_BYTES, open_image, read_pixels, type_of
from core.image_kinds import HEAD, guess_kind

INPUT_MAX_BYTES = 100 * 1024 * 1024
"""Our own; above it the provider wants another way of uploading (provider-protocol 8.2)."""
MIN_SIDE = 8
"""Pixels; our own: on less there is nothing to edit, as on the 1x1 images by which mails are tracked."""

ELSEWHERE_BYTES, ELSEWHERE_PIXELS, ELSEWHERE_SIDE, ELSEWHERE_RATIO = 10_000_000, 6000 * 6000, 15, 3
"""What other sellers of the model say of an input (provider-protocol 9.1): the most, the least, the longest."""
ELSEWHERE_TYPES = {FORMATS["PNG"], FORMATS["JPEG"]}
ORIENTATION = 0x0112
"""EXIF's tag; 1 is upright."""

KIND = "is neither JPEG nor PNG, and other sellers of the model take no other kind"
SIZE = (
    "is not of the size that other sellers of the model take: more than 14 pixels a side, at most three times as long "
    "as wide, at most 36 megapixels and 10 MB"
)
CMYK = "is in CMYK, the colours of printers: they may come out wrong"
DEEP = "has 16 bits a channel: it may come out too light, or be refused"
ANIMATED = "is animated: at most one of its images is edited, most likely the first"
TURNED = "is upright by its EXIF orientation only: where that is not heeded, it lies on its side or is mirrored"


class InputImage(NamedTuple):
    """A file that can be sent, as measured; `warnings` are words that follow its name, the same for each of a kind."""

    content_type: str
    width: int
    height: int
    bytes: int
    sha256: str
    warnings: tuple[str, ...] = ()


def inspect_input(file: IO[bytes], *, name: str) -> InputImage:
    """Judge one file, to its last pixel: what is cut short or damaged would cost a run, or spoil its result.

    `name` is what its owner calls it; a sentence begins with it.

    Raises:
        UnfitInput: it cannot be sent, and why.
        OSError: it cannot be read.
    """
    size = file.seek(0, 2)
    if size > INPUT_MAX_BYTES:
        raise UnfitInput(f"{name} is too large: {size} bytes; darkroom sends at most {INPUT_MAX_BYTES}.")
    file.seek(0)
    head = file.read(HEAD)
    if not head:
        raise UnfitInput(f"{name} is empty.")
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # any binary file
    try:
        return _measure(file, name, head)._replace(bytes=size, sha256=digest)
    except (UnfitInput, MemoryError):
        raise
    except UnidentifiedImageError:
        raise _unknown_kind(name, head) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnfitInput(f"{name} has too many pixels; darkroom sends at most {MAX_PIXELS}.") from None
    except Exception as error:  # Pillow's decoders raise what they like on damaged bytes
        if isinstance(error, ValueError) and "MAX_TEXT" in str(error):
            raise UnfitInput(f"{name} holds more than {TEXT_MAX_BYTES} bytes of text beside the image.") from None
        raise UnfitInput(f"{name} is cut short or damaged: it cannot be read to its end.") from None


def _measure(file: IO[bytes], name: str, head: bytes) -> InputImage:
    """What it is, once all of it was read."""
    with open_image(file) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise UnfitInput(f"{name} has {width}x{height} pixels; darkroom sends at most {MAX_PIXELS}.")
        if min(width, height) < MIN_SIDE:
            raise UnfitInput(f"{name} has {width}x{height} pixels; darkroom sends at least {MIN_SIDE} a side.")
        found = InputImage(type_of(image), width, height, file.seek(0, 2), "")
        peculiar = _peculiarities(image, head)
        with DECODED.hold(width * height):
            read_pixels(file, image, draft=True)
    return found._replace(warnings=(*peculiar, *_beyond_elsewhere(found)))


def _peculiarities(image: Image.Image, head: bytes) -> list[str]:
    """What a person does not see in a viewer, and the model may stumble over."""
    there = {
        CMYK: image.mode == "CMYK",
        DEEP: image.format == "PNG" and head[24] == 16,
        ANIMATED: image.format != "MPO" and getattr(image, "is_animated", False),
        TURNED: read_orientation(image) != 1,
    }
    return [warning for warning, found in there.items() if found]


def read_orientation(image: Image.Image) -> int:
    """EXIF's orientation of an opened image, 1 to 8; 1, upright, where it says none that can be read."""
    exif = Image.Exif()  # not `getexif()`, which draws a PNG first
    try:
        exif.load(image.info.get("exif", b""))
        orientation: object = exif.get(ORIENTATION)
    except Exception:  # Pillow raises what it likes; the image itself may be whole
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _beyond_elsewhere(found: InputImage) -> list[str]:
    """Where it is beyond what other sellers of the model take."""
    short, long = sorted((found.width, found.height))
    beyond = (
        short < ELSEWHERE_SIDE
        or long > ELSEWHERE_RATIO * short
        or short * long > ELSEWHERE_PIXELS
        or found.bytes > ELSEWHERE_BYTES
    )
    return [KIND] * (found.content_type not in ELSEWHERE_TYPES) + [SIZE] * beyond


def _unknown_kind(name: str, head: bytes) -> UnfitInput:
    """With what it is instead, as far as its first bytes tell."""
    kind = guess_kind(head)
    what = f": it is {kind.name}; {kind.advice}" if kind else ""
    sentence = f"{name} is no image of a kind that can be sent ({', '.join(FORMATS)}){what}."
    return UnfitInput(sentence, convertible=kind is not None and kind.convertible)
