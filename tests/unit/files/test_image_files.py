"""Only a whole image of an accepted kind, which is what was declared, passes; it is measured from its bytes."""

import hashlib
import io
import random
import struct
import tempfile
import threading
import warnings
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core import image_files
from core.errors import DownloadError, FetchAgain, Unusable
from core.image_files import FORMATS, CheckedImage, check_image
from storage.store import extension

SIZE = (40, 30)


def drawn(format_: str, size: tuple[int, int] = SIZE, **options: object) -> bytes:
    """An image with something on it, so that it does not compress to nothing."""
    noise = random.Random(1).randbytes(size[0] * size[1] * 3)
    file = io.BytesIO()
    Image.frombytes("RGB", size, noise).save(file, format_, **options)
    return file.getvalue()


PNG, JPEG = drawn("PNG"), drawn("JPEG")


def checked(data: bytes, **declared: int | None) -> CheckedImage:
    return check_image(io.BytesIO(data), **{"file_size": None, "width": None, "height": None, **declared})


def fault(data: bytes, **declared: int | None) -> str:
    """Why the data is to be fetched again."""
    with pytest.raises(FetchAgain) as caught:
        checked(data, **declared)
    return caught.value.type


@pytest.mark.parametrize(("format_", "type_"), FORMATS.items())
def test_accepted_kinds(format_: str, type_: str) -> None:
    """Each accepted kind passes, measured from the bytes: type, size, dimensions and hash."""
    data = drawn(format_)

    found = checked(data, file_size=len(data), width=40, height=30)

    assert found == CheckedImage(type_, 40, 30, len(data), hashlib.sha256(data).hexdigest())


def test_nothing_declared() -> None:
    """What was not declared is not held against the file."""
    assert checked(PNG).bytes == len(PNG)


def test_position_of_the_file_does_not_matter() -> None:
    """A file that was just written is judged from its beginning, in memory or on disk."""
    with tempfile.SpooledTemporaryFile(max_size=10) as file:
        file.write(PNG)
        assert check_image(file, file_size=len(PNG), width=40, height=30).bytes == len(PNG)
        assert not file.closed


@pytest.mark.parametrize(
    ("type_", "suffix"),
    [("image/png", ".png"), ("image/jpeg", ".jpg"), ("image/webp", ".webp"), ("image/gif", ".gif"), ("x/y", ".bin")],
)
def test_extension_follows_the_bytes(type_: str, suffix: str) -> None:
    """The same on every machine, whatever table of types it keeps."""
    assert extension(type_) == suffix


@pytest.mark.parametrize(
    ("declared", "type_"),
    [
        ({"file_size": len(PNG) + 1}, "size_mismatch"),
        ({"file_size": len(PNG) - 1}, "size_mismatch"),
        ({"file_size": 0}, "size_mismatch"),
        ({"width": 41}, "dimension_mismatch"),
        ({"height": 31}, "dimension_mismatch"),
        ({"width": 30, "height": 40}, "dimension_mismatch"),
    ],
)
def test_not_what_was_declared(declared: dict[str, int], type_: str) -> None:
    """One byte or one pixel more or less than declared is another file: fetched again."""
    assert fault(PNG, **declared) == type_


@pytest.mark.parametrize(
    "data",
    [
        b"<!doctype html><title>Just a moment</title>",
        b"\n\t  <html>",
        b'{"detail": "not found"}',
        b" [1, 2]",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<" + PNG,
    ],
)
def test_page_or_message(data: bytes) -> None:
    """HTML, JSON and SVG are no images, even where their length is as declared."""
    assert fault(data, file_size=len(data)) == "not_an_image"


def corrupt_pixel(png: bytes) -> bytes:
    """The right length and structure, one byte of the pixels changed; the checksum tells."""
    at = png.index(b"IDAT") + 40
    return png[:at] + bytes([png[at] ^ 1]) + png[at + 1 :]


