"""The body of a request, in its two forms, as what `create` and `append` take: read as strictly as any manifest.

`application/json`: one object, held in memory and therefore bounded; `application/x-ndjson`: one edit a line, a
stream of any length. The client is never taken from the body.
"""

from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from io import BufferedReader, RawIOBase
from typing import Any, BinaryIO, NamedTuple, cast

from flask import Request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from core.errors import ManifestError
from intake.batches import BatchHeader
from intake.manifest import Entry, read_jsonl, read_object, read_objects
from intake.problems import RequestFaults, validate
from models.seedream import Fault

JSON, NDJSON = "application/json", "application/x-ndjson"
JSON_MAX = 8 * 2**20
"""Bytes of a body in the first form; as Python objects it may take twenty times that."""
HEADER_MAX = 64 * 1024
"""Bytes of a batch's header, which is the first line in the second form."""
SMALL_MAX = 64 * 1024
"""Bytes of any other body."""

Entries = Callable[[int], Iterator[Entry]]
"""The edits, once it is known at which position the first of them will stand."""


class NewBatch(NamedTuple):
    """A batch that somebody hands in."""

    header: BatchHeader
    entries: Entries


def read_batch(request: Request, *, client: str, key: str | None) -> NewBatch:
    """The batch of a request.

    Raises:
        HTTPException: the body is none that can be read.
        RequestFaults: the header is wrong.
    """
    if _media_type(request) == JSON:
        fields = _document(request, JSON_MAX)
        entries = _listed(fields)
    else:
        stream = _stream(request)
        fields = _object(stream.readline(HEADER_MAX + 1), "The first line, the batch's header,", HEADER_MAX)
        entries = _lined(cast(BinaryIO, _AfterHeader(stream)))
    return NewBatch(_header(fields, client, key), entries)


def read_edits(request: Request) -> Entries:
    """The edits of a request that adds them to a batch.

    Raises:
        HTTPException: the body is none that can be read.
        RequestFaults: the document holds something else.
    """
    if _media_type(request) == NDJSON:
        return _lined(_stream(request))
    fields = _document(request, JSON_MAX)
    entries = _listed(fields)
    if fields:
        raise RequestFaults(Fault(name, "is not a known field") for name in fields)
    return entries


def read_fields(request: Request) -> dict[str, Any]:
    """A small JSON object; none at all where there is no body.

    Raises:
        HTTPException: the body is none that can be read.
    """
    if not request.content_length:
        return {}
    if _media_type(request) != JSON:
        raise UnsupportedMediaType(f"The body must be {JSON}.")
    return _document(request, SMALL_MAX)


def _media_type(request: Request) -> str:
    if request.mimetype not in (JSON, NDJSON):
        raise UnsupportedMediaType(f"The body must be {JSON} or {NDJSON}.")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("The body must not be compressed.")
    return request.mimetype


def _stream(request: Request) -> BinaryIO:
    return BufferedReader(cast(RawIOBase, request.stream))


def _document(request: Request, most: int) -> dict[str, Any]:
    if (request.content_length or 0) > most:
        raise RequestEntityTooLarge(f"As {JSON} at most {most} bytes are read; edits may be sent as {NDJSON}.")
    return _object(request.stream.read(), "The body", most)


def _object(raw: bytes, what: str, most: int) -> dict[str, Any]:
    if len(raw) > most:
        raise RequestEntityTooLarge(f"{what} may have at most {most} bytes.")
    try:
        return read_object(raw.removeprefix(BOM_UTF8))  # Windows programs write one, and it means nothing
    except ManifestError as error:
        raise BadRequest(f"{what} {error}.") from None


def _listed(fields: dict[str, Any]) -> Entries:
    edits = fields.pop("edits", None)
    if not isinstance(edits, list):
        raise RequestFaults([Fault("edits", "is missing" if edits is None else "must be a list of edits")])
    return lambda first: read_objects(edits, first=first)


def _lined(stream: BinaryIO) -> Entries:
    return lambda first: read_jsonl(stream, first=first)


class _AfterHeader:
    """What follows the header, with a blank line in its place, so that the edits keep their line numbers."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._begun = stream, False

    def readline(self, size: int) -> bytes:
        if self._begun:
            return self._stream.readline(size)
        self._begun = True
        return b"\n"


def _header(fields: dict[str, Any], client: str, key: str | None) -> BatchHeader:
    if "client" in fields:
        raise RequestFaults([Fault("client", "is told by the API key, never by the body")])
    if key is not None and fields.setdefault("idempotency_key", key) != key:
        raise RequestFaults([Fault("idempotency_key", "is another one than in the header Idempotency-Key")])
    return validate(BatchHeader, {**fields, "client": client})
