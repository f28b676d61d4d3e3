"""How far a client of the intake API may put itself before the others: a bound on priority, per API key's name."""

from collections.abc import Mapping

LOWEST, HIGHEST = -(2**15), 2**15 - 1
"""What the column takes."""
EVERYONE = ""
"""Stands for every client that has no bound of its own."""


def read_bounds(text: str) -> Mapping[str, int]:
    """The bounds in a comma list of `name:number`, with one plain number for everyone else.

    Raises:
        ValueError: it is no such list.
    """
    bounds: dict[str, int] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, number = part.rpartition(":")
        if name in bounds or not _is_priority(number):
            raise ValueError("it must be a number, or a comma list of name:number and one number for everyone else")
        bounds[name] = int(number)
    if EVERYONE not in bounds:
        raise ValueError("it names no number for everyone else")
    return bounds


def _is_priority(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 6 and LOWEST <= int(text) <= HIGHEST


def highest_priority(bounds: Mapping[str, int], client: str) -> int:
    """The highest priority that a client may give."""
    return bounds.get(client, bounds[EVERYONE])
