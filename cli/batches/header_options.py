"""What a person may say about a batch as a whole, as options of the command line.

Each becomes the field of `BatchHeader` of the same meaning, which alone judges it.
"""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from pydantic import ValidationError

from core.errors import UserError
from intake.batches import BatchHeader
from models.seedream import faults

OPTIONS = {
    "tolerated_failures": "--tolerate",
    "tolerated_failure_percent": "--tolerate",
    "metadata": "--metadata",
}
"""Where the option is not called as its field is."""
_DURATION = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?")
_UNITS = ("days", "hours", "minutes", "seconds")

Command = Callable[..., Any]

_HEADER_OPTIONS = (
    click.option("--name", help="What to call the batch."),
    click.option("--priority", type=int, default=0, show_default=True, help="Higher goes first."),
    click.option("--idempotency-key", metavar="K", help="The same key and content again is the same batch."),
    click.option("--max-cost", metavar="USD", help="Nothing is submitted that could cost more in the worst case."),
    click.option("--max-in-flight", type=int, metavar="N", help="Edits of it at the provider at one time."),
    click.option("--max-attempts", type=int, metavar="N", help="Paid attempts per edit on transient errors."),
    click.option("--tolerate", metavar="N|N%", help="More failed edits than this cancel the rest."),
    click.option("--deadline", metavar="WHEN", help="What is not submitted by then is cancelled: 2h, or an ISO time."),
    click.option("--output-expires-after", metavar="LENGTH", help="Delete its images so long after its end: 30d, 12h."),
    click.option(
        "--check-inputs",
        type=click.Choice(["none", "sample", "all"]),
        default="none",
        show_default=True,
        help="Look at inputs before anything is paid: a sample of 100, or all. With --dry-run: now.",
    ),
    click.option("--notify-url", metavar="URL", help="Whom to tell when it has ended."),
    click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Kept with the batch; repeatable."),
)

on_invalid_option = click.option(
    "--on-invalid",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="What faulty lines do: write nothing at all, or stand in the batch as failed.",
)

convert_option = click.option(
    "--convert",
    is_flag=True,
    help="Send local files that the model may not take (HEIC, TIFF, CMYK, turned, …) as PNG or JPEG.",
)


def header_options(command: Command) -> Command:
    """The options of a batch's header."""
    for option in reversed(_HEADER_OPTIONS):
        command = option(command)
    return command


def header_from(
    *,
    tolerate: str | None = None,
    deadline: str | datetime | None = None,
    metadata: Sequence[str] | dict[str, Any] = (),
    output_expires_after: str | int | None = None,
    **given: Any,
) -> BatchHeader:
    """The header that the options describe; what was not given stays unset.

    Raises:
        UserError: an option's value is wrong.
    """
    if isinstance(deadline, str) and given.get("idempotency_key") and _length(deadline) is not None:
        raise UserError("--deadline as a duration is another one at every call; with --idempotency-key give a time.")
    if empty := [name for name, value in given.items() if value == ""]:
        raise UserError(f"{option_of(empty[0])} is empty.")
    fields = {name: value for name, value in given.items() if value is not None}
    if tolerate is not None:
        fields |= _tolerance(tolerate)
    if deadline is not None:
        fields["deadline"] = moment(deadline, "--deadline", ahead=True) if isinstance(deadline, str) else deadline
    if output_expires_after is not None:
        fields["output_expires_after"] = _seconds(output_expires_after, "--output-expires-after")
    if metadata:
        fields["metadata"] = metadata if isinstance(metadata, dict) else _pairs(metadata)
    try:
        return BatchHeader(**fields)
    except ValidationError as error:
        reasons = [f"{option_of(fault.field)}: {fault.reason}" for fault in faults(error, names=fields)]
        raise UserError("; ".join(reasons) + ".") from None


def option_of(field: str | None) -> str:
    """The option with which a person gives a field."""
    name = field or ""
    return OPTIONS.get(name) or f"--{name.replace('_', '-')}"


def moment(given: str, option: str, *, ahead: bool) -> datetime:
    """An ISO time, local unless it says otherwise, or a duration such as 2h or 1d12h from now on or back.

    Raises:
        UserError: it is neither, or has passed where it should be ahead.
    """
    now = datetime.now(UTC)
    try:
        length = _length(given)
        if length is None:
            found = datetime.fromisoformat(given).astimezone()
        else:
            found = now + length if ahead else now - length
    except (ValueError, OverflowError):
        raise UserError(f"{option} {given!r} is neither a duration, as 90m or 2h, nor an ISO time.") from None
    if ahead and found <= now:
        raise UserError(f"{option} {given!r} has passed already.")
    return found


def _seconds(given: str | int, option: str) -> int:
    try:
        length = _length(given) if isinstance(given, str) else timedelta(seconds=given)
    except OverflowError:
        length = None
    if length is None:
        raise UserError(f"{option} {given!r} is no duration, as 30d, 12h or 1d12h.")
    return int(length.total_seconds())


def _length(given: str) -> timedelta | None:
    parts = _DURATION.fullmatch(given.strip())
    if parts is None or not given.strip():
        return None
    return timedelta(**{unit: int(part) for unit, part in zip(_UNITS, parts.groups(), strict=True) if part})


def _tolerance(given: str) -> dict[str, Any]:
    number = given.removesuffix("%").strip()
    if not re.fullmatch(r"\d{1,12}(\.\d{1,6})?" if given.endswith("%") else r"\d{1,12}", number):
        raise UserError(f"--tolerate {given!r} is neither a number of edits, as 5, nor a share of them, as 2.5%.")
    return {"tolerated_failure_percent": number} if given.endswith("%") else {"tolerated_failures": int(number)}


def _pairs(given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UserError(f"--metadata {pair!r} is not of the form KEY=VALUE.")
        if key in found:
            raise UserError(f"--metadata names {key} twice.")
        found[key] = value
    return found
