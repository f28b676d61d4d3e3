"""The OpenAPI document, made of the routes themselves and of the models that they read and answer with."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import Any, TypeVar

from flask import Flask
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema
from werkzeug.routing import Rule

from intake.problems import MEDIA_TYPE, Problem

Model = type[BaseModel]
View = TypeVar("View", bound=Callable[..., Any])

ARGUMENT = re.compile(r"<(?:\w+:)?(\w+)>")
"""An argument of a path, as Flask has it."""
ARGUMENTS: dict[str, dict[str, Any]] = {"sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"}}
"""What an argument may be that is no UUID."""
UUID_SCHEMA = {"type": "string", "format": "uuid"}
NUMBER_SCHEMA: dict[str, Any] = {"type": "integer", "minimum": 0}
BYTES = "application/octet-stream"
KEY_PATTERN, KEY_MAX = r"^[!-~]([ -~]*[!-~])?$", 255
"""An idempotency key: ASCII, without blanks around it, which HTTP would lose; as long as a batch keeps it."""
REFERENCE = "#/components/schemas/{model}"
BODY_PROBLEMS = (400, 408, 411, 413, 415, 422)
EVERYWHERE = (400, 429, 500, 503)
CARRIES_IT = (200, 206)
"""Answers that are no JSON, with a body."""
MEANINGS = {
    200: "Done",
    201: "Written, for good",
    206: "The range of bytes that was asked for",
    304: "It is still the same",
    400: "The request cannot be read",
    401: "No key, or an unknown one",
    404: "There is no such batch or file, or it is another client's",
    408: "The body did not come in time",
    409: "Not as it stands, or the idempotency key stands for something else",
    410: "Its edits are no longer kept",
    411: "A body must say how long it is",
    413: "The body is too long",
    416: "There is no such range of bytes",
    415: "A body of another type, or compressed",
    422: "Understood and refused; every fault is named",
    429: "Too many requests; Retry-After says when to come again",
    500: "Our mistake; its id stands in our log",
    503: "Not now; Retry-After says when to come again",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """What a route takes and answers, beside its path."""

    answers: Mapping[int, tuple[Model, ...]]
    media_type: str = "application/json"
    """Of the answers; a type of lines has the model for each of them, one that is no text has none."""
    query: Model | None = None
    body: Mapping[str, Model | str] = field(default_factory=dict)
    """By media type: a model, or an example of lines."""
    body_required: bool = True
    key: bool = False
    """Whether it takes an idempotency key."""
    conflicts: bool = False
    pruned: bool = False
    """Whether it reads edits, which are not kept for ever."""


_OPERATIONS: dict[str, Operation] = {}


def describe_route(operation: Operation) -> Callable[[View], View]:
    """Keep what is known of a view for the document."""

    def keep(view: View) -> View:
        _OPERATIONS[view.__name__] = operation
        return view

    return keep


def document(app: Flask, *, keys: bool) -> dict[str, Any]:
    """The document (OpenAPI 3.1) of the application's described routes; `keys`: whether a key is required."""
    schemas = _schemas()
    rules = [(rule, app.view_functions[rule.endpoint]) for rule in app.url_map.iter_rules()]
    rules = [(rule, view) for rule, view in rules if view.__name__ in _OPERATIONS]
    links = {view.__name__: _link(view.__name__) for rule, view in rules if "batch_id" in rule.arguments}
    paths: dict[str, Any] = {}
    for rule, view in rules:
        path = paths.setdefault(ARGUMENT.sub(r"{\1}", rule.rule), {})
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            path[method.lower()] = _operation(rule, view, schemas, links, keys=keys)
    queries = {operation.query.__name__ for operation in _OPERATIONS.values() if operation.query}
    components: dict[str, Any] = {"schemas": {name: schema for name, schema in schemas.items() if name not in queries}}
    if keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    about = {"title": "darkroom", "version": version("darkroom"), "summary": "Bulk image edits: hand in, steer, fetch."}
    return {"openapi": "3.1.0", "info": about, "paths": paths, "components": components}


@cache
def _schemas() -> dict[str, Any]:
    wanted = sorted(set(_models()), key=lambda pair: (pair[0].__name__, pair[1]))
    _, found = models_json_schema(wanted, ref_template=REFERENCE)
    definitions: dict[str, Any] = found["$defs"]
    return definitions


