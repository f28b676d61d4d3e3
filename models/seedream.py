"""The model's input and output schema: every field, default and limit, and what an input will cost and bring.

Stricter than the provider on purpose: what it would refuse after a paid run, or change in silence, is refused
or warned of here, in plain sentences. Knows no files, no network and no database; looks at no image.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite, isqrt
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from models.image_inputs import is_local_path, is_plain_url, read_image_url

ENDPOINT = "fal-ai/bytedance/seedream/v4/edit"
MIN_AREA = 921_600
"""Pixels; the provider scales a smaller size up to this, keeping its aspect ratio (provider-protocol 9.1)."""
MAX_SIDE = 4096
"""Pixels of either side of a result; more is refused (provider-protocol 9.1)."""
WIDEST_SHAPE = 16
"""How many times one side of a result may be the other. At the minimum area a narrower one would pass `MAX_SIDE`."""
MAX_INPUTS = 10
"""Images an edit may start from; of more, the provider uses only the last (provider-protocol 9.1)."""
MAX_IMAGES = 15
"""Inputs and results together; what the provider does above it is unknown (provider-protocol 9.1)."""
INT32_MAX, INT64_MAX = 2**31 - 1, 2**63 - 1
"""What the database's INTEGER and BIGINT columns hold."""

PresetName = Literal[
    "square_hd",
    "square",
    "portrait_4_3",
    "portrait_16_9",
    "landscape_4_3",
    "landscape_16_9",
    "auto",
    "auto_2K",
    "auto_4K",
]
PRESETS: Mapping[PresetName, tuple[int, int]] = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
"""Width and height of each name before scaling; with the `auto` names the model chooses."""


def storable(text: str) -> str:
    """PostgreSQL's text and jsonb hold neither NUL nor half of a surrogate pair."""
    if "\0" in text:
        raise PydanticCustomError("nul_character", "holds a NUL character")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise PydanticCustomError("lone_surrogate", "holds half of a surrogate pair") from None
    return text


def unstorable(value: object) -> str | None:
    """Why PostgreSQL's jsonb cannot hold a value read from JSON; None where it can."""
    parts = [value]
    while parts:
        match parts.pop():
            case str(text):
                try:
                    storable(text)
                except PydanticCustomError as error:
                    return error.message()
            case dict(fields):
                parts += [*fields, *fields.values()]
            case list(entries):
                parts += entries
            case float(number) if not isfinite(number):
                return "holds a number that JSON does not know"
    return None


def _not_blank(text: str) -> str:
    if not text or text.isspace():
        raise PydanticCustomError("blank", "must not be blank")
    return text


def _prompt(text: str) -> str:
    return _not_blank(storable(text))


def _input_image(entry: str, info: ValidationInfo) -> str:
    if is_plain_url(entry):
        return entry
    storable(entry)
    local = bool(info.context and info.context.get("local_paths"))
    if local and is_local_path(entry):
        return _not_blank(entry)
    try:
        return read_image_url(entry)
    except ValueError as error:
        reason = str(error)
    if local and reason.startswith("is neither"):
        reason = "is neither a URL (http, https), a data URI of an image, nor a path"
    raise PydanticCustomError("image", reason)


Text = Annotated[str, AfterValidator(storable)]


