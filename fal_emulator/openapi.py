"""A model's OpenAPI 3.0 document: the four paths of the queue, and its own input and output (fal-protocol 9).

The document describes; `arguments` is what checks. A test holds that a body which fits the document is taken.
"""

from collections.abc import Mapping
from typing import Any

from . import sizes
from .arguments import MAX_INPUTS
from .endpoints import QUEUE_HOST, parse
from .job import COMPLETED, IN_PROGRESS, IN_QUEUE

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
ANY: Schema = {"type": "object"}
REQUEST_ID = {"name": "request_id", "in": "path", "required": True, "schema": TEXT}
LOGS = {"name": "logs", "in": "query", "schema": {"type": "string", "enum": ["0", "1", "true", "false"]}}
WEBHOOK = {"name": "fal_webhook", "in": "query", "schema": {"type": "string", "format": "uri"}}


def document(endpoint_id: str, title: str, max_side: int) -> dict[str, Any]:
    """The whole document; models other than the edit model are described loosely."""
    endpoint = parse(endpoint_id)
    assert endpoint, "the catalogue holds only ids that can be read"
    one = f"/{endpoint.app_id}/requests/{{request_id}}"
    own = edit_schemas(max_side) if endpoint.path.endswith("/edit") else {"Input": ANY, "Output": ANY}
    return {
        "openapi": "3.0.4",
        "info": {"title": title, "version": "1.0.0", "description": "A stand-in for fal's queue. No AI."},
        "servers": [{"url": f"https://{QUEUE_HOST}"}],
        "security": [{"apiKeyAuth": []}],
        "paths": {
            f"/{endpoint_id}": {"post": _submit()},
            f"{one}/status": {"get": _call("status", "QueueStatus", LOGS)},
            f"{one}/cancel": {"put": _call("cancel", "CancelReply")},
            one: {"get": _call("result", "Output")},
        },
        "components": {
            "securitySchemes": {"apiKeyAuth": {"type": "apiKey", "in": "header", "name": "Authorization"}},
            "schemas": {**own, "QueueStatus": QUEUE_STATUS, "CancelReply": _object(("status",), status=TEXT)},
        },
    }


def _object(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    wanted = {"required": list(required)} if required else {}
    return {"type": "object", **wanted, "properties": properties}


def _named(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(name: str) -> Schema:
    return {"application/json": {"schema": _named(name)}}


def _call(what: str, reply: str, *parameters: Schema) -> dict[str, Any]:
    """An operation on one request."""
    return {
        "operationId": what,
        "parameters": [REQUEST_ID, *parameters],
        "responses": {"200": {"description": what, "content": _json(reply)}},
    }


def _submit() -> dict[str, Any]:
    return {
        "operationId": "submit",
        "parameters": [WEBHOOK],
        "requestBody": {"required": True, "content": _json("Input")},
        "responses": {"200": {"description": "accepted", "content": _json("QueueStatus")}},
    }


QUEUE_STATUS = _object(
    ("status", "request_id"),
    status={"type": "string", "enum": [IN_QUEUE, IN_PROGRESS, COMPLETED]},
    request_id=TEXT,
    response_url=TEXT,
    status_url=TEXT,
    cancel_url=TEXT,
    queue_position={"type": "integer"},
    logs={"type": "array", "nullable": True, "items": ANY},
    metrics=ANY,
)


def edit_schemas(max_side: int) -> dict[str, Schema]:
    """Input and output of `fal-ai/bytedance/seedream/v4/edit` (fal-protocol 9.1, 9.2)."""
    side = {"type": "integer", "minimum": 1, "maximum": max_side, "default": sizes.OBJECT_DEFAULT}
    images = {"type": "array", "items": _named("Image")}
    return {
        "Input": _edit_input(),
        "Output": _object(("images", "seed"), images=images, seed={"type": "integer", "description": "Seed used"}),
        "Image": _image(),
        "ImageSize": _object(width=side, height=side),
    }


def _edit_input() -> Schema:
    count = {"type": "integer", "minimum": 1, "maximum": 6, "default": 1}
    sized = [_named("ImageSize"), {"type": "string", "enum": list(sizes.NAMES)}]
    used = f"Input images; of more than {MAX_INPUTS} only the last {MAX_INPUTS} are used"
    return _object(
        ("prompt", "image_urls"),
        prompt={"type": "string", "description": "The text prompt used to edit the image"},
        image_urls={"type": "array", "items": TEXT, "minItems": 1, "description": used},
        image_size={"anyOf": sized, "default": dict(zip(("width", "height"), sizes.DEFAULT, strict=True))},
        num_images={**count, "description": "Separate generations"},
        max_images={**count, "description": "Most images of one generation"},
        seed={"type": "integer", "description": "Random seed"},
        sync_mode={"type": "boolean", "default": False},
        enable_safety_checker={"type": "boolean", "default": True},
        enhance_prompt_mode={"type": "string", "enum": ["standard", "fast"], "default": "standard"},
    )


def _image() -> Schema:
    texts = {name: {"type": "string", "nullable": True} for name in ("content_type", "file_name", "file_data")}
    numbers = {name: {"type": "integer", "nullable": True} for name in ("file_size", "width", "height")}
    return _object(("url",), url=TEXT, **texts, **numbers)
