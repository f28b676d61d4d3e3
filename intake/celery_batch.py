"""A batch that comes as one document from another service: checked as strictly as a manifest, written as one."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, BinaryIO

from pydantic import ConfigDict, ValidationError
from sqlalchemy import Connection

from core.errors import ManifestError
from intake.batches import MESSAGE_KEY, BatchHeader, CreatedBatch, create
from intake.insert_edits import OnInvalid
from intake.manifest import Entry, ManifestFaults, read_objects
from intake.read_manifest import reader_for
from models.seedream import faults

OpenManifest = Callable[[str], AbstractContextManager[BinaryIO]]
"""A manifest's URL or key in storage -> its bytes, as a stream."""


class BatchDocument(BatchHeader):
    """A batch's header with its edits, or with where in storage they are listed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    edits: list[Any] | None = None
    manifest: str | None = None
    on_invalid: OnInvalid = "fail"

    def header(self) -> BatchHeader:
        """The header alone."""
        return BatchHeader(**self.model_dump(include=set(BatchHeader.model_fields)))


def create_from_document(
    connection: Connection, document: Mapping[str, Any], open_manifest: OpenManifest, *, message_id: str | None = None
) -> CreatedBatch:
    """Write the batch of `{"name": …, "edits": [{"prompt": …, "image_urls": […]}, …]}`, or of
    `{"name": …, "manifest": "batches/7.jsonl"}`.

    `message_id` names the message that brought it: without an `idempotency_key` of its own the document is known by
    that, so that a message that is delivered again answers the same batch.

    Raises:
        ManifestError: its shape, its header or some of its edits are wrong, each is named; nothing was written.
        NotFound: there is no such manifest in storage.
        IdempotencyConflict: its key stands for another batch.
    """
    parsed = _parsed(document)
    try:
        with _entries(parsed, open_manifest) as entries:
            return create(connection, _header(parsed, message_id), entries, on_invalid=parsed.on_invalid)
    except ManifestFaults as error:
        raise ManifestError(str(error)) from None  # of an error, the broker carries nothing but its text


def _header(document: BatchDocument, message_id: str | None) -> BatchHeader:
    header = document.header()
    if header.idempotency_key is not None or message_id is None:
        return header
    return header.model_copy(update={"idempotency_key": f"{MESSAGE_KEY}{message_id}"})


def _parsed(document: Mapping[str, Any]) -> BatchDocument:
    if not isinstance(document, Mapping) or ("edits" in document) == ("manifest" in document):
        raise ManifestError("The batch must be an object with either a list of edits or a manifest.")
    try:
        return BatchDocument.model_validate(document)
    except ValidationError as error:
        found = faults(error, names=BatchDocument.model_fields)
        reasons = "; ".join(f"{fault.field}: {fault.reason}" for fault in found)
        raise ManifestError(f"The batch is wrong: {reasons}.") from None


@contextmanager
def _entries(document: BatchDocument, open_manifest: OpenManifest) -> Iterator[Iterator[Entry]]:
    if document.manifest is None:
        yield read_objects(document.edits or ())
        return
    with open_manifest(document.manifest) as stream:
        yield reader_for(document.manifest)(stream)
