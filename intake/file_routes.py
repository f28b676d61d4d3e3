"""The routes under `/v1/files`: inputs that a caller has in memory, or on a disk of its own."""

import re
from typing import IO

from flask import Blueprint, Response, g, request
from werkzeug.exceptions import RequestEntityTooLarge, ServiceUnavailable, UnsupportedMediaType

from core.errors import DownloadError, NotFound, SettingsError, UnfitInput
from core.input_images import INPUT_MAX_BYTES
from intake.api import answer_with, authenticate, get_context
from intake.files import delete_file, keep_file, reference_of, show_file
from intake.openapi import BYTES, Operation, describe_route
from intake.problems import RequestFaults
from intake.responses import InputFile, NewInputFile
from models import input_files
from models.seedream import Fault
from storage.store import Storage

files = Blueprint("files", __name__, url_prefix="/v1/files")
files.before_request(authenticate)

_SHA256 = re.compile(r"[0-9a-f]{64}")
AGAIN_IN = 10
"""Seconds after which a file may be sent again that the store did not take."""


@files.post("")
@describe_route(Operation({201: (NewInputFile,), 200: (NewInputFile,)}, body={BYTES: "any bytes"}))
def hand_in_file() -> Response:
    """Hand in a file that edits may name as an input.

    The body is the file, as it is; its type is told by its bytes. The same content again answers the same reference and
    is kept from then on as long as a new one. A batch that names it keeps it as well.
    """
    context = get_context()
    try:
        kept = keep_file(context.engine, _storage(), g.client, _body(), context.settings.keep_input_files)
    except UnfitInput as error:
        raise RequestFaults([Fault(None, str(error))]) from None
    except DownloadError as error:
        raise _store_away(error) from None
    described = _describe(kept.file).model_dump()
    answer = NewInputFile(**described, existing=kept.existing, warnings=list(kept.warnings))
    response = answer_with(answer, 200 if kept.existing else 201)
    response.headers["Location"] = f"/v1/files/{kept.file.sha256}"
    return response


@files.get("/<sha256>")
@describe_route(Operation({200: (InputFile,)}))
def get_file(sha256: str) -> Response:
    """Show what is known of a file."""
    return answer_with(_describe(show_file(get_context().engine, g.client, _check_hash(sha256))))


@files.delete("/<sha256>")
@describe_route(Operation({200: (InputFile,)}, conflicts=True))
def remove_file(sha256: str) -> Response:
    """Delete a file; not while a batch that is not finished names it."""
    try:
        return answer_with(_describe(delete_file(get_context().engine, _storage(), g.client, _check_hash(sha256))))
    except DownloadError as error:
        raise _store_away(error) from None


def _body() -> IO[bytes]:
    """The file, whole, which the buffering server has gathered."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("The body must not be compressed.")
    most = min(INPUT_MAX_BYTES, get_context().settings.intake_max_bytes)
    if (request.content_length or 0) > most:
        raise RequestEntityTooLarge(f"A file may have at most {most} bytes.")
    body: IO[bytes] = request.environ["wsgi.input"]
    return body


def _storage() -> Storage:
    try:
        return get_context().images.storage
    except SettingsError as error:
        raise ServiceUnavailable(f"The store cannot be opened: {error}", retry_after=AGAIN_IN) from None


def _store_away(error: DownloadError) -> ServiceUnavailable:
    return ServiceUnavailable(f"The store does not do it now ({error.type}); come again.", retry_after=AGAIN_IN)


def _check_hash(sha256: str) -> str:
    if not _SHA256.fullmatch(sha256):
        raise NotFound("There is no such file; it is named by its SHA-256, 64 hexadecimal digits.")
    return sha256


def _describe(file: input_files.InputFile) -> InputFile:
    measured = {name: getattr(file, name) for name in ("sha256", "bytes", "content_type", "width", "height")}
    return InputFile(reference=reference_of(file), **measured, expires_at=file.expires_at)
