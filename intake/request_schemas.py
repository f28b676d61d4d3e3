"""What the API is asked, as models: queries and bodies, read strictly. The OpenAPI document is made of them."""

from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    create_model,
)
from pydantic_core import PydanticCustomError

from intake.batches import BatchHeader
from intake.insert_edits import OnInvalid
from models.seedream import EditArguments, Text
from models.states import EditState

BatchState = Literal["running", "paused", "cancelled", "finished"]
CUSTOM_ID = r"^[A-Za-z0-9._-]{1,64}$"


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _moment(value: object) -> object:
    if isinstance(value, str) and len(value) >= 20 and value[4] == value[7] == "-":  # no seconds since 1970
        return value
    raise PydanticCustomError("moment", "must be a date and time with its time zone, as 2026-11-22T17:00:00Z")


_Moment = Annotated[AwareDatetime, BeforeValidator(_moment)]


def _whole(value: object) -> object:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 9:
        return int(value)
    raise PydanticCustomError("whole", "must be a whole number")


def _flag(value: object) -> bool:
    if value in ("true", "false"):
        return value == "true"
    raise PydanticCustomError("flag", "must be true or false")


_Whole = Annotated[int, BeforeValidator(_whole)]
_Flag = Annotated[bool, BeforeValidator(_flag)]


class CreateOptions(_Schema):
    """How a batch is to be created."""

    on_invalid: OnInvalid = Field("fail", description="faulty lines: refuse the whole, or become failed edits")
    dry_run: _Flag = Field(False, description="check and estimate; write nothing")


class AppendOptions(_Schema):
    """How edits are to be added."""

    on_invalid: OnInvalid = Field("fail", description="faulty lines: refuse the whole, or become failed edits")


class BatchQuery(_Schema):
    """Which batches."""

    state: BatchState | None = None
    name: Annotated[Text, Field(min_length=1, max_length=255)] | None = None
    created_after: _Moment | None = None
    created_before: _Moment | None = None
    metadata: Annotated[Text, Field(pattern=r"^[^=]{1,255}=.{0,255}$")] | None = Field(
        None, description="name=value: a field of the batch's metadata, as text"
    )
    limit: _Whole = Field(20, ge=1, le=100)
    cursor: Annotated[str, Field(max_length=200)] | None = Field(None, description="`next_cursor` of the page before")


class EditQuery(_Schema):
    """Which edits of a batch."""

    state: EditState | None = None
    error_type: Annotated[Text, Field(min_length=1, max_length=255)] | None = Field(
        None, description="of the edit's last error"
    )
    custom_id: Annotated[str, Field(pattern=CUSTOM_ID)] | None = None
    limit: _Whole = Field(100, ge=1, le=1000)
    cursor: Annotated[str, Field(pattern=r"^[0-9]{1,9}$")] | None = Field(
        None, description="`next_cursor` of the page before"
    )


class ResultQuery(_Schema):
    """Which results of a batch."""

    state: EditState | None = None
    after: Annotated[str, Field(pattern=r"^[0-9]{1,9}$")] | None = Field(
        None, description="the `position` of the last line that has been read, to go on behind it"
    )

    @property
    def position(self) -> int:
        """That of the last edit that is not wanted."""
        return -1 if self.after is None else int(self.after)


class RetryRequest(_Schema):
    """Which failed edits start again."""

    error_types: list[Annotated[Text, Field(min_length=1, max_length=255)]] = Field(
        default_factory=list, max_length=100, description="the last error's; none named: all of them"
    )


class ChangeRequest(_Schema):
    """What may be changed of a batch."""

    priority: StrictInt = Field(ge=-(2**15), le=2**15 - 1, description="higher goes first")


def _describe_lines(schema: dict[str, Any]) -> None:
    """What validators of our own ask for, as far as JSON Schema can say it."""
    schema["properties"]["prompt"]["pattern"] = r"\S"
    schema["properties"]["image_urls"]["items"]["pattern"] = r"^(https?://[^\s/?#]\S*|data:image/.+|storage://.+)$"
    for name, described in schema["properties"].items():
        if name not in schema["required"]:  # null is a field left out
            schema["properties"][name] = {"anyOf": [described, {"type": "null"}]}
    schema["examples"] = [{"custom_id": "hat", "prompt": "A red hat", "image_urls": ["https://example.com/cat.png"]}]


class EditRequest(EditArguments):
    """One edit: the model's own fields, and what to call it."""

    model_config = ConfigDict(json_schema_extra=_describe_lines)

    custom_id: str | None = Field(
        None, pattern=CUSTOM_ID, description="unique in its batch; part of where its images are stored"
    )


class EditsRequest(_Schema):
    """Edits to be added to a batch."""

    edits: list[EditRequest] = Field(min_length=1)


BatchRequest = create_model(
    "BatchRequest",
    __base__=EditsRequest,
    __doc__="A batch: its header's fields, and its edits.",
    **{  # type: ignore[call-overload]  # field by field, as pydantic wants it
        name: (field.annotation if not field.metadata else Annotated[field.annotation, *field.metadata], field)
        for name, field in BatchHeader.model_fields.items()
        if name != "client"
    },
)
