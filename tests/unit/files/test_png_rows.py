"""The quick check of a PNG's pixels never accepts what a decoder refuses, and turns nothing good away."""

import io
import random
import re
import struct
import tracemalloc
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from PIL import Image
from zlib_ng import zlib_ng

from core import image_files, png_rows
from core.errors import DownloadError
from core.image_files import check_image
from core.png_rows import has_every_row

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
KINDS = [
    *((depth, 0) for depth in (1, 2, 4, 8, 16)),
    *((depth, 3) for depth in (1, 2, 4, 8)),
    *((depth, colour) for colour in (2, 4, 6) for depth in (8, 16)),
]
"""Every pair of depth and colour type that the standard knows."""
MUTANTS = 3000


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def row_length(width: int, kind: tuple[int, int]) -> int:
    return (width * CHANNELS[kind[1]] * kind[0] + 7) // 8 + 1


def rows(dice: random.Random, size: tuple[int, int], kind: tuple[int, int]) -> bytes:
    """Pixels of few values, so that they compress, each row under one of the five filters."""
    body = row_length(size[0], kind) - 1
    return b"".join(bytes([dice.randrange(5), *dice.choices((0, 7, 200), k=body)]) for _ in range(size[1]))


def png(kind: tuple[int, int], size: tuple[int, int], stream: bytes, *, pieces: int = 1, behind: bytes = b"") -> bytes:
    """A PNG in which every chunk's checksum is right, whatever the stream is."""
    step = max(1, -(-len(stream) // pieces))
    parts = [stream[at : at + step] for at in range(0, len(stream), step)] or [b""]
    palette = chunk(b"PLTE", bytes(range(9))) if kind[1] == 3 else b""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, *kind, 0, 0, 0))
    data = b"".join(chunk(b"IDAT", part) for part in parts)
    return b"\x89PNG\r\n\x1a\n" + head + palette + data + behind + chunk(b"IEND", b"")


