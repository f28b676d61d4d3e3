"""`--convert`: a local file that the model may not take, turned into one that it takes; the file itself stays as it is.

Upright, in sRGB with 8 bits a channel, the first of several images, nothing beside the image. What had no loss, or has
transparency, becomes PNG, and everything else JPEG. The same file always becomes the same bytes, so that these are made
when it is judged and again when it is sent, and lie on no disk in between.
"""

import threading
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from core.errors import UnfitInput, UserError
from core.image_files import DECODED, FORMATS, MAX_PIXELS
from core.input_images import (
    ANIMATED,
    CMYK,
    DEEP,
    ELSEWHERE_BYTES,
    KIND,
    TURNED,
    inspect_input,
)
from provider.uploads import LocalFile, inspect

CURED = {KIND: "", CMYK: "CMYK as RGB", DEEP: "16 bit as 8", ANIMATED: "its first image", TURNED: "turned upright"}
"""Warnings that a converted file no longer gives, and what was done about them."""
READABLE = (*FORMATS, "HEIF", "AVIF", "TIFF", "BMP", "PSD", "ICO", "JPEG2000")
"""As Pillow names them; nothing else is ever opened."""
LOSSY = {"JPEG", "MPO", "WEBP", "HEIF", "AVIF", "JPEG2000"}
NAMES = {"HEIF": "HEIC", "JPEG2000": "JPEG 2000", "MPO": "JPEG"}
QUALITY = 95
COPIES = 3
"""Of the pixels, in memory at one time."""

_REGISTERING = threading.Lock()


class Converted(NamedTuple):
    """A file's content for the model; `before` and `now` are what kind it was, and is."""

    content: bytes
    before: str
    now: str


def inspect_converted(path: Path) -> LocalFile:
    """Judge a file as it would be sent: converted where that helps, else as it is.

    Raises:
        UnfitInput: it can be sent neither way, and why.
        UserError: it cannot be read, or not here.
    """
    cured: list[str] = []
    try:
        found = inspect(path)
    except UnfitInput as error:
        if not error.convertible:
            raise
    else:
        if CURED.keys().isdisjoint(found.warnings):
            return found
        cured = [CURED[warning] for warning in found.warnings if CURED.get(warning)]
    content, before, now = convert_image(path)
    judged = inspect_input(BytesIO(content), name=f"{path}, once it is converted,")
    note = f"{before} sent as {now}{': ' if cured else ''}{', '.join(cured)}"
    return LocalFile(path, judged.sha256, judged.content_type, judged.bytes, judged.warnings, note)


def open_content(file: LocalFile) -> IO[bytes]:
    """What is sent of a file that was judged by `inspect_converted`; the caller closes it.

    Raises:
        UserError, OSError: it cannot be read any more.
    """
    return BytesIO(convert_image(file.path).content) if file.converted else file.path.open("rb", buffering=0)


def convert_image(path: Path) -> Converted:
    """The file's image as the model takes it.

    Raises:
        UnfitInput: it cannot be converted, and why.
        UserError: it is HEIC, for which a package is missing.
    """
    try:
        with path.open("rb") as file, _open(file) as image:
            pixels = image.width * image.height
            if pixels > MAX_PIXELS:
                raise _too_many_pixels(path)
            kind = str(image.format)
            with DECODED.hold(COPIES * pixels):
                content, now = _encode(_draw_plainly(image), lossy=kind in LOSSY)
    except (UserError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise _not_read(path) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(path) from None
    except Exception as error:  # Pillow's decoders raise what they like on damaged bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnfitInput(f"{path} cannot be converted: {reason.rstrip('.')}.") from None
    return Converted(content, NAMES.get(kind, kind), now)


def _too_many_pixels(path: Path) -> UnfitInput:
    return UnfitInput(f"{path} has too many pixels; darkroom sends at most {MAX_PIXELS}.")


def _open(file: IO[bytes]) -> Image.Image:
    with _REGISTERING:  # Pillow's table of formats is not to be read while another thread fills it
        _register_heif()
        Image.init()
        there = [name for name in READABLE if name in Image.OPEN]
    return Image.open(file, formats=there)


def _register_heif() -> bool:
    """Whether HEIC can be read here."""
    try:
        import pillow_heif
    except ImportError:
        return False
    if "HEIF" not in Image.OPEN:
        pillow_heif.register_heif_opener(thumbnails=False)
    return True


def _not_read(path: Path) -> UserError:
    if not _register_heif():
        return UserError(f"{path} can be converted with pillow-heif only: pip install 'darkroom[heif]'.")
    return UnfitInput(
        f"{path} cannot be converted: it is damaged, or of a kind that the installed Pillow does not read."
    )


def _draw_plainly(image: Image.Image) -> Image.Image:
    """Its pixels, upright, as L, RGB or RGBA in sRGB."""
    upright = _with_8_bits(ImageOps.exif_transpose(image))
    profile = upright.info.get("icc_profile")
    mode = "RGBA" if upright.has_transparency_data else "L" if upright.mode in ("1", "L") else "RGB"
    if profile and mode != "L":
        if upright.mode not in (mode, "CMYK", "LAB"):
            upright = upright.convert(mode)
        with suppress(ImageCms.PyCMSError, OSError, ValueError):  # a profile that cannot be read counts for nothing
            source, srgb = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
            return ImageCms.profileToProfile(upright, source, srgb, outputMode=mode) or upright
    return upright.convert(mode)


def _with_8_bits(image: Image.Image) -> Image.Image:
    """16 bits a channel as 8; Pillow's own conversion would cut off all that is brighter than 255."""
    if image.mode == "F":
        raise ValueError("its pixels are fractions, and which of them is white is not said")
    if not image.mode.startswith("I"):
        return image
    return image.convert("I").point(lambda value: value * (1 / 256)).convert("L")


def _encode(image: Image.Image, *, lossy: bool) -> tuple[bytes, str]:
    """The file, and its kind; a PNG that would be larger than other sellers of the model take becomes a JPEG."""
    plain = Image.new(image.mode, image.size)
    plain.paste(image)  # nothing of what stands beside the pixels
    file = BytesIO()
    if image.mode == "RGBA" or not lossy:
        plain.save(file, "PNG")
        if image.mode == "RGBA" or file.tell() <= ELSEWHERE_BYTES:
            return file.getvalue(), "PNG"
        file = BytesIO()
    plain.save(file, "JPEG", quality=QUALITY, subsampling=0)
    return file.getvalue(), "JPEG"