class ImageSize(BaseModel):
    """The size of the result, in pixels."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    width: int = Field(512, ge=1, le=MAX_SIDE, description="pixels")
    height: int = Field(512, ge=1, le=MAX_SIDE, description="pixels")

    @model_validator(mode="after")
    def _not_too_narrow(self) -> Self:
        width, height = self.width, self.height
        if width > WIDEST_SHAPE * height or height > WIDEST_SHAPE * width:
            reason = "{width}x{height} is too narrow: one side may be at most {widest} times the other"
            raise PydanticCustomError("too_narrow", reason, {"width": width, "height": height, "widest": WIDEST_SHAPE})
        return self


def _form_of_size(value: object) -> str | None:
    if isinstance(value, str):
        return "name"
    return "object" if isinstance(value, dict | ImageSize) else None


class EditArguments(BaseModel):
    """One edit as the model takes it. Types are strict: the text "2" and true are no numbers.

    Validate with `context={"local_paths": True}` where paths of this machine are uploaded before the POST.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)

    prompt: Annotated[str, AfterValidator(_prompt)] = Field(description="what to do with the images")
    image_urls: list[Annotated[str, AfterValidator(_input_image)]] = Field(
        min_length=1,
        max_length=MAX_INPUTS,
        description="the images to edit: URLs, data URIs or `storage://` references, 1 to 10",
    )
    image_size: Annotated[
        Annotated[PresetName, Tag("name")] | Annotated[ImageSize, Tag("object")], Discriminator(_form_of_size)
    ] = Field(
        ImageSize(width=2048, height=2048),
        description="a name or {width, height}; a size under 921600 pixels is scaled up by the provider",
    )
    num_images: int = Field(1, ge=1, le=6, description="separate generations")
    max_images: int = Field(1, ge=1, le=6, description="images that one generation may return")
    seed: int | None = Field(None, ge=-INT64_MAX, le=INT64_MAX, description="darkroom draws one where it is missing")
    sync_mode: bool = Field(False, description="results as data URIs inside the answer, kept in no history")
    enable_safety_checker: bool = Field(True, description="the provider's check; the model's own moderation stays")
    enhance_prompt_mode: Literal["standard", "fast"] = Field("standard", description="fast: quicker, average quality")

    @model_validator(mode="after")
    def _not_too_many_images(self) -> Self:
        inputs, results = len(self.image_urls), most_images(self)
        if inputs + results > MAX_IMAGES:
            raise PydanticCustomError(
                "too_many_images",
                "makes up to {results} results (num_images x max_images), with {inputs} in image_urls {sum} images: "
                "at most {most} are allowed together",
                {"inputs": inputs, "results": results, "sum": inputs + results, "most": MAX_IMAGES},
            )
        return self


def most_images(arguments: EditArguments) -> int:
    """The most images this edit may return, and be charged for."""
    return arguments.num_images * arguments.max_images


def expected_size(arguments: EditArguments) -> tuple[int, int] | None:
    """Width and height that will really come; None where the model chooses.

    The provider does not say how it rounds when it scales up; here both sides are rounded up, so that the
    area is never below the minimum.
    """
    wanted = _wanted_size(arguments)
    if wanted is None or wanted[0] * wanted[1] >= MIN_AREA:
        return wanted
    width, height = wanted
    return _root_rounded_up(MIN_AREA * width, height), _root_rounded_up(MIN_AREA * height, width)


def warnings(arguments: EditArguments) -> list[str]:
    """What the provider will do differently from what was asked, in sentences."""
    found = []
    wanted, real = _wanted_size(arguments), expected_size(arguments)
    if wanted and real and wanted != real:
        found.append(
            f"image_size: {wanted[0]}x{wanted[1]} is below the provider's minimum of {MIN_AREA} pixels, "
            f"it will come scaled up to {real[0]}x{real[1]}"
        )
    if arguments.sync_mode:
        found.append("sync_mode: the images come inside the answer, which the provider then keeps for minutes only")
    return found


