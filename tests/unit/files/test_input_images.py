"""What may be sent as an input, as people bring it: named for what it is, refused where it must be, warned of else."""

import hashlib
import io
import random
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pillow_heif
import pytest
from PIL import Image

from core import image_kinds, input_images
from core.errors import UnfitInput
from core.image_files import FORMATS, MAX_PIXELS
from core.image_kinds import Kind
from core.input_images import (
    ANIMATED,
    CMYK,
    DEEP,
    ELSEWHERE_BYTES,
    ELSEWHERE_PIXELS,
    ELSEWHERE_RATIO,
    ELSEWHERE_SIDE,
    INPUT_MAX_BYTES,
    KIND,
    MIN_SIDE,
    SIZE,
    TURNED,
    InputImage,
    inspect_input,
)
from tests.support.input_files import drawn, encoded, turned


def inspected(data: bytes, name: str = "a.jpg") -> InputImage:
    return inspect_input(io.BytesIO(data), name=name)


def refusal(data: bytes, name: str = "a.jpg") -> str:
    with pytest.raises(UnfitInput) as caught:
        inspected(data, name)
    assert str(caught.value).startswith(name)
    assert str(caught.value).count(". ") == 0
    return str(caught.value)


@pytest.mark.parametrize(("kind", "type_"), FORMATS.items())
def test_accepted_kinds_are_measured(kind: str, type_: str) -> None:
    """Type, size, dimensions and hash come from the bytes, wherever the file stands and whatever it is called."""
    data = encoded(drawn(), kind)
    with tempfile.SpooledTemporaryFile(max_size=10) as file:
        file.write(data)
        found = inspect_input(file, name="wrong.txt")
        assert not file.closed
    assert found[:5] == (type_, 60, 40, len(data), hashlib.sha256(data).hexdigest())
    assert found.warnings == ((KIND,) if kind in ("WEBP", "GIF") else ())


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_usual_colours_are_fine(mode: str) -> None:
    """Palettes and transparency need no word."""
    assert inspected(encoded(drawn().convert(mode), "PNG")).warnings == ()


def animation(kind: str) -> bytes:
    frames = [drawn(seed=seed) for seed in range(3)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)


PECULIAR: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "CMYK JPEG, as Photoshop writes it": (lambda: encoded(drawn().convert("CMYK"), "JPEG"), (CMYK,)),
    "16 bit grey PNG": (lambda: encoded(Image.new("I;16", (60, 40), 40_000), "PNG"), (DEEP,)),
    "animated GIF": (lambda: animation("GIF"), (ANIMATED, KIND)),
    "animated WebP": (lambda: animation("WEBP"), (ANIMATED, KIND)),
    "animated PNG": (lambda: animation("PNG"), (ANIMATED,)),
    "turned JPEG": (lambda: encoded(drawn(), "JPEG", exif=turned(6)), (TURNED,)),
    "turned PNG": (lambda: encoded(drawn(), "PNG", exif=turned(8)), (TURNED,)),
    "turned WebP": (lambda: encoded(drawn(), "WEBP", exif=turned(3)), (TURNED, KIND)),
    "upright JPEG that says so": (lambda: encoded(drawn(), "JPEG", exif=turned(1)), ()),
    "EXIF that is none": (lambda: encoded(drawn(), "JPEG", exif=b"Exif\0\0MM\0*rubbish"), ()),
    "several images of a phone": (lambda: encoded(drawn(), "MPO", save_all=True, append_images=[drawn(seed=2)]), ()),
    "bytes of a phone behind the end": (lambda: encoded(drawn(), "JPEG") + b"trailer" * 100, ()),
    "flat": (lambda: encoded(drawn((61, 20)), "PNG"), (SIZE,)),
    "as flat as others take it": (lambda: encoded(drawn((60, 20)), "PNG"), ()),
    "small": (lambda: encoded(drawn((14, 15)), "PNG"), (SIZE,)),
    "panorama": (lambda: encoded(Image.new("L", (30_000, 2_000)), "PNG"), (SIZE,)),
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # as where it runs
@pytest.mark.parametrize("what", PECULIAR)
def test_what_may_come_out_otherwise_is_a_warning(what: str) -> None:
    """Nothing is known that the provider refuses, so nothing is refused for it; but a person hears of it."""
    made, warnings = PECULIAR[what]
    assert inspected(made()).warnings == warnings


