"""How a batch comes into the database: whole, once, in one transaction that the caller owns.

Streams: whatever the manifest's size, a few thousand edits are held at a time. Validates no edit (that is the
manifest's part); how edits are written is `insert_edits.py`'s.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Literal, NamedTuple
from uuid import UUID

from psycopg.types.json import Jsonb
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, StrictInt
from pydantic_core import PydanticCustomError
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from core.errors import Conflict, ManifestError
from core.tracing import current_traceparent
from intake.insert_edits import ManifestTotals, OnInvalid, count_entries, write_edits
from intake.insert_inputs import NewInputs
from intake.manifest import Entry
from models.database_errors import LOCK_NOT_AVAILABLE, sqlstate
from models.image_inputs import is_web_url
from models.queries.batches import BATCH_OF_KEY, COMPLETE_BATCH, CREATE_BATCH, TRACK_SPENDING
from models.seedream import ENDPOINT, INT32_MAX, Text, unstorable

METADATA_MAX = 64 * 1024
"""Bytes of a batch's metadata, as JSON. Every list of batches and every notification carries it."""


ADDED_LATER = ("check_inputs", "output_expires_after")
"""Fields that a header did not have once: where they say nothing, a batch is the same content as it was before."""


class IdempotencyConflict(Conflict):
    """The idempotency key belongs to another batch."""


def _web_url(url: str) -> str:
    if not is_web_url(url):
        raise PydanticCustomError("url", "must be a URL (http, https)")
    return url


