"""Images of the page: what was stored, as it is, and small versions of it and of the inputs."""

from collections.abc import Callable
from concurrent.futures import Future
from uuid import UUID

from flask import Response, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import ServiceUnavailable

from buffering.server import ANSWER_LATER
from core.errors import DownloadError, NotFound
from core.small_images import TYPE
from intake.pages.context import context, page, secure, viewer
from intake.pages.thumbnails import TooMany
from intake.stored_images import KEPT
from models.queries.page import INPUT_IS_THERE, INPUT_OF_EDIT

MISSING_KEPT = "private, max-age=60"
MISSING = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 240"><rect width="320" height="240" fill="#8883"/>'
    b'<path d="M120 90h80v60h-80z M120 150l25-30 18 18 14-12 23 24" fill="none" stroke="#888" stroke-width="4"/></svg>'
)
"""In the place of an image that cannot be had."""


@page.get("/batches/<uuid:batch_id>/images/<int:image>")
def stored_image(batch_id: UUID, image: int) -> ResponseReturnValue:
    """A stored image, as it is."""
    images = context().images
    row = images.find(batch_id, image, viewer().sees)
    try:
        return secure(images.answer(request, row))
    except (NotFound, DownloadError):
        return _miss(404)


@page.get("/batches/<uuid:batch_id>/images/<int:image>/thumbnail")
def thumbnail(batch_id: UUID, image: int) -> ResponseReturnValue:
    """A small version of it."""
    row = context().images.find(batch_id, image, viewer().sees)
    return _answer_later(lambda: context().thumbnails.of_output(row.storage_key, row.sha256), _show_small)


@page.get("/batches/<uuid:batch_id>/edits/<int:position>/inputs/<int:number>/thumbnail")
def input_thumbnail(batch_id: UUID, position: int, number: int) -> ResponseReturnValue:
    """A small version of an input of an edit."""
    parameters = {"batch": batch_id, "position": min(position, 2**31 - 1), "number": min(number, 2**31 - 1)}
    engine = context().engine
    with engine.begin() as connection:
        client = connection.exec_driver_sql(INPUT_IS_THERE, {**parameters, "client": viewer().sees}).scalar()
    if client is None:
        raise NotFound("There is no such input.")

    def find_url() -> str | None:
        with engine.begin() as connection:
            return connection.exec_driver_sql(INPUT_OF_EDIT, parameters).scalar()

    return _answer_later(lambda: context().thumbnails.of_input(find_url, client), _show_small)


def _answer_later(
    begin: Callable[[], "Future[bytes | None]"], show: Callable[[bytes | None], Response]
) -> ResponseReturnValue:
    """Once it is there; meanwhile no thread of the API waits."""
    try:
        future = begin()
    except TooMany:
        raise ServiceUnavailable("Too many images are asked for at one time; come again.", retry_after=5) from None
    later = request.environ.get(ANSWER_LATER)
    answer: ResponseReturnValue = later(future, show) if later else show(future.result())
    return answer


def _show_small(made: bytes | None) -> Response:
    return _keep(Response(made, mimetype=TYPE)) if made else _miss(200)


def _keep(response: Response) -> Response:
    response.headers["Cache-Control"] = KEPT
    return secure(response)


def _miss(status: int) -> Response:
    response = Response(MISSING, status, mimetype="image/svg+xml")
    response.headers["Cache-Control"] = MISSING_KEPT
    return secure(response)
