"""The model's input: which bodies it takes and what it says about the others (provider-protocol 9.1, 5.2).

Checks are hand-written, because the point is fal's words for a mistake, not ours. Unknown keys are ignored.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import sizes
from .options import Options
from .verdicts import detail

MAX_INPUTS = 10  # more may be sent; only the last ten are used
MAX_IMAGES = 15  # inputs and outputs together
WIDEST_SHAPE = 16  # this emulator's own bound, so that a 1 x 4000 image is not scaled up to 61 440 pixels


class InvalidInput(Exception):
    """The body is not a valid input; carries the entries of `detail`."""

    def __init__(self, *details: Mapping[str, Any]) -> None:
        super().__init__(details[0]["msg"])
        self.details = details


@dataclass(frozen=True, slots=True)
class Arguments:
    """A valid input. `size` is None for the `auto*` names, whose size depends on the images."""

    prompt: str
    image_urls: tuple[str, ...]
    size: tuple[int, int] | None
    size_name: str
    num_images: int
    max_images: int
    seed: int | None
    sync_mode: bool
    enhance_prompt_mode: str

    @property
    def output_count(self) -> int:
        """The most images that it may return."""
        return self.num_images * self.max_images


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body."""
    try:
        given = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(detail("json_invalid", ["body"], f"JSON decode error: {error}")) from error
    if not isinstance(given, dict):
        raise InvalidInput(detail("model_attributes_type", ["body"], "Input should be a valid dictionary", given=given))
    return given


def read(body: bytes, options: Options) -> Arguments:
    """The arguments of one request, or InvalidInput with everything that is wrong with them."""
    form = Form(parse_object(body))
    prompt = form.text("prompt")
    urls = form.texts("image_urls")
    size, size_name = _image_size(form, options.max_side)
    num_images = form.integer("num_images", 1, low=1, high=6)
    max_images = form.integer("max_images", 1, low=1, high=6)
    seed = form.integer("seed", None)
    sync_mode = form.flag("sync_mode", default=False)
    form.flag("enable_safety_checker", default=True)
    enhance = form.choice("enhance_prompt_mode", "standard", ("standard", "fast"))
    if form.errors:
        raise InvalidInput(*form.errors)
    used = tuple(urls[-MAX_INPUTS:])
    outputs = (num_images or 1) * (max_images or 1)
    if len(used) + outputs > MAX_IMAGES and options.over_fifteen == "refuse":
        msg = f"The total number of images (inputs + outputs) must not exceed {MAX_IMAGES}"
        raise InvalidInput(detail("value_error", ["body"], f"Value error, {msg}"))
    return Arguments(prompt, used, size, size_name, num_images or 1, max_images or 1, seed, sync_mode, enhance)


