r"""Output of the commands: one object or line on standard output, what is only for people on standard error.

Colours and redrawing only on a terminal. With `--json` standard output carries JSON and nothing else. Whatever a
name or a message holds, no control character of it reaches a terminal, and no terminal's encoding is a fault: what
it cannot show is shown as `\\xe9` (`streams.py`). One record is one line, however narrow the terminal is.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import click
from rich import markup
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.status import Status

from cli.streams import CONTROL, OutputClosed, one_line, quote_controls, show_controls

SHOWN_WARNINGS = 10
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON: one object, or one object a line.")


class _Console(Console):
    """A console for text that came from anywhere."""

    @property
    def options(self) -> ConsoleOptions:
        found = super().options
        return found if found.max_width > 0 else found.update(max_width=80)  # COLUMNS=0 would print nothing

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or not CONTROL.search(segment.text):
                yield segment
            else:
                yield Segment(show_controls(segment.text), segment.style)

    def status(self, status: RenderableType, **options: Any) -> Status:
        options.setdefault("spinner", "dots" if self.encoding.startswith("utf") else "line")
        return super().status(status, **options)

    def on_broken_pipe(self) -> None:
        raise OutputClosed


screen = _Console(highlight=False, emoji=False, soft_wrap=True)
stderr = _Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


def escape(text: str) -> str:
    """A name or message from outside, fit for one line with markup."""
    return markup.escape(one_line(text))


def _plain(value: object) -> object:
    match value:
        case datetime():
            return value.isoformat()
        case timedelta():
            return round(value.total_seconds(), 3)
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case timedelta():
            return value.total_seconds()
        case UUID():
            return str(value)
        case _:
            raise TypeError(f"no JSON for {type(value).__name__}")


def encode_json(value: object, *, indent: int | None = None) -> str:
    """JSON for standard output, in characters that it can carry and that move no cursor."""
    unicode = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
    return quote_controls(json.dumps(value, default=_plain, ensure_ascii=not unicode, indent=indent))


def print_json(value: Mapping[str, Any]) -> None:
    """One object on one line, at once."""
    print(encode_json(value), flush=True)


def print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Names and values, aligned; a value may hold markup."""
    shown = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        screen.print(f"[dim]{name:<{width}}[/]  {value}")


def plural(number: int, noun: str) -> str:
    """So many of something, in words."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def gather_warnings(found: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Of names, and words that follow each: the same words once, after the first name."""
    names: dict[str, list[str]] = {}
    for name, words in found:
        names.setdefault(words, []).append(name)
    return tuple(
        f"{first} and {len(others)} more: each {words}" if others else f"{first} {words}"
        for words, (first, *others) in names.items()
    )


def print_warnings(warnings: Sequence[str]) -> None:
    """The first few, on standard error."""
    for warning in warnings[:SHOWN_WARNINGS]:
        stderr.print(f"warning: {one_line(warning)}", markup=False)
    if len(warnings) > SHOWN_WARNINGS:
        stderr.print(f"warning: {len(warnings) - SHOWN_WARNINGS} more of other kinds", markup=False)
