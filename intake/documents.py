"""A batch that comes as one document from another service: checked as strictly as a manifest, written as one."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection

from intake.batches import BatchHeader, CreatedBatch, create
from intake.manifest import read_objects
from models.errors import ManifestError
from models.seedream import faults


def create_from_document(connection: Connection, document: Mapping[str, Any]) -> CreatedBatch:
    """Write the batch of `{"name": …, "edits": [{"prompt": …, "image_urls": […]}, …]}`.

    Raises:
        ManifestError: the document's shape or its header is wrong.
        ManifestFaults: some of its edits are; nothing was written.
        IdempotencyConflict: its key stands for another batch.
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("edits"), list):
        raise ManifestError("The batch must be an object with a list of edits.")
    header = {name: value for name, value in document.items() if name != "edits"}
    try:
        parsed = BatchHeader.model_validate(header)
    except ValidationError as error:
        reasons = "; ".join(f"{fault.field}: {fault.reason}" for fault in faults(error, names=BatchHeader.model_fields))
        raise ManifestError(f"The batch is wrong: {reasons}.") from None
    return create(connection, parsed, read_objects(document["edits"]))
