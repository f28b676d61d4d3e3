"""Small versions of images: upright, with their transparency, and one kind of error whatever the bytes are."""

import io
import random
import zlib

import pytest
from PIL import Image

from core.image_files import FORMATS
from core.small_images import encode_small, shrink


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "I;16", "1"])
def test_images_of_any_mode(mode: str) -> None:
    """At most as large as asked, never larger than it is, in its proportions."""
    kind = "JPEG" if mode == "CMYK" else "PNG"
    small = shrink(io.BytesIO(encoded(Image.new(mode, (1000, 500)), kind)), 320)
    assert (small.size, small.mode) == ((320, 160), "RGBA" if mode in ("RGBA", "LA") else "RGB")
    assert shrink(io.BytesIO(encoded(Image.new(mode, (30, 20)), kind)), 320).size == (30, 20)
    with Image.open(io.BytesIO(encode_small(small))) as read:
        assert (read.format, read.size) == ("WEBP", (320, 160))


def test_a_phone_held_upright() -> None:
    """The camera notes how it was held; a browser shows the original upright, so the small one is, too."""
    turned = Image.Exif()
    turned[0x112] = 6
    assert shrink(io.BytesIO(encoded(Image.new("RGB", (1000, 500)), "JPEG", exif=turned)), 100).size == (50, 100)


def bomb() -> bytes:
    """A PNG that says it has 2 500 million pixels."""
    head = b"IHDR" + (50_000).to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4) + head + zlib.crc32(head).to_bytes(4)


def test_whatever_the_bytes_are() -> None:
    """Cut, flipped, empty, a bomb: a ValueError, or an image, and nothing else; Pillow alone raises a dozen kinds."""
    chance, refused = random.Random(1), 0
    gradient = Image.radial_gradient("L").resize((64, 64)).convert("RGB")
    originals = [encoded(gradient, kind) for kind in FORMATS] + [b"", b"<svg/>", bomb()]
    for _ in range(1500):
        data = bytearray(chance.choice(originals))
        for _ in range(chance.choice((0, 1, 8))):
            if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
        data = data[: chance.choice((len(data), chance.randrange(len(data) + 1)))]
        try:
            encode_small(shrink(io.BytesIO(bytes(data)), 32))
        except ValueError:
            refused += 1
    assert 300 < refused < 1400