def _models() -> Iterator[tuple[Model, JsonSchemaMode]]:
    yield Problem, "serialization"
    for operation in _OPERATIONS.values():
        for models in operation.answers.values():
            yield from ((model, "serialization") for model in models)
        if operation.query:
            yield operation.query, "validation"
        yield from ((model, "validation") for model in operation.body.values() if not isinstance(model, str))


def _operation(
    rule: Rule, view: Callable[..., Any], schemas: Mapping[str, Any], links: Mapping[str, Any], *, keys: bool
) -> dict[str, Any]:
    operation = _OPERATIONS[view.__name__]
    summary, _, description = (inspect.getdoc(view) or "").partition("\n\n")
    made: dict[str, Any] = {"operationId": view.__name__, "summary": summary.rstrip(".")}
    if description:
        made["description"] = description
    tags = ("files", "/v1/files"), ("batches", "/v1/"), ("process", "/")
    made["tags"] = [next(tag for tag, beginning in tags if rule.rule.startswith(beginning))]
    made["parameters"] = list(_parameters(rule, operation, schemas))
    if operation.body:
        content = {media_type: _content(media_type, body) for media_type, body in operation.body.items()}
        made["requestBody"] = {"required": operation.body_required, "content": content}
    made["responses"] = {
        **{str(status): _answer(status, operation, models) for status, models in operation.answers.items()},
        **{str(status): _problem(status) for status in sorted(_problems(rule, operation, keys=keys))},
    }
    if "201" in made["responses"] and rule.rule == "/v1/batches":
        made["responses"]["201"]["links"] = links
    secured = keys and rule.rule.startswith("/v1/")
    return {**made, "security": [{"key": []}]} if secured else made


def _link(operation: str) -> dict[str, Any]:
    """From a batch that was just written to what can be done with it."""
    return {"operationId": operation, "parameters": {"batch_id": "$response.body#/batch_id"}}


def _parameters(rule: Rule, operation: Operation, schemas: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name in sorted(rule.arguments):
        number = f"<int:{name}>" in rule.rule
        schema = NUMBER_SCHEMA if number else ARGUMENTS.get(name, UUID_SCHEMA)
        yield {"name": name, "in": "path", "required": True, "schema": schema}
    if operation.key:
        described = "The same request with the same key is written once, however often it is sent."
        schema = {"type": "string", "maxLength": KEY_MAX, "pattern": KEY_PATTERN}
        yield {"name": "Idempotency-Key", "in": "header", "description": described, "schema": schema}
    if operation.query:
        for name, schema in schemas[operation.query.__name__]["properties"].items():
            yield {"name": name, "in": "query", "description": schema.get("description", ""), "schema": schema}


def _content(media_type: str, body: Model | str) -> dict[str, Any]:
    if media_type == BYTES:
        return {}  # which is how OpenAPI 3.1 has bytes
    if isinstance(body, str):
        return {"schema": {"type": "string"}, "example": body}
    return {"schema": _reference(body)}


def _reference(model: Model) -> dict[str, str]:
    return {"$ref": REFERENCE.format(model=model.__name__)}


def _answer(status: int, operation: Operation, models: tuple[Model, ...]) -> dict[str, Any]:
    if not models:
        content: dict[str, Any] = {operation.media_type: {}} if status in CARRIES_IT else {}
        return {"description": MEANINGS[status], **({"content": content} if content else {})}
    if operation.media_type != "application/json":
        description = f"{MEANINGS[status]}; each line is a {models[0].__name__}"
        return {"description": description, "content": {operation.media_type: {"schema": {"type": "string"}}}}
    references = [_reference(model) for model in models]
    schema: dict[str, Any] = references[0] if len(references) == 1 else {"anyOf": references}
    return {"description": MEANINGS[status], "content": {"application/json": {"schema": schema}}}


def _problem(status: int) -> dict[str, Any]:
    return {"description": MEANINGS[status], "content": {MEDIA_TYPE: {"schema": _reference(Problem)}}}


def _problems(rule: Rule, operation: Operation, *, keys: bool) -> set[int]:
    found = set(EVERYWHERE)
    found |= {401} if keys and rule.rule.startswith("/v1/") else set()
    found |= {404} if rule.arguments else set()
    found |= {409} if operation.conflicts else set()
    found |= {410} if operation.pruned else set()
    found |= set(BODY_PROBLEMS) if operation.body else set()
    found |= {416} if 206 in operation.answers else set()
    found |= {422} if rule.rule.startswith("/v1/") else set()
    return found
