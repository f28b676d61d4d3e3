"""What one check of `darkroom doctor` found."""

from enum import StrEnum
from typing import NamedTuple


class ResultKind(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """Works, or is best effort; worth a look."""
    FAULT = "fault"
    """Something stands still or is wrong until somebody does something."""


class CheckResult(NamedTuple):
    """One line: what was looked at, how it is, and what to do about it."""

    check: str
    result: ResultKind
    message: str
    advice: str = ""


def ok(check: str, message: str) -> CheckResult:
    """All is well."""
    return CheckResult(check, ResultKind.OK, message)


def warning(check: str, message: str, advice: str = "") -> CheckResult:
    """Worth a look."""
    return CheckResult(check, ResultKind.WARNING, message, advice)


def failure(check: str, message: str, advice: str = "") -> CheckResult:
    """Something has to be done."""
    return CheckResult(check, ResultKind.FAULT, message, advice)
