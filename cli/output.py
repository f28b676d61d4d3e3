"""How the desk speaks: one object or line on standard output, what is only for people on standard error.

Colours and redrawing only on a terminal. With `--json` standard output carries JSON and nothing else.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import click
from rich.console import Console

screen = Console(highlight=False)
aside = Console(stderr=True, highlight=False)

SHOWN_WARNINGS = 10

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON: one object, or one object a line.")


def _plain(value: object) -> object:
    match value:
        case datetime():
            return value.isoformat()
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case UUID():
            return str(value)
        case _:
            raise TypeError(f"no JSON for {type(value).__name__}")


def print_json(value: Mapping[str, Any]) -> None:
    """One object on one line, at once."""
    print(json.dumps(value, default=_plain, ensure_ascii=False), flush=True)


def print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Names and values, aligned; a value may hold markup."""
    shown = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        screen.print(f"[dim]{name:<{width}}[/]  {value}", soft_wrap=True)


def plural(number: int, noun: str) -> str:
    """So many of something, in words."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def print_warnings(warnings: Sequence[str]) -> None:
    """The first few, on standard error."""
    for warning in warnings[:SHOWN_WARNINGS]:
        aside.print(f"warning: {warning}", markup=False, soft_wrap=True)
    if len(warnings) > SHOWN_WARNINGS:
        aside.print(f"warning: {len(warnings) - SHOWN_WARNINGS} more of other kinds", markup=False)
