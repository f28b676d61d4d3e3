"""Does a PNG hold all its pixels? Shown without making pixels: unpacking is what takes no part of the file on trust.

A PNG's pixels are one zlib stream of rows, each a filter's number and then the row (W3C PNG, third edition, sections
7.2, 9 and 10). A stream that unpacks to exactly these rows, with filters that exist, and ends in the right checksum
always decodes: undoing the filters and giving out colours cannot fail. Both are four fifths of a decoder's work.

Only the decoder of Pillow is stood in for. Chunks, their order and their bounds remain Pillow's own, before and behind
the pixels. `zlib-ng` unpacks, the library that Pillow itself unpacks with: it accepts what that accepts.
"""

from typing import Any

from PIL import Image, ImageFile
from zlib_ng import zlib_ng

CODEC = "darkroom_png_rows"
PIECE = 128 * 1024
"""Bytes unpacked at one time: they stay in the processor's cache."""
FILTERS = bytes(range(5))
BITS = {
    mode: bits
    for bits, modes in {
        1: ("1", "P;1"),
        2: ("L;2", "P;2"),
        4: ("L;4", "P;4"),
        8: ("L", "P"),
        16: ("I;16B", "LA"),
        24: ("RGB",),
        32: ("RGBA", "LA;16B"),
        48: ("RGB;16B",),
        64: ("RGBA;16B",),
    }.items()
    for mode in modes
}
"""Bits of one pixel in the file, by Pillow's name for how they lie there (its raw mode)."""


class InDoubt(Exception):
    """The rows are not exactly what they should be; whether that can be decoded, a decoder knows."""


def has_every_row(image: Image.Image) -> bool:
    """Whether a PNG, just opened, is beyond doubt decodable; False settles nothing, and only a decoder tells.

    The image has no pixels afterwards, whatever the answer.

    Raises:
        MemoryError: there is no memory left.
    """
    if not isinstance(image, ImageFile.ImageFile) or image.info.get("interlace") or len(image.tile) != 1:
        return False
    tile = image.tile[0]
    if tile.codec_name != "zip" or tile.args not in BITS:
        return False
    image.tile = [tile._replace(codec_name=CODEC)]
    try:
        image.load()
    except MemoryError:
        raise
    except Exception:  # ours, or whatever Pillow raises on hostile bytes: its own decoder will say it better
        return False
    return True


class PngRows(ImageFile.PyDecoder):
    """Unpacks the rows as they are read, and keeps none."""

    def init(self, args: tuple[Any, ...]) -> None:
        """`args` is the raw mode alone."""
        self._bits = BITS[args[0]]
        self._unpacker = zlib_ng.decompressobj()
        self._unpacked = 0

    def decode(self, buffer: Image.DecoderInput) -> tuple[int, int]:
        """Take all of `buffer`; the answer is Pillow's: bytes taken, or -1 at the end, and an error's number or 0.

        Raises:
            InDoubt: these are not the rows.
            zlib_ng.error: this is no such stream.
        """
        assert isinstance(buffer, bytes)
        packed = buffer
        length = (self.state.xsize * self._bits + 7) // 8 + 1
        whole = length * self.state.ysize
        while packed and not self._unpacker.eof:
            # one byte more than there should be is asked for, and is already too much
            rows = self._unpacker.decompress(packed, min(PIECE, whole - self._unpacked + 1))
            if rows[-self._unpacked % length :: length].translate(None, FILTERS):
                raise InDoubt("a filter that does not exist")
            self._unpacked += len(rows)
            if self._unpacked > whole:
                raise InDoubt("more than the rows")
            packed = self._unpacker.unconsumed_tail
        if not self._unpacker.eof:
            return len(buffer), 0
        if self._unpacked != whole or self._unpacker.unused_data:
            raise InDoubt("not all rows, or something behind them")
        return -1, 0


Image.register_decoder(CODEC, PngRows)