def _storable_json(metadata: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if reason := unstorable(metadata):
        raise PydanticCustomError("unstorable", "{reason}", {"reason": reason})
    if (size := len(json.dumps(metadata, ensure_ascii=False).encode())) > METADATA_MAX:
        raise PydanticCustomError(
            "too_large", "has {size} bytes, at most {most} are kept", {"size": size, "most": METADATA_MAX}
        )
    return metadata


MESSAGE_KEY = "celery-task:"
"""How the key begins that a batch without one takes from the message that brought it; nobody's own key may."""


def _own_key(key: str) -> str:
    if key.startswith(MESSAGE_KEY):
        raise PydanticCustomError("reserved", f"must not begin with {MESSAGE_KEY}, which stands for a message's id")
    return key


_Name = Annotated[Text, Field(min_length=1, max_length=255)]
_Count = Annotated[StrictInt, Field(le=INT32_MAX)]


class BatchHeader(BaseModel):
    """What a caller says about a batch as a whole; each field is the column of its name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: _Name | None = None
    client: _Name = Field("local", description="who asks for it")
    priority: StrictInt = Field(0, ge=-(2**15), le=2**15 - 1, description="higher goes first")
    max_in_flight: _Count | None = Field(None, ge=1, description="edits at the provider at once")
    max_attempts: _Count | None = Field(None, ge=1, description="paid attempts per edit on transient errors")
    max_cost: Decimal | None = Field(None, ge=0, le=10**9, decimal_places=6, description="USD")
    tolerated_failures: _Count | None = Field(None, ge=0, description="more failed edits end the batch")
    tolerated_failure_percent: Decimal | None = Field(None, ge=0, le=100, decimal_places=6)
    deadline: AwareDatetime | None = Field(None, description="what is not submitted by then is not submitted")
    output_expires_after: _Count | None = Field(
        None, ge=1, description="seconds from its end for which its images are stored; unless given, `KEEP_IMAGES`"
    )
    notify_url: Annotated[Text, Field(max_length=2048), AfterValidator(_web_url)] | None = None
    check_inputs: Literal["none", "sample", "all"] = Field(
        "none",
        description="inputs to look at before any edit of theirs is submitted: a `sample` of 100, or `all`; objects of "
        "the store are always looked at",
    )
    metadata: Annotated[dict[str, JsonValue], AfterValidator(_storable_json)] = Field(default_factory=dict)
    idempotency_key: Annotated[_Name, AfterValidator(_own_key)] | None = Field(
        None, description="one batch per client and key, however often it is asked"
    )


@dataclass(frozen=True, slots=True)
class CreatedBatch:
    """A batch that stands in the database; `existing` where an earlier call with the same key made it.

    `edits` counts `skipped`: faulty lines, which stand there as failed edits.
    """

    batch_id: UUID
    edits: int
    warnings: tuple[str, ...] = ()
    existing: bool = False
    skipped: int = 0


def create(
    connection: Connection, header: BatchHeader, entries: Iterable[Entry], *, on_invalid: OnInvalid = "fail"
) -> CreatedBatch:
    """Write a batch and its edits; on any error nothing of it remains, even if the caller commits.

    Of two calls at once with the same client and key, the second waits for the first and then finds its batch.

    Raises:
        ManifestFaults: lines are faulty, and are not to be skipped; carries their faults.
        ManifestError: there is no line.
        IdempotencyConflict: the key stands for other content, or for a batch still being created.
    """
    content = _content(header)
    with connection.begin_nested():
        batch_id = _claimed(connection, header)
        if batch_id is None:
            return _existing(connection, header, content, entries, on_invalid)
        inputs = NewInputs(header.check_inputs)
        write_edits(connection, batch_id, entries, content, inputs, on_invalid=on_invalid)
        if not content.edits:
            raise ManifestError("The manifest holds no edit.")
        complete = (content.edits, content.sha256(), inputs.written, inputs.first, batch_id)
        connection.exec_driver_sql(COMPLETE_BATCH, complete)
        if header.max_cost is not None:
            connection.exec_driver_sql(TRACK_SPENDING, (batch_id,))
    return CreatedBatch(batch_id, content.edits, content.warnings(), skipped=content.skipped)


class Estimate(NamedTuple):
    """What a batch would come to; costs in USD at today's price."""

    edits: int
    invalid: int
    images_least: int
    images_most: int
    cost_likely: Decimal
    cost_worst: Decimal
    warnings: tuple[str, ...]


def estimate(
    header: BatchHeader, entries: Iterable[Entry], *, price: Decimal, on_invalid: OnInvalid = "fail"
) -> Estimate:
    """What `create` would write, without writing it: `price` is that of one image, in USD.

    Likely is one image per generation, which is what the model mostly returns; worst is all it may return, once.

    Raises:
        ManifestFaults, ManifestError: as `create`.
    """
    content = _content(header)
    count_entries(entries, content, on_invalid=on_invalid)
    if not content.edits:
        raise ManifestError("The manifest holds no edit.")
    worst = content.images_most * price
    warnings = content.warnings()
    if header.max_cost is not None and worst > header.max_cost:
        warnings += (f"the worst case of ${worst:.2f} is more than max_cost, ${header.max_cost:.2f}",)
    return Estimate(
        edits=content.edits,
        invalid=content.skipped,
        images_least=content.images_least,
        images_most=content.images_most,
        cost_likely=content.images_least * price,
        cost_worst=worst,
        warnings=warnings,
    )


def _content(header: BatchHeader) -> ManifestTotals:
    unsaid = {name for name in ADDED_LATER if getattr(header, name) == BatchHeader.model_fields[name].default}
    return ManifestTotals(header.model_dump(mode="json", exclude={"client", "idempotency_key", *unsaid}))


def _claimed(connection: Connection, header: BatchHeader) -> UUID | None:
    """The new batch's id; None where its key is taken.

    The row goes first, so that the unique index makes a second call with the key wait for our commit or rollback.
    Its count and hash are known at the end; until then nobody else sees it.
    """
    row = {
        **header.model_dump(),
        "metadata": Jsonb(header.metadata),
        "endpoint": ENDPOINT,
        "traceparent": current_traceparent(),
    }
    try:
        return connection.exec_driver_sql(CREATE_BATCH, row).scalar()
    except DBAPIError as error:
        if sqlstate(error) == LOCK_NOT_AVAILABLE:
            raise IdempotencyConflict("The batch of this idempotency key is being created; try again later.") from None
        raise


def _existing(
    connection: Connection,
    header: BatchHeader,
    content: ManifestTotals,
    entries: Iterable[Entry],
    on_invalid: OnInvalid,
) -> CreatedBatch:
    count_entries(entries, content, on_invalid=on_invalid)
    found = connection.exec_driver_sql(BATCH_OF_KEY, (header.client, header.idempotency_key)).first()
    if found is None or not content.matches(found.content_sha256):
        raise IdempotencyConflict(
            f"The idempotency key {header.idempotency_key} was used for a batch of other content; use a new one."
        )
    return CreatedBatch(found.id, content.edits, content.warnings(), existing=True, skipped=content.skipped)
