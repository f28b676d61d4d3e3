"""The routes under `/v1`: who asks, how often, and which function answers.

Every change is committed before its answer is begun.
"""

import re
from typing import TypeVar
from uuid import UUID

from flask import Blueprint, Flask, Response, current_app, g, request
from pydantic import BaseModel
from sqlalchemy import Connection, Engine
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import TooManyRequests, Unauthorized

from buffering import STREAMED
from intake import batch_actions, queries
from intake.api_keys import ApiKeys
from intake.batches import CreatedBatch, create, estimate
from intake.image_links import link_api
from intake.link_signer import LinkSigner
from intake.openapi import KEY_MAX, KEY_PATTERN, Operation, describe_route
from intake.priorities import highest_priority, read_bounds
from intake.problems import RequestFaults, validate
from intake.rate_limit import RateLimit
from intake.request_bodies import JSON, NDJSON, NewBatch, read_batch, read_edits, read_fields
from intake.request_schemas import (
    AppendOptions,
    BatchQuery,
    BatchRequest,
    ChangeRequest,
    CreateOptions,
    EditQuery,
    EditsRequest,
    ResultQuery,
    RetryRequest,
)
from intake.responses import ActionResult, Batch, BatchDetail, BatchPage, Created, EditPage, Estimated, Result, links
from intake.results import require_unpruned, results
from intake.same_origin import refuse_foreign
from intake.settings import IntakeSettings
from intake.stored_images import ImageReader
from models.provider import price_per_image
from models.seedream import Fault

v1 = Blueprint("v1", __name__, url_prefix="/v1")

HEADER_LINE = '{"name": "catalogue", "priority": 1}\n'
EDIT_LINE = '{"custom_id": "hat", "prompt": "A red hat", "image_urls": ["https://example.com/cat.png"]}\n'

Schema = TypeVar("Schema", bound=BaseModel)


class ApiContext:
    """What the routes work with."""

    def __init__(self, settings: IntakeSettings, engine: Engine, keys: ApiKeys) -> None:
        self.settings, self.engine, self.keys = settings, engine, keys
        self.rate_limit = RateLimit(settings.intake_rate)
        self.priority_bounds = read_bounds(settings.intake_priority_max)
        self.images = ImageReader(engine, settings.storage_url)
        self.links = LinkSigner(settings, lambda: self.images.storage)


def install(app: Flask, context: ApiContext) -> None:
    """Give the routes of one application their context."""
    app.extensions["darkroom"] = context
    app.register_blueprint(v1)


def get_context() -> ApiContext:
    """That of the application which answers."""
    context: ApiContext = current_app.extensions["darkroom"]
    return context


@v1.before_request
def authenticate() -> None:
    """Strangers are counted by their address, before they learn that they are strangers. What a page of another site
    made a browser send is refused before it counts for anybody."""
    refuse_foreign(request)
    client = get_context().keys.client(request.headers.get("Authorization"))
    if wait := get_context().rate_limit.wait(f"client {client}" if client else f"address {request.remote_addr}"):
        raise TooManyRequests("Too many requests.", retry_after=wait)
    if client is None:
        raise Unauthorized("Send Authorization: Bearer KEY.", www_authenticate=WWWAuthenticate("bearer"))
    g.client = client


def _parse_query(model: type[Schema]) -> Schema:
    doubled = [name for name, values in request.args.lists() if len(values) > 1]
    if doubled:
        raise RequestFaults(Fault(name, "is given more than once") for name in doubled)
    return validate(model, request.args.to_dict())


def _require_own(connection: Connection, batch_id: UUID) -> None:
    queries.require_own(connection, g.client, batch_id)


def _check_priority(priority: int) -> None:
    highest = highest_priority(get_context().priority_bounds, g.client)
    if priority > highest:
        raise RequestFaults([Fault("priority", f"may be {highest} at most for {g.client}")])


def _key() -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not (len(key) <= KEY_MAX and re.fullmatch(KEY_PATTERN, key)):
        raise RequestFaults([Fault("Idempotency-Key", f"must be 1 to {KEY_MAX} ASCII characters")])
    return key


def answer_with(model: BaseModel, status: int = 200) -> Response:
    """A model as JSON."""
    return Response(model.model_dump_json(), status, mimetype=JSON)


def _respond_created(made: CreatedBatch) -> Response:
    where = links(made.batch_id)
    created = Created(
        batch_id=made.batch_id,
        edits=made.edits,
        skipped=made.skipped,
        existing=made.existing,
        warnings=list(made.warnings),
        links=where,
    )
    response = answer_with(created, 200 if made.existing else 201)
    response.headers["Location"] = where.self
    return response


@v1.post("/batches")
@describe_route(
    Operation(
        {201: (Created,), 200: (Created, Estimated)},
        query=CreateOptions,
        body={JSON: BatchRequest, NDJSON: HEADER_LINE + EDIT_LINE},
        key=True,
        conflicts=True,
    )
)
def create_batch() -> Response:
    """Hand in a batch.

    As one JSON object, or as lines: first the header, then one edit a line. Written whole or not at all. 200 instead
    of 201 says that the idempotency key found the batch already there, or that it was a dry run.
    """
    options = _parse_query(CreateOptions)
    batch = read_batch(request, client=g.client, key=_key())
    _check_priority(batch.header.priority)
    if options.dry_run:
        return _estimated(batch, options)
    with get_context().engine.begin() as connection:
        made = create(connection, batch.header, batch.entries(0), on_invalid=options.on_invalid)
    return _respond_created(made)


def _estimated(batch: NewBatch, options: CreateOptions) -> Response:
    with get_context().engine.begin() as connection:
        price = price_per_image(connection, get_context().settings.price_per_image)
    found = estimate(batch.header, batch.entries(0), price=price, on_invalid=options.on_invalid)
    return answer_with(Estimated(**{**found._asdict(), "warnings": list(found.warnings)}))


