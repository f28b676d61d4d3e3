"""JSON that is not one object a line: one list of edits, or objects over several lines, as indenting programs write.

Read value by value, so that memory holds one edit and a piece of the text, whatever the size of the whole.
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import BinaryIO

from core.errors import ManifestError
from intake.manifest import LINE_MAX_BYTES, LineFault, Record, fault_of, read_object, stop_reading

PIECE = 64 * 1024
"""Bytes read at one time, at least."""
_MARK = re.compile(r"[^ \t\r\n]")
_SCANNER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)
"""Finds where a value ends; whether it is one that we take, `read_object` says."""


def read_json_document(stream: BinaryIO) -> Iterator[Record | LineFault]:
    """The edits of a JSON list, or of objects one after the other; a `line` is that on which the edit begins.

    Raises:
        ManifestFaults: what follows cannot be read, so that nothing of the manifest may be taken.
    """
    text = _Text(stream)
    listed = text.next_mark() == "["
    if listed:
        text.skip(1)
        if text.next_mark() == "]":
            text.skip(1)
            _expect_end(text)
            return
    while True:
        if not text.next_mark():
            if listed:
                stop_reading(text.line, "the list of edits does not end")
            return
        yield _read_edit(text)
        if listed and not _has_next(text):
            _expect_end(text)
            return


def _has_next(text: "_Text") -> bool:
    mark = text.next_mark()
    if mark not in ("]", ","):
        stop_reading(text.line, "is not JSON: a comma or the end of the list is missing")
    text.skip(1)
    return mark == ","


def _expect_end(text: "_Text") -> None:
    if text.next_mark():
        stop_reading(text.line, "is not JSON: something stands behind the end of the list")


def _read_edit(text: "_Text") -> Record | LineFault:
    line = text.line
    raw = text.take_value()
    try:
        return Record(line, read_object(raw.encode(errors="surrogateescape")))
    except ManifestError as error:
        return fault_of(line, error)


class _Text:
    """The text of a stream from the next value on; bytes that are no UTF-8 stay in it as half surrogates."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
        self._text, self._at, self._ended = "", 0, False
        self.line = 1

    def next_mark(self) -> str:
        """The next character that is no blank; nothing at the end."""
        while (found := _MARK.search(self._text, self._at)) is None:
            self.skip(len(self._text) - self._at)
            if not self._read_more():
                return ""
        self.skip(found.start() - self._at)
        return found[0]

    def skip(self, characters: int) -> None:
        """Pass over so many."""
        self.line += self._text.count("\n", self._at, self._at + characters)
        self._at += characters

    def take_value(self) -> str:
        """The text of the value that begins here.

        Raises:
            ManifestFaults: it does not end, is too long, or is no JSON.
        """
        while True:
            try:
                _, end = _SCANNER.raw_decode(self._text, self._at)
            except RecursionError:
                stop_reading(self.line, "is nested too deeply")
            except json.JSONDecodeError as error:
                if len(self._text) - self._at > LINE_MAX_BYTES:
                    stop_reading(self.line, f"is longer than {LINE_MAX_BYTES} bytes")
                line = self.line + self._text.count("\n", self._at, error.pos)
                if not self._read_more():
                    stop_reading(line, f"is not JSON ({error.msg})")
                continue
            if end < len(self._text) or not self._read_more():
                value = self._text[self._at : end]
                self.skip(end - self._at)
                return value

    def _read_more(self) -> bool:
        """At least as much again, so that a long value is not scanned often; false at the end."""
        if self._ended:
            return False
        rest = self._text[self._at :]
        piece = self._stream.read(max(PIECE, len(rest)))
        self._ended = not piece
        self._text, self._at = rest + self._decoder.decode(piece, final=self._ended), 0
        return len(self._text) > len(rest) or not self._ended
