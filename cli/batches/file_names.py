"""What copies of images are called: a template with fields in braces, checked before anything is copied."""

import re
from pathlib import PurePosixPath
from typing import Any

from core.errors import UserError

FIELDS = ("batch_id", "custom_id", "position", "index", "seed", "sha256")
_FIELD = re.compile(r"\{(\w*)(?::(0?[1-9]\d?))?\}")
_NUMBERS = {"position", "index", "seed"}


class FileNames:
    """Makes names of one template."""

    def __init__(self, template: str) -> None:
        """Check the template.

        Raises:
            UserError: what is wrong with it.
        """
        self._template = template
        fields = [_check_field(match) for match in _FIELD.finditer(template)]
        rest = _FIELD.sub("x", template)
        if "{" in rest or "}" in rest:
            raise UserError(f"--name {template!r} holds a brace that belongs to no field; fields are {_listed()}.")
        if "sha256" not in fields and not ("index" in fields and {"custom_id", "position"} & set(fields)):
            raise UserError(
                f"--name {template!r} would give two images one name; it needs {{index}}, and {{custom_id}} or "
                "{position}."
            )
        parts = rest.split("/")
        if any(part in ("", ".", "..") for part in parts) or not rest.isprintable():
            raise UserError(f"--name {template!r} is no path within the folder.")

    def name(self, extension: str, **values: Any) -> PurePosixPath:
        """The name of one image, from a value for each of `FIELDS`."""
        return PurePosixPath(_FIELD.sub(lambda match: _fill(match, values), self._template) + extension)


def _check_field(match: re.Match[str]) -> str:
    name, width = match.groups()
    if name not in FIELDS:
        raise UserError(f"--name knows no field {match[0]}; fields are {_listed()}.")
    if width and name not in _NUMBERS:
        raise UserError(f"--name: {{{name}}} is no number and takes no width.")
    return str(name)


def _fill(match: re.Match[str], values: dict[str, Any]) -> str:
    name, width = match.groups()
    return format(values[name], width or "")


def _listed() -> str:
    return ", ".join(f"{{{name}}}" for name in FIELDS)
