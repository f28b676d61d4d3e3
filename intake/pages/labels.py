"""How values are written on the page: short, and the same everywhere."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

UNITS = ((86400, "d"), (3600, "h"), (60, "min"))
NOTHING = "–"


def write_duration(value: timedelta | float | Decimal | None) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`, `4 d 3 h`."""
    if value is None:
        return NOTHING
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if seconds < 0:
        return f"-{write_duration(-seconds)}"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    for place, (size, unit) in enumerate(UNITS):
        if seconds >= size:
            below, name = (*UNITS, (1, "s"))[place + 1]
            rest = int(seconds % size // below)
            return f"{int(seconds // size)} {unit}" + (f" {rest} {name}" if rest else "")
    return NOTHING


def write_age(moment: datetime | None, now: datetime) -> str:
    """`3 min ago`, `in 20 s`."""
    if moment is None:
        return NOTHING
    seconds = (now - moment).total_seconds()
    return f"in {write_duration(-seconds)}" if seconds < -0.5 else f"{write_duration(max(0.0, seconds))} ago"


def write_moment(moment: datetime | str | None) -> str:
    """`2026-11-26 14:03:07 UTC`; JSON has moments as text."""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if moment else NOTHING


def write_money(amount: Decimal | float | None) -> str:
    """`$0.00`, `$12.34`, `$1,200.00`; small amounts with a third place where they have one."""
    if amount is None:
        return NOTHING
    value = Decimal(amount)
    small = abs(value) < Decimal("0.10") and value != round(value, 2)
    return f"${value:,.3f}" if small else f"${value:,.2f}"


def write_bytes(number: float | Decimal | None) -> str:
    """`940 B`, `1.8 MB`, in powers of a thousand."""
    if number is None:
        return NOTHING
    value = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def write_number(number: float | Decimal | None) -> str:
    """`12,400`."""
    return NOTHING if number is None else f"{number:,}"


FILTERS: dict[str, Callable[..., Any]] = {
    "duration": write_duration,
    "age": write_age,
    "moment": write_moment,
    "money": write_money,
    "size": write_bytes,
    "number": write_number,
}
"""For the templates."""
