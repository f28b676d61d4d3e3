"""What the API answers, as models, of which the OpenAPI document is made.

A batch that is asked for by itself is counted live; in a list it is not, because a list must be cheap.
"""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field, PlainSerializer

from intake.request_schemas import BatchState
from models.states import Criterion, EditState, InputCheck

Money = Annotated[Decimal, PlainSerializer(float, return_type=float)]


class Links(BaseModel):
    """Where to go on; paths on this server."""

    self: str
    edits: str
    results: str


def links(batch_id: UUID) -> Links:
    """Of one batch."""
    path = f"/v1/batches/{batch_id}"
    return Links(self=path, edits=f"{path}/edits", results=f"{path}/results")


class Created(BaseModel):
    """A batch that stands in the database, or edits that were added to one."""

    batch_id: UUID
    edits: int = Field(description="of this request, `skipped` among them")
    skipped: int = Field(description="faulty lines, kept as failed edits")
    existing: bool = Field(description="an earlier request with the same key had written it")
    warnings: list[str]
    links: Links


class Estimated(BaseModel):
    """What a batch would come to; nothing was written."""

    dry_run: Literal[True] = True
    edits: int
    invalid: int
    images_least: int
    images_most: int
    cost_likely: Money = Field(description="USD, one image per generation")
    cost_worst: Money = Field(description="USD, all images that may come")
    warnings: list[str]


class InputFile(BaseModel):
    """A file that was handed in as an input."""

    reference: str = Field(description="what stands for it in `image_urls`")
    sha256: str = Field(description="of its bytes, lower-case hex")
    bytes: int
    content_type: str = Field(description="as its bytes have it")
    width: int = Field(description="pixels")
    height: int = Field(description="pixels")
    expires_at: datetime | None = Field(description="unless it is handed in again, or named by a batch; null: never")


class NewInputFile(InputFile):
    """A file that was just handed in."""

    existing: bool = Field(description="the same content had been handed in before")
    warnings: list[str] = Field(description="what may come of it")


class ActionResult(BaseModel):
    """What was done."""

    batch_id: UUID
    edits: int = Field(description="edits that it concerned")


class Batch(BaseModel):
    """A batch, without counts."""

    batch_id: UUID
    name: str | None
    state: BatchState
    priority: int
    edits: int
    metadata: dict[str, Any]
    created_at: datetime
    paused_at: datetime | None
    pause_reason: str | None = Field(description="where it was not a person who paused it")
    cancelled_at: datetime | None
    finished_at: datetime | None
    pruned_at: datetime | None = Field(
        description="from then on its edits and results are no longer kept; its images are"
    )
    broken_criterion: Criterion | None = Field(description="which of its own limits ended it")
    links: Links


class Counts(BaseModel):
    """Edits by state; they add up to `edits`."""

    pending: int
    submitting: int
    submitted: int
    ready: int
    stored: int
    failed: int
    cancelled: int


class Images(BaseModel):
    """Images of a batch."""

    returned: int
    waiting: int
    stored: int
    failed: int
    bytes_stored: int
    deleted: int = Field(description="stored, and deleted when their time was over")
    bytes_deleted: int
    first_stored_at: datetime | None
    last_stored_at: datetime | None
    per_second: float | None


class Inputs(BaseModel):
    """Inputs of a batch that are looked at before their edits are submitted."""

    check: InputCheck = Field(description="which of them, beside objects of the store")
    number: int
    waiting: int | None = Field(
        description="of these, not looked at yet, 10001 for more than that; null: no edit waits for one"
    )


class Limits(BaseModel):
    """The batch's own limits, as handed in."""

    max_in_flight: int | None
    max_attempts: int | None
    max_cost: Money | None
    tolerated_failures: int | None
    tolerated_failure_percent: Money | None
    deadline: datetime | None


class BatchDetail(Batch):
    """A batch, counted at this moment."""

    counts: Counts
    images: Images
    inputs: Inputs
    limits: Limits
    output_expires_after: int | None = Field(description="seconds from its end for which its images are stored")
    notify_url: str | None
    submissions: int = Field(description="POSTs to the provider, i.e. possible charges")
    unknown: int = Field(description="of these, given up without an answer")
    doubled: int = Field(description="of these, charged beside a resubmission")
    cost: Money = Field(description="USD, for images that came back")


class BatchPage(BaseModel):
    """Batches, newest first."""

    batches: list[Batch]
    next_cursor: str | None


class EditError(BaseModel):
    """One thing that went wrong with an edit; `type` is the provider's own word where it has one."""

    at: datetime
    attempt: int
    type: str
    message: str


class Edit(BaseModel):
    """One edit."""

    position: int
    custom_id: str | None
    state: EditState
    attempt: int
    seed: int
    errors: list[EditError]
    created_at: datetime
    finished_at: datetime | None


class EditPage(BaseModel):
    """Edits in their order."""

    edits: list[Edit]
    next_cursor: str | None


class ResultImage(BaseModel):
    """One image in storage."""

    index: int
    id: int
    url: str | None = Field(
        description="signed by the store, to be read by anybody for `LINK_LIFETIME`; else the API's own address of it, "
        "which wants the key; null: the image was deleted when its time was over"
    )
    storage_key: str
    sha256: str
    bytes: int
    type: str
    width: int | None
    height: int | None


class Result(BaseModel):
    """One line of results. It may be handed in again as it is: then its `edit` is what counts."""

    position: int
    custom_id: str | None
    state: EditState
    images: list[ResultImage]
    seed: int
    cost: Money = Field(description="USD")
    errors: list[EditError]
    edit: dict[str, Any] = Field(description="as it was handed in")


class Alive(BaseModel):
    """Alive, and so is the database."""

    status: Literal["ok"] = "ok"