def deep_colours() -> bytes:
    """A PNG of 16 bits a channel in colours, which Pillow can read and not write."""
    head = struct.pack(">IIBBBBB", 20, 20, 16, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + random.Random(1).randbytes(20 * 6)) * 20)
    chunks = ((b"IHDR", head), (b"IDAT", rows), (b"IEND", b""))
    parts = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_deep_colours_are_seen_in_the_file() -> None:
    """Pillow itself calls it RGB."""
    assert inspected(deep_colours()).warnings == (DEEP,)


def test_a_heavy_file_is_a_warning() -> None:
    """Ten megabytes are what others take; ours is the bound of what is sent."""
    data = encoded(drawn(), "JPEG") + bytes(10_000_000)
    assert inspected(data).warnings == (SIZE,)


def heif(**options: Any) -> bytes:
    file = io.BytesIO()
    pillow_heif.from_pillow(drawn()).save(file, **options)
    return file.getvalue()


OTHER_KINDS: dict[str, tuple[Callable[[], bytes] | bytes, str, bool]] = {
    "HEIC of a phone": (heif, "HEIC; save it as JPEG or PNG", True),
    "AVIF": (lambda: encoded(drawn(), "AVIF"), "AVIF; save it as JPEG or PNG", True),
    "TIFF": (lambda: encoded(drawn(), "TIFF"), "TIFF; save it", True),
    "TIFF of another order": (b"MM\0*" + bytes(60), "TIFF; save it", True),
    "BMP": (lambda: encoded(drawn(), "BMP"), "BMP; save it", True),
    "ICO": (lambda: encoded(drawn(), "ICO"), "ICO; save it", True),
    "JPEG 2000": (lambda: encoded(drawn(), "JPEG2000"), "JPEG 2000; save it", True),
    "PSD": (b"8BPS\0\1" + bytes(60), "PSD; save it", True),
    "raw": (b"II*\0\x10\0\0\0CR\2\0" + bytes(60), "a camera's raw file; save it", False),
    "JPEG XL": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(60), "JPEG XL; save it", False),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG; export it as PNG", False),
    "SVG of a program": (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- x -->\n<svg\nx='1'/>", "SVG; export", False),
    "PDF": (lambda: encoded(drawn(), "PDF"), "PDF; export it as PNG", False),
    "EPS": (lambda: encoded(drawn(), "EPS"), "PostScript; export it as PNG", False),
    "MP4": (b"\0\0\0\x20ftypisom\0\0\2\0", "a video; take one image of it", False),
    "MOV": (b"\0\0\0\x14ftypqt  \0\0\2\0", "a video", False),
    "WebM": (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81", "a video", False),
    "AVI": (b"RIFF\0\0\1\0AVI LIST", "a video", False),
    "web page": (b"\n <!DOCTYPE html><html><svg/></html>", "", False),
    "login": (b"<html><head><title>Sign in</title>", "a web page (HTML)", False),
    "error": (b'{"error": "AccessDenied"}', "a message in JSON", False),
    "error of S3": (b"<?xml version='1.0'?><Error/>", "XML", False),
    "text": ("Photos vom März\n".encode(), "text", False),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7\n", "git lfs pull", False),
    "of macOS": (b"\0\5\x16\7\0\2\0\0Mac OS X", "macOS metadata", False),
    "ZIP": (b"PK\3\4" + bytes(60), "a ZIP archive; unpack it", False),
    "rubbish": (random.Random(1).randbytes(4096), "no image of a kind that can be sent (PNG, JPEG, WEBP, GIF).", False),
}


@pytest.mark.parametrize("what", OTHER_KINDS)
def test_another_kind_is_named(what: str) -> None:
    """Whatever the file's name says, with what to do about it, in one sentence."""
    made, words, convertible = OTHER_KINDS[what]
    data = made if isinstance(made, bytes) else made()
    with pytest.raises(UnfitInput) as caught:
        inspected(data, "IMG_1.jpg")
    assert f"{caught.value}".startswith("IMG_1.jpg is no image of a kind that can be sent")
    assert words in str(caught.value)
    assert caught.value.convertible is convertible


def test_empty() -> None:
    """As a download leaves it that failed at its start."""
    assert refusal(b"") == "a.jpg is empty."


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("GIF", {})]
)
def test_what_was_cut_is_refused(kind: str, options: dict[str, Any], keep: float) -> None:
    """An upload that broke off: its head alone would pass, and the edit would be paid for."""
    data = encoded(drawn((300, 200)), kind, **options)
    assert "cut short or damaged" in refusal(data[: int(len(data) * keep)])


