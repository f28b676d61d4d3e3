"""The bytes of a manifest as lines of UTF-8: gzip unpacked, UTF-16 and UTF-32 converted, the line ends of old Macs too.

Only what the bytes say without doubt is done. A file of another kind is refused by its name, with what to do.
"""

import codecs
import re
import zlib
from collections.abc import Iterator
from functools import partial
from gzip import BadGzipFile, GzipFile
from io import BufferedReader, RawIOBase
from typing import Any, BinaryIO, cast

from core.errors import ManifestError

PIECE = 64 * 1024
"""Bytes read at one time."""
UNPACKED_MAX_BYTES = 4 * 2**30
"""Of a gzip file once unpacked; more is taken for a bomb."""

_GZIP = b"\x1f\x8b"
_SPREADSHEET = "in its program save the sheet as CSV UTF-8"
_KINDS = (
    (b"PK\x03\x04", "a ZIP archive; unpack it first"),
    (b"\xd0\xcf\x11\xe0", f"an old Excel workbook (.xls); {_SPREADSHEET}"),
    (b"%PDF", "a PDF; a manifest is JSONL or CSV"),
    (b"PAR1", "a Parquet file; write it as JSON lines (in pandas to_json with orient='records', lines=True)"),
    (_GZIP, "packed with gzip twice; unpack it once"),
    (b"version https://git-lfs", "a pointer of Git LFS; fetch the file itself with `git lfs pull`"),
    (b"BZh", "packed with bzip2; unpack it, or pack it with gzip"),
    (b"\xfd7zXZ", "packed with xz; unpack it, or pack it with gzip"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd; unpack it, or pack it with gzip"),
    (b"SQLite format 3", "an SQLite database; write its rows as JSON lines"),
    (b"\x89PNG", "an image; a manifest is JSONL or CSV and names the images"),
    (b"\xff\xd8\xff", "an image; a manifest is JSONL or CSV and names the images"),
    (b"{\\rtf", "a rich text document; save it as plain text"),
    (b"<", "a web page or XML; a manifest is JSONL or CSV"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"\x04\x22\x4d\x18", "packed with lz4; unpack it, or pack it with gzip"),
    (b"ARROW1", "an Arrow file; write its rows as JSON lines"),
    (b"Obj\x01", "an Avro file; write its rows as JSON lines"),
    (b"---", "YAML; a manifest is JSONL or CSV"),
)
"""How files begin that people take for a manifest, and what to tell them."""
_SHEETS = (
    (b"[Content_Types].xml", "an Excel workbook (.xlsx)"),
    (b"xl/", "an Excel workbook (.xlsx)"),
    (b"opendocument.spreadsheet", "a LibreOffice workbook (.ods)"),
    (b"Index/", "a Numbers document (.numbers)"),
)
"""What the first names in a ZIP archive tell."""
_TAR_AT, _TAR = 257, b"ustar"
"""Where a tar archive says that it is one."""
_RECORD_SEPARATOR = b"\x1e"
"""What stands before each object in a JSON text sequence (RFC 7464), as `jq --seq` writes it."""
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x19\x1b]")
"""What no line of text holds."""
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class _Pieces(RawIOBase):
    """Pieces of bytes as a stream."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._left = pieces, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        target = memoryview(buffer)
        size = min(len(self._left), len(target))
        target[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


def decode_manifest(stream: BinaryIO) -> BufferedReader:
    """The manifest as lines of UTF-8 that end in LF or CR LF, a byte order mark of UTF-8 left where it is.

    Raises:
        ManifestError: it is a file of another kind, at once; or it is damaged, while it is read.
    """
    content = _read_pieces(stream)
    if _peek(content).startswith(_GZIP):
        content = _as_stream(_unpack(content))
    head = _peek(content)
    _refuse_other_kinds(head)
    if encoding := _find_encoding(head):
        content = _as_stream(_recode(content, encoding))
        head = _peek(content)
    elif _BINARY.search(head.partition(b"\n")[0]):
        raise ManifestError("The manifest is no text: its first line holds bytes that no text has.")
    if head.startswith(_RECORD_SEPARATOR):
        content = _as_stream(piece.replace(_RECORD_SEPARATOR, b" ") for piece in _pieces(content))
    if _ends_lines_with_cr(head):
        content = _as_stream(piece.replace(b"\r", b"\n") for piece in _pieces(content))
    return content


def _read_pieces(stream: BinaryIO) -> BufferedReader:
    return _as_stream(_pieces(stream))


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    return iter(partial(stream.read, PIECE), b"")


def _as_stream(pieces: Iterator[bytes]) -> BufferedReader:
    return BufferedReader(_Pieces(pieces), PIECE)


def _peek(stream: BufferedReader) -> bytes:
    return stream.peek(1)


def _unpack(stream: BufferedReader) -> Iterator[bytes]:
    unpacked = 0
    try:
        for piece in _pieces(cast(BinaryIO, GzipFile(fileobj=stream))):
            unpacked += len(piece)
            if unpacked > UNPACKED_MAX_BYTES:
                raise ManifestError(
                    f"The manifest unpacks to more than {UNPACKED_MAX_BYTES} bytes; hand it in in parts."
                )
            yield piece
    except (EOFError, BadGzipFile, zlib.error):
        raise ManifestError("The manifest is a gzip file that is damaged or was cut short.") from None


def _refuse_other_kinds(head: bytes) -> None:
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()[:32]
    for sign, kind in _KINDS:
        if start.startswith(sign):
            sheet = next((name for mark, name in _SHEETS if mark in head), None) if sign == b"PK\x03\x04" else None
            raise ManifestError(f"The manifest is {f'{sheet}; {_SPREADSHEET}' if sheet else kind}.")
    if head.startswith(_TAR, _TAR_AT):
        raise ManifestError("The manifest is a tar archive; unpack it first.")


def _find_encoding(head: bytes) -> str | None:
    """UTF-16 or UTF-32, by its byte order mark or by the zeros beside the first characters, which are ASCII."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    if len(head) >= 4 and head[0] and not head[1] and head[2] and not head[3]:
        return "utf-16-le"
    if len(head) >= 4 and not head[0] and head[1] and not head[2] and head[3]:
        return "utf-16-be"
    return None


def _recode(stream: BufferedReader, encoding: str) -> Iterator[bytes]:
    """UTF-8 of it; what cannot be decoded becomes bytes that are no UTF-8 either, and thus a fault of its line."""
    decoder = codecs.getincrementaldecoder(encoding)(errors="surrogatepass")
    try:
        for piece in _pieces(cast(BinaryIO, stream)):
            yield decoder.decode(piece).encode(errors="surrogatepass")
        yield decoder.decode(b"", final=True).encode(errors="surrogatepass")
    except UnicodeDecodeError:  # half a character, which only the end of a file that was cut can have
        yield b"\xff"


def _ends_lines_with_cr(head: bytes) -> bool:
    """Whether the first line ends in CR alone, as in files of old Macs."""
    cr, lf = head.find(b"\r"), head.find(b"\n")
    return cr >= 0 and lf != cr + 1 and (lf < 0 or cr < lf) and cr + 1 < len(head)
