"""Images of the page: what was stored, as it is, and small versions of it and of the inputs."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any
from uuid import UUID

from flask import Response, request
from flask.typing import ResponseReturnValue
from sqlalchemy import Row
from werkzeug.exceptions import ServiceUnavailable

from buffering.server import ANSWER_LATER
from core.errors import NotFound
from core.small_images import TYPE
from intake.pages.context import context, page, secure, viewer
from intake.pages.thumbnails import TooMany
from models.queries.page import INPUT_OF_EDIT, STORED_IMAGE

KEPT = "private, max-age=604800, immutable"
"""By the browser: the bytes of a stored image never change."""
MISSING_KEPT = "private, max-age=60"
MISSING = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 240"><rect width="320" height="240" fill="#8883"/>'
    b'<path d="M120 90h80v60h-80z M120 150l25-30 18 18 14-12 23 24" fill="none" stroke="#888" stroke-width="4"/></svg>'
)
"""In the place of an image that cannot be had."""
Image = Row[*tuple[Any, ...]]


@page.get("/batches/<uuid:batch_id>/images/<int:image>")
def stored_image(batch_id: UUID, image: int) -> ResponseReturnValue:
    """A stored image, as it is."""
    row = _find_image(batch_id, image)
    if request.if_none_match.contains(row.sha256):
        return _keep(Response(status=304), row.sha256)
    return _answer_later(
        lambda: context().thumbnails.read(row.storage_key, row.stored_bytes),
        lambda content: _keep(Response(content, mimetype=row.stored_type), row.sha256) if content else _miss(404),
    )


@page.get("/batches/<uuid:batch_id>/images/<int:image>/thumbnail")
def thumbnail(batch_id: UUID, image: int) -> ResponseReturnValue:
    """A small version of it."""
    row = _find_image(batch_id, image)
    return _answer_later(lambda: context().thumbnails.of_output(row.storage_key, row.sha256), _show_small)


@page.get("/batches/<uuid:batch_id>/edits/<int:position>/inputs/<int:number>/thumbnail")
def input_thumbnail(batch_id: UUID, position: int, number: int) -> ResponseReturnValue:
    """A small version of an input of an edit."""
    parameters = {"batch": batch_id, "position": min(position, 2**31 - 1), "number": min(number, 2**31 - 1)}
    with context().engine.connect() as connection:
        url = connection.exec_driver_sql(INPUT_OF_EDIT, {**parameters, "client": viewer().sees}).scalar()
    if url is None:
        raise NotFound("There is no such input.")
    return _answer_later(lambda: context().thumbnails.of_input(url), _show_small)


def _find_image(batch_id: UUID, image: int) -> Image:
    parameters = {"image": min(image, 2**63 - 1), "batch": batch_id, "client": viewer().sees}
    with context().engine.connect() as connection:
        row = connection.exec_driver_sql(STORED_IMAGE, parameters).first()
    if row is None:
        raise NotFound("There is no such image.")
    return row


def _answer_later(
    begin: Callable[[], "Future[bytes | None]"], show: Callable[[bytes | None], Response]
) -> ResponseReturnValue:
    """Once it is there; meanwhile no thread of the API waits."""
    try:
        future = begin()
    except TooMany:
        raise ServiceUnavailable("Too many images are parameters for at one time; come again.", retry_after=5) from None
    later = request.environ.get(ANSWER_LATER)
    answer: ResponseReturnValue = later(future, show) if later else show(future.result())
    return answer


def _show_small(made: bytes | None) -> Response:
    return _keep(Response(made, mimetype=TYPE)) if made else _miss(200)


def _keep(response: Response, digest: str | None = None) -> Response:
    if digest:
        response.set_etag(digest)
    response.headers["Cache-Control"] = KEPT
    return secure(response)


def _miss(status: int) -> Response:
    response = Response(MISSING, status, mimetype="image/svg+xml")
    response.headers["Cache-Control"] = MISSING_KEPT
    return secure(response)