def as_sent(arguments: EditArguments | Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The body of the POST: the fields that the caller gave, none of our defaults, and always a seed."""
    given = arguments.model_dump(exclude_unset=True) if isinstance(arguments, EditArguments) else arguments
    return {**given, "seed": seed}


def identify_input(given: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the whole input of one request: the same for two inputs that the model takes for the same.

    Made from canonical JSON. A field that is null, or at its documented default, counts as absent, because whoever
    echoes an input may fill it in (provider-protocol 7.2). Everything else is compared whole, data URIs too. Fields
    that the model does not know are left out: see `has_unknown_fields`.
    """
    fields = {name: given[name] for name in EditArguments.model_fields if given.get(name) is not None}
    if isinstance(size := fields.get("image_size"), dict):
        fields["image_size"] = {**ImageSize().model_dump(), **size}
    canonical = {name: _canonical(value) for name, value in fields.items()}
    different = {name: text for name, text in canonical.items() if text != _DEFAULTS.get(name)}
    return hashlib.sha256(json.dumps(different, sort_keys=True).encode()).hexdigest()


def has_unknown_fields(given: Mapping[str, Any]) -> bool:
    """Whether an input has fields that darkroom never sends: it may be ours, decorated, or somebody else's."""
    return not given.keys() <= EditArguments.model_fields.keys()


def _canonical(value: Any) -> str:
    return json.dumps(_whole(value), sort_keys=True)


def _whole(value: Any) -> Any:
    """JSON has one kind of number, and whoever echoes a 1 may write 1.0."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {name: _whole(entry) for name, entry in value.items()}
        case list():
            return [_whole(entry) for entry in value]
    return value


_DEFAULTS = {
    name: _canonical(field.default.model_dump() if isinstance(field.default, BaseModel) else field.default)
    for name, field in EditArguments.model_fields.items()
    if not field.is_required()
}


def _wanted_size(arguments: EditArguments) -> tuple[int, int] | None:
    size = arguments.image_size
    return PRESETS.get(size) if isinstance(size, str) else (size.width, size.height)


def _root_rounded_up(numerator: int, denominator: int) -> int:
    return isqrt(-(-numerator // denominator) - 1) + 1


def _or_none(value: object, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError:
        return None


_MaybeText = Annotated[Text | None, WrapValidator(_or_none)]
_MaybePixels = Annotated[Annotated[int, Field(gt=0, le=INT32_MAX)] | None, WrapValidator(_or_none)]
_MaybeBytes = Annotated[Annotated[int, Field(gt=0, le=INT64_MAX)] | None, WrapValidator(_or_none)]
_MaybeSeed = Annotated[Annotated[int, Field(ge=-INT64_MAX, le=INT64_MAX)] | None, WrapValidator(_or_none)]


class Image(BaseModel):
    """One image as the provider declares it: only `url` is certain, a wrong or odd other field counts as absent."""

    model_config = ConfigDict(strict=True, frozen=True)

    url: Annotated[Text, AfterValidator(_not_blank)] = Field(description="where it is; a data URI with sync_mode")
    content_type: _MaybeText = Field(None, description="not to be trusted: read the bytes")
    file_name: _MaybeText = None
    file_size: _MaybeBytes = Field(None, description="bytes")
    file_data: _MaybeText = None
    width: _MaybePixels = Field(None, description="pixels")
    height: _MaybePixels = Field(None, description="pixels")


class EditOutput(BaseModel):
    """The model's answer. Fewer images than asked for are legal; what else it may carry is ignored."""

    model_config = ConfigDict(strict=True, frozen=True, hide_input_in_errors=True)

    images: list[Image]
    seed: _MaybeSeed = Field(None, description="the seed that was used")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with an input: the field (None: the whole), and why, as a sentence that follows its name."""

    field: str | None
    reason: str


_KINDS = {
    bool: "true or false",
    str: "text",
    int: "a whole number",
    float: "a number with a fraction",
    list: "a list",
    dict: "an object",
    type(None): "null",
}
_SIZE_FORMS = (
    f"must be one of {', '.join(get_args(PresetName))}, or an object with width and height (in a table 1280x720)"
)
_REASONS = {
    "missing": "is missing",
    "extra_forbidden": "is not a known field",
    "string_unicode": "holds half of a surrogate pair",
    "string_type": "must be text, not {given}",
    "int_type": "must be a whole number, not {given}",
    "bool_type": "must be true or false, not {given}",
    "list_type": "must be a list, not {given}",
    "model_type": "must be an object, not {given}",
    "literal_error": "must be {expected}",
    "union_tag_not_found": _SIZE_FORMS,
    "too_long": "{actual_length} images given, at most {max_length} are allowed"
    " (the provider would drop the first ones)",
    "too_short": "at least one image is needed",
    "timezone_aware": "must name its time zone",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must not be empty",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
}
"""By pydantic's error type; what is not listed speaks for itself."""


def faults(error: ValidationError, *, names: Iterable[str] = EditArguments.model_fields) -> list[Fault]:
    """A failed validation in plain sentences; `names` are the field names that a mistyped one is compared with."""
    names = tuple(names)
    return [_fault(details, names) for details in error.errors(include_url=False)]


def _fault(details: ErrorDetails, names: tuple[str, ...]) -> Fault:
    place, reason = details["loc"], _reason(details)
    if not place:
        return Fault("num_images" if details["type"] == "too_many_images" else None, reason)
    if place[0] == "image_size":
        place = place[:1] + place[2:]  # [1] is the form that was recognised, a name or an object
        reason = _SIZE_FORMS if details["type"] == "literal_error" else reason
        names = names if len(place) == 1 else tuple(ImageSize.model_fields)
    if details["type"] == "extra_forbidden" and (near := get_close_matches(str(place[-1]), names, n=1)):
        reason += f"; did you mean {near[0]}?"
    if len(place) > 1:
        inner = f"image {place[1] + 1}" if isinstance(place[1], int) else printable(place[1])
        reason = f"{inner} {reason}"
    return Fault(printable(place[0]), reason)


def _reason(details: ErrorDetails) -> str:
    template = _REASONS.get(details["type"])
    if template is None:
        return details["msg"].replace("Input should be", "must be")
    given = _KINDS.get(type(details["input"]), "something else")
    return template.format(given=given, **details.get("ctx", {}))


def printable(name: int | str) -> str:
    """A name that came from outside, fit for a log line and a terminal."""
    text = str(name)
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= 64 else text[:63] + "…"
