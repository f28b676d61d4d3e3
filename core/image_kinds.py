"""What a file is, as far as its first bytes tell: to name what cannot be sent, and to find images in a folder."""

import re
from typing import NamedTuple

HEAD = 1024
"""Bytes of a file's beginning that are looked at."""
SAVE, EXPORT, FRAME = "save it as JPEG or PNG", "export it as PNG", "take one image of it, as JPEG or PNG"


class Kind(NamedTuple):
    """What a file is, and what its owner may do about it; a convertible one holds an image that can be read."""

    name: str
    advice: str
    convertible: bool = False


PAGE = Kind("a web page (HTML)", "its address may want a login, or shows the image only inside a page")
JSON = Kind("a message in JSON", "its address may have answered with an error")
SVG = Kind("SVG", EXPORT)
TEXT = Kind("text", "name a file that holds an image")

_BRANDS = {
    b"heic heix heim heis hevc hevx mif1 msf1 heif": Kind("HEIC", SAVE, convertible=True),
    b"avif avis": Kind("AVIF", SAVE, convertible=True),
    b"crx ": Kind("a camera's raw file", SAVE),
}
"""By the brand of an ISO media file, at byte 8; every other one is a video."""
_SIGNATURES = (
    (0, b"II*\0\x10\0\0\0CR", Kind("a camera's raw file", SAVE)),
    (0, b"FUJIFILM", Kind("a camera's raw file", SAVE)),
    (0, b"II*\0", Kind("TIFF", SAVE, convertible=True)),
    (0, b"MM\0*", Kind("TIFF", SAVE, convertible=True)),
    (0, b"II+\0", Kind("TIFF", SAVE, convertible=True)),
    (0, b"MM\0+", Kind("TIFF", SAVE, convertible=True)),
    (0, b"BM", Kind("BMP", SAVE, convertible=True)),
    (0, b"8BPS", Kind("PSD", SAVE, convertible=True)),
    (0, b"\0\0\1\0", Kind("ICO", SAVE, convertible=True)),
    (4, b"jP  ", Kind("JPEG 2000", SAVE, convertible=True)),
    (0, b"\xff\x4f\xff\x51", Kind("JPEG 2000", SAVE, convertible=True)),
    (4, b"JXL ", Kind("JPEG XL", SAVE)),
    (0, b"\xff\x0a", Kind("JPEG XL", SAVE)),
    (0, b"%PDF", Kind("PDF", EXPORT)),
    (0, b"%!PS", Kind("PostScript", EXPORT)),
    (0, b"\xc5\xd0\xd3\xc6", Kind("PostScript", EXPORT)),
    (0, b"\x1a\x45\xdf\xa3", Kind("a video", FRAME)),
    (8, b"AVI ", Kind("a video", FRAME)),
    (0, b"\0\0\1\xba", Kind("a video", FRAME)),
    (0, b"PK\3\4", Kind("a ZIP archive", "unpack it")),
    (0, b"\0\5\x16\7", Kind("macOS metadata", "the image is the file without ._ before its name")),
    (0, b"version https://git-lfs", Kind("a pointer of Git LFS", "fetch the file itself: git lfs pull")),
)
_SVG = re.compile(rb"<svg[\s/>]", re.IGNORECASE)
_MARKUP = re.compile(rb"<(!doctype html|html|head|body|title|script|meta|!--)", re.IGNORECASE)


def guess_kind(head: bytes) -> Kind | None:
    """What the file is whose first bytes these are; None where they tell nothing."""
    if head[4:8] == b"ftyp":
        return next((kind for brands, kind in _BRANDS.items() if head[8:12] in brands), Kind("a video", FRAME))
    for at, signature, kind in _SIGNATURES:
        if head.startswith(signature, at):
            return kind
    return _guess_text(head.removeprefix(b"\xef\xbb\xbf").lstrip())


def looks_like_image(head: bytes) -> bool:
    """Whether a file that begins so holds an image, of a kind that can be sent or be turned into one."""
    if head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")) or head[8:12] == b"WEBP":
        return True
    kind = guess_kind(head)
    return kind is not None and kind.convertible


def _guess_text(head: bytes) -> Kind | None:
    if _SVG.search(head) and head.startswith(b"<"):
        return SVG
    if _MARKUP.match(head):
        return PAGE
    if head[:1] in (b"{", b"["):
        return JSON
    if head.startswith(b"<"):
        return Kind("XML", "name a file that holds an image")
    return TEXT if head and not re.search(rb"[\x00-\x08\x0e-\x1f\x7f]", head) else None