def saved(format_: str, mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    Image.frombytes("RGB", (37, 23), random.Random(3).randbytes(37 * 23 * 3)).convert(mode).save(
        file, format_, **options
    )
    return file.getvalue()


def settled(data: bytes) -> bool:
    """Whether the quick check alone accepts it."""
    return has_every_row(Image.open(io.BytesIO(data)))


def check(data: bytes) -> str:
    """What the check says of a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = check_image(io.BytesIO(data), file_size=None, width=None, height=None)
        except DownloadError as error:
            return re.sub("0x[0-9a-f]+", "0x", f"{error.type}: {error.message}")  # Pillow names objects by address
    return str(found)


def check_by_decoder(data: bytes) -> str:
    """What it says where Pillow decodes every file."""
    quick = image_files.has_every_row
    image_files.has_every_row = lambda _: False  # thousands of times: a mock would take longer than the check
    try:
        return check(data)
    finally:
        image_files.has_every_row = quick


@pytest.mark.parametrize("pieces", [1, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_png(kind: tuple[int, int], pieces: int) -> None:
    """Whole rows are enough for every depth and colour, in one IDAT or many; no decoder is asked."""
    dice = random.Random(1)
    for size in ((1, 1), (7, 5), (64, 3), (3, 300)):
        data = png(kind, size, zlib.compress(rows(dice, size, kind)), pieces=pieces)
        assert settled(data), size
        assert check(data) == check_by_decoder(data)


@pytest.mark.parametrize("kind", KINDS)
def test_one_byte_decides(kind: tuple[int, int]) -> None:
    """One byte too few or too many, or one filter that does not exist, is not settled by the quick check."""
    size = (9, 8)
    pixels = rows(random.Random(2), size, kind)
    filters = range(0, len(pixels), row_length(size[0], kind))
    for wrong in (pixels[:-1], pixels + b"\0", *(pixels[:at] + b"\5" + pixels[at + 1 :] for at in filters)):
        data = png(kind, size, zlib.compress(wrong))
        assert not settled(data)
        assert check(data) == check_by_decoder(data)


def test_decoder_is_spared() -> None:
    """A large PNG is judged without its pixels ever being made: in a few pieces of memory."""
    size = (3000, 2000)
    data = png((8, 2), size, zlib.compress(rows(random.Random(1), (size[0], 1), (8, 2)) * size[1], 1))
    made: list[Any] = []
    unpacker = zlib_ng.decompressobj

    class Unpacker:
        def __init__(self) -> None:
            self.inner = unpacker()

        def decompress(self, packed: bytes, most: int) -> bytes:
            made.append(most)
            return self.inner.decompress(packed, most)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    tracemalloc.start()
    with mock.patch.object(png_rows.zlib_ng, "decompressobj", Unpacker):
        assert settled(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert max(made) == png_rows.PIECE
    assert peak < len(data) + 10 * png_rows.PIECE


def test_stream_that_unpacks_without_end() -> None:
    """A gigabyte behind a small image is not unpacked: one byte too many ends it."""
    bomb = zlib.compressobj(9)
    stream = bomb.compress(rows(random.Random(1), (5, 5), (8, 2)))
    stream += b"".join(bomb.compress(bytes(2**20)) for _ in range(64)) + bomb.flush()

    tracemalloc.start()
    data = png((8, 2), (5, 5), stream)
    assert not settled(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 2**20


Spoil = Callable[[random.Random, bytearray, bytes], bytes]
"""(dice, the stream, the rows in it) -> another stream."""


def flip(dice: random.Random, stream: bytearray, _: bytes) -> bytes:
    for _ in range(dice.choice((1, 1, 1, 5))):
        stream[dice.randrange(len(stream))] ^= 1 << dice.randrange(8)
    return bytes(stream)


def change_head(dice: random.Random, stream: bytearray, _: bytes) -> bytes:
    """The zlib header, or the description of the codes that follow it."""
    stream[dice.randrange(min(len(stream), dice.choice((2, 60))))] = dice.randrange(256)
    return bytes(stream)


def change_filter(dice: random.Random, _: bytearray, pixels: bytes) -> bytes:
    at = dice.randrange(len(pixels))
    return zlib.compress(pixels[:at] + bytes([dice.randrange(256)]) + pixels[at + 1 :], dice.randrange(10))


SPOILS: dict[str, Spoil] = {
    "nothing": lambda dice, stream, pixels: bytes(stream),
    "flip": flip,
    "head": change_head,
    "filter": change_filter,
    "cut": lambda dice, stream, pixels: bytes(stream[: dice.randrange(len(stream))]),
    "cut in the checksum": lambda dice, stream, pixels: bytes(stream[: -dice.randint(1, 6)]),
    "checksum": lambda dice, stream, pixels: bytes(stream[:-1]) + bytes([stream[-1] ^ 255]),
    "short": lambda dice, stream, pixels: zlib.compress(pixels[: -dice.randint(1, 40)], dice.randrange(10)),
    "long": lambda dice, stream, pixels: zlib.compress(pixels + bytes(dice.randint(1, 40))),
    "behind": lambda dice, stream, pixels: bytes(stream) + dice.randbytes(dice.randint(1, 40)),
    "raw": lambda dice, stream, pixels: bytes(stream[2:-4]),
    "stored": lambda dice, stream, pixels: zlib.compress(pixels, 0),
    "noise": lambda dice, stream, pixels: dice.randbytes(dice.randint(0, 99)),
}


WHOLE = ("nothing", "stored")
"""Those that leave every pixel in its place."""
LENIENT = ("long", "behind")
"""Those that a decoder does not look at."""


@pytest.mark.parametrize("name", SPOILS)
def test_spoilt_streams(name: str) -> None:
    """Thousands of broken streams under right chunk checksums: the same verdict, word for word, as a decoder's."""
    dice, verdicts = random.Random(1), Counter[bool]()
    for _ in range(MUTANTS // len(SPOILS)):
        kind, size = dice.choice(KINDS), (dice.randint(1, 40), dice.randint(1, 40))
        pixels = rows(dice, size, kind)
        stream = SPOILS[name](dice, bytearray(zlib.compress(pixels, dice.choice((1, 6, 9)))), pixels)
        data = png(kind, size, stream, pieces=dice.choice((1, 3)))
        verdict = check(data)
        assert verdict == check_by_decoder(data), data.hex()
        assert not (settled(data) and name == "long")
        verdicts[verdict.startswith("CheckedImage")] += 1
    assert bool(verdicts[False]) is (name not in WHOLE + LENIENT)


FILES = {
    "PNG": saved("PNG"),
    "PNG with a palette": saved("PNG", "P"),
    "PNG in 16 bits": saved("PNG", "I;16"),
    "JPEG": saved("JPEG"),
    "WEBP": saved("WEBP", lossless=True),
    "GIF": saved("GIF"),
    "moving PNG": saved("PNG", save_all=True, append_images=[Image.new("RGB", (37, 23), c) for c in ("red", "blue")]),
    "text behind the pixels": png(
        (8, 2),
        (9, 9),
        zlib.compress(rows(random.Random(1), (9, 9), (8, 2))),
        behind=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(99))) + chunk(b"tEXt", b"b\0c"),
    ),
}


