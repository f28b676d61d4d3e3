"""Stored images over HTTP: read from the store piece by piece, whole or a part, and never changed once stored."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cached_property
from threading import BoundedSemaphore
from typing import Any
from uuid import UUID

from flask import Request, Response
from sqlalchemy import Engine, Row
from werkzeug.exceptions import RequestedRangeNotSatisfiable, ServiceUnavailable

from core.errors import NotFound, Pruned
from models.queries.images import STORED_IMAGE
from storage.store import Storage

READERS = 4
"""Images read at one time; each holds one of the API's threads while the store gives the next piece."""
KEPT = "private, max-age=604800, immutable"
"""By the browser: the bytes of a stored image never change."""
Image = Row[*tuple[Any, ...]]


class ImageReader:
    """Answers with stored images. Safe for threads."""

    def __init__(self, engine: Engine, storage_url: str) -> None:
        self._engine, self._url = engine, storage_url
        self._places = BoundedSemaphore(READERS)

    @cached_property
    def storage(self) -> Storage:
        """The store, opened when it is first needed."""
        return Storage(self._url)

    def find(self, batch_id: UUID, image: int, client: str | None) -> Image:
        """The row of a stored image of a batch; of any client's (None), or of this one's only.

        Raises:
            NotFound: there is none.
            Pruned: it was deleted, because its time was over.
        """
        parameters = {"image": min(image, 2**63 - 1), "batch": batch_id, "client": client}
        with self._engine.begin() as connection:
            row = connection.exec_driver_sql(STORED_IMAGE, parameters).first()
        if row is None:
            raise NotFound("There is no such image.")
        if row.deleted_at is not None:
            raise Pruned("The image was deleted: its time was over.")
        return row

    def answer(self, request: Request, image: Image) -> Response:
        """What the request asks for: the image, a part of it, or that it is still the same.

        Raises:
            NotFound: it does not lie in the store as it was stored.
            DownloadError: the store does not give it now.
            RequestedRangeNotSatisfiable, ServiceUnavailable: as HTTP has them.
        """
        if request.if_none_match.contains(image.sha256):
            return _describe(Response(status=304), image)
        span = _wanted_range(request, image)
        start, end = span or (0, image.stored_bytes)
        head = request.method == "HEAD"
        response = Response(() if head else self._read(image, start, end), mimetype=image.stored_type)
        if head:
            response.content_length = end - start
        if span:
            response.status_code = 206
            response.content_range.set(start, end, image.stored_bytes)
        return _describe(response, image)

    def _read(self, image: Image, start: int, end: int) -> Iterator[bytes]:
        if not self._places.acquire(blocking=False):
            raise ServiceUnavailable("Too many images are being read at one time; come again.", retry_after=1)
        stack = ExitStack()
        stack.callback(self._places.release)
        try:
            stored = stack.enter_context(self.storage.open_range(image.storage_key, start, end))
            if stored.size != image.stored_bytes:
                raise NotFound("The image does not lie in the store as it was stored.")
        except BaseException:
            stack.close()
            raise
        return _Pieces(stored.pieces, stack.close)


class _Pieces(Iterator[bytes]):
    """The pieces of an answer; its end, however it ends, gives the place back."""

    def __init__(self, pieces: Iterator[bytes], close: Callable[[], None]) -> None:
        self._pieces, self.close = iter(pieces), close

    def __next__(self) -> bytes:
        return next(self._pieces)


def _wanted_range(request: Request, image: Image) -> tuple[int, int] | None:
    """The one range of bytes that is asked for, its end exclusive; None: the whole, as also for several ranges."""
    given, condition = request.range, request.if_range
    if given is None or given.units != "bytes" or len(given.ranges) != 1:
        return None
    if condition.date is not None or (condition.etag is not None and condition.etag != image.sha256):
        return None
    if (span := given.range_for_length(image.stored_bytes)) is None:
        raise RequestedRangeNotSatisfiable(image.stored_bytes)
    return span


def _describe(response: Response, image: Image) -> Response:
    response.set_etag(image.sha256)
    response.headers["Accept-Ranges"] = "bytes"
    response.headers["Cache-Control"] = KEPT
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
