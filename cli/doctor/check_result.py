"""What one check of `darkroom doctor` found."""

from enum import StrEnum
from typing import NamedTuple


class Result(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """Works, or is best effort; worth a look."""
    FAULT = "fault"
    """Something stands still or is wrong until somebody does something."""


class Finding(NamedTuple):
    """One line: what was looked at, how it is, and what to do about it."""

    check: str
    result: Result
    message: str
    advice: str = ""


def ok(check: str, message: str) -> Finding:
    """All is well."""
    return Finding(check, Result.OK, message)


def warning(check: str, message: str, advice: str = "") -> Finding:
    """Worth a look."""
    return Finding(check, Result.WARNING, message, advice)


def fault(check: str, message: str, advice: str = "") -> Finding:
    """Something has to be done."""
    return Finding(check, Result.FAULT, message, advice)
