"""Images for load tests: a flat colour of the right size, each with its own bytes, in a millisecond or two."""

import hashlib
import struct
import zlib
from functools import lru_cache

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@lru_cache(maxsize=16)
def _grey_rows(width: int, height: int) -> bytes:
    """A palette image that points at colour 0 everywhere; one bit a pixel, so it is cached per size."""
    row = b"\x00" * (1 + (width + 7) // 8)
    return zlib.compress(row * height, 1)


def flat(width: int, height: int, text: str) -> bytes:
    """A PNG that carries `text` in a text chunk, in a colour that follows from it."""
    colour = hashlib.sha256(text.encode()).digest()[:3]
    header = struct.pack(">IIBBBBB", width, height, 1, 3, 0, 0, 0)
    return b"".join(
        (
            _SIGNATURE,
            _chunk(b"IHDR", header),
            _chunk(b"PLTE", colour),
            _chunk(b"tEXt", b"Comment\x00" + text.encode("latin-1", "replace")),
            _chunk(b"IDAT", _grey_rows(width, height)),
            _chunk(b"IEND", b""),
        )
    )