def corrupt_checksum(png: bytes) -> bytes:
    at = png.index(b"IEND") - 5
    return png[:at] + bytes([png[at] ^ 1]) + png[at + 1 :]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 1000,
        PNG[:8],
        PNG[: len(PNG) // 2],
        PNG[:-20],
        corrupt_pixel(PNG),
        corrupt_checksum(PNG),
        JPEG[: len(JPEG) // 2],
        JPEG[:-200],
        drawn("WEBP", lossless=True)[:-100],
        drawn("GIF")[:-100],
        drawn("BMP"),
        drawn("TIFF"),
        b"%PDF-1.7\n" + bytes(1000),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"PK\x03\x04" + bytes(100),
    ],
    ids=[
        *("empty", "zeros", "PNG head", "half a PNG", "PNG without end", "PNG pixel", "PNG checksum"),
        *("half a JPEG", "JPEG without end", "cut WEBP", "cut GIF"),
        *("BMP", "TIFF", "PDF", "PostScript", "ZIP"),
    ],
)
def test_not_whole_or_no_accepted_kind(data: bytes) -> None:
    """Cut, corrupted with the right length, or of a kind that is never decoded: not stored, perhaps whole next time."""
    assert fault(data, file_size=len(data)) == "undecodable"


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be enormous."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("width", "height"), [(10_001, 10_000), (13_000, 13_000), (50_000, 50_000), (2**31 - 1, 2**31 - 1), (1, 2**30)]
)
def test_bomb_is_refused_before_it_is_decoded(width: int, height: int) -> None:
    """Beyond MAX_PIXELS nothing is decoded and nothing is fetched again, however far beyond."""
    with pytest.raises(Unusable) as caught:
        checked(bomb(width, height))

    assert caught.value.type == "too_large"


def test_largest_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly MAX_PIXELS is accepted, one more is not."""
    monkeypatch.setattr(image_files, "MAX_PIXELS", 40 * 30)
    assert checked(PNG).width == 40

    with pytest.raises(Unusable):
        checked(drawn("PNG", (41, 30)))


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG"])
def test_moving_images_are_images(format_: str) -> None:
    """An animation is an accepted file, measured by its canvas."""
    frames = [Image.new("RGB", SIZE, colour) for colour in ("red", "green", "blue")]
    file = io.BytesIO()
    frames[0].save(file, format_, save_all=True, append_images=frames[1:])

    assert checked(file.getvalue(), width=40, height=30).content_type == FORMATS[format_]


def test_several_images_in_one_jpeg() -> None:
    """What phones and some encoders make (MPO) is a JPEG to everybody else, and no crash."""
    file = io.BytesIO()
    Image.new("RGB", SIZE).save(file, "MPO", save_all=True, append_images=[Image.new("RGB", SIZE, "red")])

    assert checked(file.getvalue()).content_type == "image/jpeg"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_modes(mode: str) -> None:
    """Grey, palette, alpha and 16 bit are images too."""
    file = io.BytesIO()
    Image.new(mode, SIZE).save(file, "PNG")

    assert checked(file.getvalue()).width == 40


def test_bytes_behind_the_image() -> None:
    """Padding is a lie about the size, where a size was declared."""
    padded = PNG + bytes(100)

    assert fault(padded, file_size=len(PNG)) == "size_mismatch"


def odd_metadata() -> bytes:
    """A good JPEG whose EXIF data makes Pillow warn."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\x10\0" + bytes(20)
    return JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + JPEG[2:]


def test_threads_leave_the_warnings_alone() -> None:
    """Many images checked at once do not change what the process warns about."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        data = drawn("PNG", (300, 300))
        threads = [threading.Thread(target=lambda: [checked(data) for _ in range(5)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert list(warnings.filters) == before


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_odd_metadata_is_no_fault() -> None:
    """Only the pixels matter."""
    assert checked(odd_metadata()).content_type == "image/jpeg"


def mutated(data: bytes) -> st.SearchStrategy[bytes]:
    """The data with a few bytes changed, or cut."""
    places = st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), min_size=1, max_size=4)

    def change(changes: list[tuple[int, int]], end: int) -> bytes:
        array = bytearray(data)
        for place, value in changes:
            array[place] = value
        return bytes(array[:end])

    return st.builds(change, places, st.integers(1, len(data)))


SMALL = [drawn(format_, (9, 7)) for format_ in FORMATS]


@settings(max_examples=150, deadline=None)
@given(st.one_of(*map(mutated, SMALL), st.binary(max_size=300)))
def test_whatever_the_bytes_are(data: bytes) -> None:
    """Arbitrary and damaged bytes give a measured image or one of the two refusals, never another error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = checked(data)
        except DownloadError:
            return
    assert found.sha256 == hashlib.sha256(data).hexdigest()