def mend(data: bytes) -> bytes:
    """The same PNG with right checksums, so that what is wrong lies deeper."""
    at, parts = 8, [data[:8]]
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        parts.append(chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    return b"".join(parts)


def mutate(dice: random.Random, data: bytes) -> bytes:
    """One of what happens to files: changed, cut, something lost, repeated, put in or behind."""
    array, at = bytearray(data), dice.randrange(len(data))
    match dice.randrange(7):
        case 0:
            array[at] ^= 1 << dice.randrange(8)
        case 1:
            array[dice.randrange(min(60, len(data)))] = dice.randrange(256)
        case 2:
            del array[at:]
        case 3:
            del array[at : at + dice.randint(1, 30)]
        case 4:
            array[at:at] = array[at : at + 30]
        case 5:
            array[at:at] = dice.randbytes(dice.randint(1, 30))
        case 6:
            array += dice.randbytes(dice.randint(1, 300))
    changed = bytes(array)
    return mend(changed) if changed.startswith(b"\x89PNG") and dice.random() < 0.5 else changed


@pytest.mark.parametrize("name", FILES)
def test_mutated_files(name: str) -> None:
    """Thousands of damaged files of every accepted kind: the same verdict, word for word, as a decoder's."""
    dice, verdicts = random.Random(name), Counter[str]()
    for _ in range(MUTANTS // len(FILES)):
        data = mutate(dice, FILES[name])
        verdict = check(data)
        assert verdict == check_by_decoder(data), data.hex()
        verdicts[verdict.partition(":")[0].partition("(")[0]] += 1
    assert verdicts["undecodable"] > MUTANTS / len(FILES) / 10


def deflated(lengths: dict[int, int], distances: list[int]) -> bytes:
    """A zlib stream of one block that holds `ABA`, in codes of these lengths (RFC 1951, 3.2.7)."""
    bits: list[int] = []

    def put(value: int, count: int) -> None:
        bits.extend(value >> place & 1 for place in range(count))

    def put_code(value: int, count: int) -> None:
        bits.extend(value >> place & 1 for place in reversed(range(count)))

    literals = [lengths.get(symbol, 0) for symbol in range(257)]
    put(0b101, 3)
    put(0, 5)
    put(len(distances) - 1, 5)
    put(15, 4)
    for symbol in (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15):
        put(4 if symbol < 16 else 0, 3)
    for length in (*literals, *distances):
        put_code(length, 4)
    codes, code = {}, 0
    for length in range(1, 16):
        for symbol in sorted(symbol for symbol, its in lengths.items() if its == length):
            codes[symbol], code = code, code + 1
        code <<= 1
    for symbol in (0, 0, 0, 256):
        put_code(codes[symbol], lengths[symbol])
    bits.extend([0] * (-len(bits) % 8))
    body = bytes(sum(bits[at + place] << place for place in range(8)) for at in range(0, len(bits), 8))
    return b"\x78\x9c" + body + struct.pack(">I", zlib.adler32(b"\0\0\0"))


@pytest.mark.parametrize(
    ("lengths", "distances", "good"),
    [
        ({0: 1, 1: 2, 256: 2}, [1], True),
        ({0: 2, 1: 2, 256: 2}, [1], False),
        ({0: 1, 1: 2, 256: 2}, [2, 2], False),
        ({0: 1, 1: 2, 256: 2}, [1, 1, 1], False),
    ],
    ids=["whole codes", "literals left over", "distances left over", "too many distances"],
)
def test_codes_that_some_unpackers_take(lengths: dict[int, int], distances: list[int], good: bool) -> None:
    """Codes that no standard unpacker takes, over the right pixels with the right checksum: refused as ever."""
    data = png((8, 0), (2, 1), deflated(lengths, distances))

    assert settled(data) is good
    assert check(data).startswith("CheckedImage") is good
    assert check(data) == check_by_decoder(data)


def test_window_that_no_unpacker_has() -> None:
    """A header that asks for 64 KiB of window is refused, as ever."""
    stream = zlib.compress(rows(random.Random(1), (9, 9), (8, 2)))
    data = png((8, 2), (9, 9), b"\x88\x1c" + stream[2:])

    assert not settled(data)
    assert check(data).startswith("undecodable")


def test_no_memory_is_not_the_images_fault() -> None:
    """Running out of memory is told as that, not as a bad file."""
    with mock.patch.object(png_rows.zlib_ng, "decompressobj", side_effect=MemoryError), pytest.raises(MemoryError):
        check(FILES["PNG"])