def test_a_changed_byte_of_a_png_is_found() -> None:
    """Checksums tell."""
    data = bytearray(encoded(drawn(), "PNG"))
    data[data.index(b"IDAT") + 40] ^= 1
    assert "cut short or damaged" in refusal(bytes(data))


def test_rows_that_are_missing_under_right_checksums_are_found() -> None:
    """A program that ran out of data ends the file properly all the same."""
    data = deep_colours()
    rows = zlib.compress(random.Random(1).randbytes(121 * 20))[:1000]
    start, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    short = struct.pack(">I", len(rows)) + b"IDAT" + rows + struct.pack(">I", zlib.crc32(b"IDAT" + rows))
    assert "cut short or damaged" in refusal(data[:start] + short + data[end:])


@pytest.mark.parametrize("size", [(1, 1), (7, 400)])
def test_nothing_to_be_seen_is_refused(size: tuple[int, int]) -> None:
    """The image of one pixel by which a page is tracked, where the one that was meant did not load."""
    assert refusal(encoded(Image.new("RGB", size), "PNG")) == (
        f"a.jpg has {size[0]}x{size[1]} pixels; darkroom sends at least 8 a side."
    )
    assert inspected(encoded(Image.new("RGB", (8, 8)), "GIF")).width == 8


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # as where it runs
def test_too_many_pixels_and_bytes_are_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the head says; a bomb is never unpacked."""
    wide = bytearray(deep_colours())
    wide[16:24] = struct.pack(">II", 30_000, 4_000)
    wide[29:33] = struct.pack(">I", zlib.crc32(wide[12:29]))
    assert refusal(bytes(wide)) == "a.jpg has 30000x4000 pixels; darkroom sends at most 100000000."
    wide[16:24] = struct.pack(">II", 300_000, 300_000)
    wide[29:33] = struct.pack(">I", zlib.crc32(wide[12:29]))
    assert refusal(bytes(wide)) == "a.jpg has too many pixels; darkroom sends at most 100000000."
    data = encoded(drawn(), "PNG")
    monkeypatch.setattr(input_images, "INPUT_MAX_BYTES", len(data) - 1)
    assert refusal(data) == f"a.jpg is too large: {len(data)} bytes; darkroom sends at most {len(data) - 1}."


PAGE = (Path(__file__).parents[3] / "docs/manifests.md").read_text()


def test_the_page_names_every_kind_and_bound() -> None:
    """docs/manifests.md says what becomes of each."""
    kinds = {kind.name for kind in vars(image_kinds).values() if isinstance(kind, Kind)}
    kinds |= {kind.name for _, _, kind in image_kinds._SIGNATURES} | {
        kind.name for kind in image_kinds._BRANDS.values()
    }
    assert [name for name in kinds if name not in PAGE] == []
    bounds = (
        f"{INPUT_MAX_BYTES} bytes or {MAX_PIXELS} pixels, or a side under {MIN_SIDE}",
        "64 MiB",
        "more than 14 pixels",
    )
    assert [bound for bound in bounds if bound not in PAGE] == []
    assert (ELSEWHERE_SIDE, ELSEWHERE_PIXELS, ELSEWHERE_BYTES, ELSEWHERE_RATIO) == (15, 36_000_000, 10_000_000, 3)


def test_whatever_the_bytes_are() -> None:
    """Changed, cut and joined files are refused or measured, and nothing else comes of them."""
    chance, refused = random.Random(1), 0
    originals = [encoded(drawn(), kind) for kind in FORMATS] + [animation("GIF"), heif(), PECULIAR["turned PNG"][0]()]
    for _ in range(1500):
        data = bytearray(chance.choice(originals))
        for _ in range(chance.choice((0, 1, 8))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            inspected(bytes(data[: chance.choice((len(data), chance.randrange(len(data) + 1)))]))
        except UnfitInput:
            refused += 1
    assert 600 < refused < 1400
