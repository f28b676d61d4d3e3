"""Whatever goes wrong, as a problem of RFC 9457: what the caller should know, and never more.

No traceback and no SQL; what we did not expect is a 500 whose id stands in our log.
"""

import traceback
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Literal, TypeVar
from uuid import uuid4

import structlog
from flask import Flask, Response
from pydantic import BaseModel, Field, ValidationError
from werkzeug.exceptions import HTTPException

from core.errors import Conflict, DownloadError, ManifestError, NotFound, Pruned
from intake.batches import IdempotencyConflict
from intake.manifest import ManifestFaults
from models.database_errors import DATABASE_ERRORS, is_away, original, sqlstate
from models.seedream import Fault, faults

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
Checked = TypeVar("Checked", bound=BaseModel)
COME_AGAIN = "5"
"""Seconds after which a request may be repeated that met no database."""
Kind = Literal[
    "about:blank",
    "urn:darkroom:problem:faults",
    "urn:darkroom:problem:conflict",
    "urn:darkroom:problem:idempotency-conflict",
]


class ProblemFault(BaseModel):
    """One thing wrong with a request."""

    line: int | None = Field(None, description="of the body, or the edit's place in the list, from 1; null: the header")
    custom_id: str | None = None
    field: str | None = None
    reason: str


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: Kind = "about:blank"
    title: str
    status: int
    detail: str | None = None
    instance: str | None = Field(None, description="of an unexpected error: the id under which it stands in our log")
    faults: list[ProblemFault] | None = Field(None, description="every fault, up to a thousand")


class RequestFaults(Exception):
    """Header, query or a small body are wrong."""

    def __init__(self, found: Iterable[Fault]) -> None:
        self.faults = [ProblemFault(field=fault.field, reason=fault.reason) for fault in found]
        super().__init__(f"{len(self.faults)} faults")


def validate(model: type[Checked], value: object) -> Checked:
    """A value that came from outside, as the model has it.

    Raises:
        RequestFaults: it is not.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise RequestFaults(faults(error, names=model.model_fields)) from None


def answer(problem: Problem, headers: Iterable[tuple[str, str]] = ()) -> Response:
    """The problem as a response."""
    response = Response(problem.model_dump_json(exclude_none=True), problem.status, mimetype=MEDIA_TYPE)
    response.headers.extend(list(headers))
    return response


def install(app: Flask) -> None:
    """Let every error of the application end here."""
    app.register_error_handler(RequestFaults, lambda error: _faulty(error.faults))
    app.register_error_handler(ManifestFaults, _faulty_lines)
    app.register_error_handler(ManifestError, lambda error: _faulty([ProblemFault(reason=str(error))]))
    app.register_error_handler(IdempotencyConflict, _conflict("urn:darkroom:problem:idempotency-conflict"))
    app.register_error_handler(Conflict, _conflict("urn:darkroom:problem:conflict"))
    app.register_error_handler(NotFound, lambda error: answer(_problem(HTTPStatus.NOT_FOUND, detail=str(error))))
    app.register_error_handler(Pruned, lambda error: answer(_problem(HTTPStatus.GONE, detail=str(error))))
    app.register_error_handler(DownloadError, _store_error)
    app.register_error_handler(HTTPException, _http)
    for kind in DATABASE_ERRORS:
        app.register_error_handler(kind, _database_error)
    app.register_error_handler(Exception, _unexpected)


def _problem(status: HTTPStatus, kind: Kind = "about:blank", detail: str | None = None) -> Problem:
    return Problem(type=kind, title=status.phrase, status=status, detail=detail)


def _faulty(found: list[ProblemFault]) -> Response:
    many = f"{len(found)} faults" if len(found) != 1 else "One fault"
    problem = _problem(HTTPStatus.UNPROCESSABLE_ENTITY, "urn:darkroom:problem:faults", f"{many}; nothing was written.")
    return answer(problem.model_copy(update={"faults": found}))


def _faulty_lines(error: ManifestFaults) -> Response:
    return _faulty(
        [
            ProblemFault(line=fault.line, custom_id=fault.custom_id, field=fault.field, reason=fault.reason)
            for fault in error.faults
        ]
    )


def _conflict(kind: Kind) -> Callable[[Conflict], Response]:
    return lambda error: answer(_problem(HTTPStatus.CONFLICT, kind, str(error)))


def _http(error: HTTPException) -> Response:
    if error.code is None or error.code < 400:
        return error.get_response()  # type: ignore[return-value]
    kept = [(name, value) for name, value in error.get_headers() if name.lower() != "content-type"]
    return answer(_problem(HTTPStatus(error.code), detail=error.description), kept)


def _store_error(error: DownloadError) -> Response:
    """The store gives nothing for now; what exactly is wrong is nothing for a caller."""
    log.error("intake_without_store", reason=error.type, detail=error.message)
    problem = _problem(HTTPStatus.SERVICE_UNAVAILABLE, detail="The store cannot give it now.")
    return answer(problem, [("Retry-After", COME_AGAIN)])


def _database_error(error: Exception) -> Response:
    """Away, too busy, or it waited too long for someone else: the same request may succeed later."""
    if not is_away(error):
        return _unexpected(error)
    cause = original(error)
    log.error(
        "intake_without_database",
        reason=type(cause).__name__,
        sqlstate=sqlstate(error),
        detail=str(cause).splitlines()[:1],
    )
    problem = _problem(HTTPStatus.SERVICE_UNAVAILABLE, detail="The database cannot take it now; nothing was written.")
    return answer(problem, [("Retry-After", COME_AGAIN)])


def _unexpected(error: Exception) -> Response:
    instance = uuid4().urn
    # without the message, which may hold somebody's prompt
    where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    log.error("intake_failed", instance=instance, reason=type(error).__name__, where=where)
    problem = _problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail="Something unexpected went wrong; see our log.")
    return answer(problem.model_copy(update={"instance": instance}))