@v1.get("/batches")
@describe_route(Operation({200: (BatchPage,)}, query=BatchQuery))
def list_batches() -> Response:
    """List batches, newest first."""
    query = _parse_query(BatchQuery)
    with get_context().engine.begin() as connection:
        return answer_with(queries.list_batches(connection, g.client, query))


@v1.get("/batches/<uuid:batch_id>")
@describe_route(Operation({200: (BatchDetail,)}))
def get_batch(batch_id: UUID) -> Response:
    """Show one batch, counted at this moment."""
    with get_context().engine.begin() as connection:
        return answer_with(queries.get_batch_detail(connection, g.client, batch_id))


@v1.patch("/batches/<uuid:batch_id>")
@describe_route(Operation({200: (Batch,)}, body={JSON: ChangeRequest}))
def change_batch(batch_id: UUID) -> Response:
    """Let a batch go before, or after, others."""
    change = validate(ChangeRequest, read_fields(request))
    _check_priority(change.priority)
    with get_context().engine.begin() as connection:
        _require_own(connection, batch_id)
        batch_actions.set_priority(connection, batch_id, change.priority)
        return answer_with(queries.get_batch(connection, batch_id))


@v1.get("/batches/<uuid:batch_id>/edits")
@describe_route(Operation({200: (EditPage,)}, query=EditQuery, pruned=True))
def list_edits(batch_id: UUID) -> Response:
    """List the edits of a batch with their errors, in their order."""
    query = _parse_query(EditQuery)
    with get_context().engine.begin() as connection:
        return answer_with(queries.list_edits(connection, g.client, batch_id, query))


@v1.post("/batches/<uuid:batch_id>/edits")
@describe_route(
    Operation(
        {201: (Created,), 200: (Created,)},
        query=AppendOptions,
        body={JSON: EditsRequest, NDJSON: EDIT_LINE},
        key=True,
        conflicts=True,
    )
)
def append_edits(batch_id: UUID) -> Response:
    """Add edits to a batch that is not finished."""
    options, key = _parse_query(AppendOptions), _key()
    entries = read_edits(request)
    with get_context().engine.begin() as connection:
        _require_own(connection, batch_id)
        first = batch_actions.next_position(connection, batch_id)
        made = batch_actions.append(
            connection, batch_id, entries(first), idempotency_key=key, on_invalid=options.on_invalid
        )
    return _respond_created(made)


@v1.get("/batches/<uuid:batch_id>/results")
@describe_route(Operation({200: (Result,)}, media_type=NDJSON, query=ResultQuery, pruned=True))
def get_results(batch_id: UUID) -> Response:
    """Fetch the results of a batch, one JSON object a line.

    Sent as they are read. An answer that broke off ends without the last chunk of HTTP, which every client takes for
    an error; go on with `after`. A line may be handed in again as it is: then the edit that it carries is what counts.
    """
    query, context = _parse_query(ResultQuery), get_context()
    with context.engine.begin() as connection:
        _require_own(connection, batch_id)
        require_unpruned(connection, batch_id)  # while there is a status yet to be chosen
    links = context.links.sign() or link_api(context.settings.intake_url or request.host_url.rstrip("/"), batch_id)
    found = results(context.engine, batch_id, links, query.state, after=query.position)
    return Response(found, mimetype=NDJSON, headers=[STREAMED])


@v1.get("/batches/<uuid:batch_id>/images/<int:image>")
@describe_route(Operation({200: (), 206: (), 304: ()}, media_type="image/*", pruned=True))
def get_image(batch_id: UUID, image: int) -> Response:
    """Fetch a stored image, whole or a range of its bytes."""
    images = get_context().images
    return images.answer(request, images.find(batch_id, image, g.client))


@v1.post("/batches/<uuid:batch_id>/cancel")
@describe_route(Operation({200: (ActionResult,)}, conflicts=True))
def cancel_batch(batch_id: UUID) -> Response:
    """Cancel what is not paid for yet."""
    with get_context().engine.begin() as connection:
        _require_own(connection, batch_id)
        edits = batch_actions.cancel(connection, batch_id)
    return answer_with(ActionResult(batch_id=batch_id, edits=edits))


@v1.post("/batches/<uuid:batch_id>/pause")
@describe_route(Operation({200: (Batch,)}, conflicts=True))
def pause_batch(batch_id: UUID) -> Response:
    """Submit no more of a batch for now; what is in flight finishes."""
    with get_context().engine.begin() as connection:
        _require_own(connection, batch_id)
        batch_actions.pause(connection, batch_id)
        return answer_with(queries.get_batch(connection, batch_id))


@v1.post("/batches/<uuid:batch_id>/resume")
@describe_route(Operation({200: (Batch,)}, conflicts=True))
def resume_batch(batch_id: UUID) -> Response:
    """Go on with a paused batch."""
    with get_context().engine.begin() as connection:
        _require_own(connection, batch_id)
        batch_actions.resume(connection, batch_id)
        return answer_with(queries.get_batch(connection, batch_id))


@v1.post("/batches/<uuid:batch_id>/retry")
@describe_route(Operation({200: (ActionResult,)}, body={JSON: RetryRequest}, body_required=False, conflicts=True))
def retry_batch(batch_id: UUID) -> Response:
    """Try the failed edits of a batch again, all or those of some error types."""
    wanted = validate(RetryRequest, read_fields(request))
    with get_context().engine.begin() as connection:
        _require_own(connection, batch_id)
        edits = batch_actions.retry(connection, batch_id, wanted.error_types)
    return answer_with(ActionResult(batch_id=batch_id, edits=edits))