class Form:
    """Reads fields one by one and collects what is wrong, as the real model does."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = given
        self.errors: list[dict[str, Any]] = []

    def wrong(self, kind: str, name: str | tuple[str | int, ...], msg: str, given: Any, **ctx: Any) -> None:
        """Note one mistake."""
        loc = ("body", *((name,) if isinstance(name, str) else name))
        self.errors.append(detail(kind, loc, msg, ctx=ctx, given=given))

    def text(self, name: str) -> str:
        """A required string."""
        if name not in self.given:
            self.wrong("missing", name, "Field required", dict(self.given))
        elif not isinstance(self.given[name], str):
            self.wrong("string_type", name, "Input should be a valid string", self.given[name])
        else:
            return str(self.given[name])
        return ""

    def texts(self, name: str) -> list[str]:
        """A required list of strings with at least one entry."""
        value = self.given.get(name)
        if name not in self.given:
            self.wrong("missing", name, "Field required", dict(self.given))
        elif not isinstance(value, list):
            self.wrong("list_type", name, "Input should be a valid list", value)
        elif not value:
            self.wrong("sequence_too_short", name, "List should have at least 1 item", value, min_length=1)
        else:
            for position, entry in enumerate(value):
                if not isinstance(entry, str):
                    self.wrong("string_type", (name, position), "Input should be a valid string", entry)
            return [entry for entry in value if isinstance(entry, str)]
        return []

    def integer(self, name: str, default: int | None, *, low: int | None = None, high: int | None = None) -> int | None:
        """An optional whole number; a number in a string counts, as pydantic has it."""
        value = self.given.get(name, default)
        if value is None and default is None:
            return None
        number = self.whole(name, value)
        if number is not None and low is not None and number < low:
            self.wrong("greater_than_equal", name, f"Input should be greater than or equal to {low}", value, ge=low)
        if number is not None and high is not None and number > high:
            self.wrong("less_than_equal", name, f"Input should be less than or equal to {high}", value, le=high)
        return number

    def whole(self, name: str | tuple[str | int, ...], value: Any) -> int | None:
        """The value as an int, or None and a noted mistake."""
        if isinstance(value, int | float):
            if value == value and abs(value) != float("inf") and value == int(value):
                return int(value)
            msg = "Input should be a valid integer, got a number with a fractional part"
            self.wrong("int_from_float", name, msg, value)
        elif isinstance(value, str):
            try:
                return int(value)
            except ValueError:
                msg = "Input should be a valid integer, unable to parse string as an integer"
                self.wrong("int_parsing", name, msg, value)
        else:
            self.wrong("int_type", name, "Input should be a valid integer", value)
        return None

    def flag(self, name: str, *, default: bool) -> bool:
        """An optional boolean."""
        value = self.given.get(name, default)
        if value in (True, "true", "True", 1, "1"):
            return True
        if value in (False, "false", "False", 0, "0"):
            return False
        self.wrong(
            "bool_parsing" if isinstance(value, str) else "bool_type", name, "Input should be a valid boolean", value
        )
        return default

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        """One of a few words."""
        value = self.given.get(name, default)
        if value not in choices:
            self.literal(name, value, choices)
            return default
        return str(value)

    def literal(self, name: str, value: Any, choices: tuple[str, ...]) -> None:
        """The mistake of naming something that is not on the list."""
        expected = " or ".join((", ".join(f"'{c}'" for c in choices[:-1]), f"'{choices[-1]}'"))
        self.wrong("literal_error", name, f"Input should be {expected}", value, expected=expected)


def _image_size(form: Form, max_side: int) -> tuple[tuple[int, int] | None, str]:
    value = form.given.get("image_size")
    if value is None:
        return sizes.DEFAULT, "default"
    if isinstance(value, dict):
        return _custom_size(form, value, max_side), "custom"
    if not isinstance(value, str) or value not in sizes.NAMES:
        form.literal("image_size", value, sizes.NAMES)
        return None, ""
    if value in sizes.AUTO_AREAS:
        return None, value
    return sizes.at_least_minimum(*sizes.PRESETS[value]), value


def _custom_size(form: Form, value: Mapping[str, Any], max_side: int) -> tuple[int, int] | None:
    sides = []
    for name in ("width", "height"):
        loc = ("image_size", name)
        given = value.get(name, sizes.OBJECT_DEFAULT)
        side = form.whole(loc, given)
        if side is not None and side <= 0:
            form.wrong("greater_than", loc, "Input should be greater than 0", given, gt=0)
        elif side is not None and side > max_side:
            form.wrong("less_than_equal", loc, f"Input should be less than or equal to {max_side}", given, le=max_side)
        elif side is not None:
            sides.append(side)
    if len(sides) < 2:
        return None
    if max(sides) > WIDEST_SHAPE * min(sides):
        msg = f"Value error, one side is more than {WIDEST_SHAPE} times the other"
        form.wrong("value_error", "image_size", msg, dict(value))
        return None
    return sizes.at_least_minimum(sides[0], sides[1])
