"""How a contact sheet looks as HTML: one file that loads nothing. Knows no database and no store.

Whatever a prompt or a name holds is shown and never obeyed: it is escaped, and the page's policy allows no script and
nothing from elsewhere.
"""

import html
import os
from collections.abc import Sequence
from importlib.resources import files
from typing import NamedTuple
from urllib.parse import quote

from rich.filesize import decimal

from cli.batches.progress import Row, duration
from cli.streams import show_controls
from models.states import FINAL

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
SHOWN_PROMPT = 4_000
"""Characters of a prompt."""
LONG_TEXT = 300
"""Characters that may not fit into the nine lines of a card."""


class Shown(NamedTuple):
    """One image of a card: a data URI, or why there is none."""

    source: str | None
    reason: str = ""


def head(row: Row, number: int, previous: str | None) -> str:
    """How a page begins; `row` is that of `batch_progress`."""
    title = _text(row["name"] or row["batch_id"])
    facts = [f"{row['stored']} of {row['edits']} edits stored"]
    if row["failed"]:
        facts.append(f"<strong>{row['failed']} failed</strong>")
    facts += [f"created {row['created_at'].astimezone():%Y-%m-%d %H:%M %Z}", f"<code>{row['batch_id']}</code>"]
    page = f", page {number}" if number > 1 or previous else ""
    styles = files("cli.batches").joinpath("html_sheet.css").read_text()
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}{page}</title>
<style>
{styles}</style>
</head>
<body>
<header>
<h1 dir="auto">{title}</h1>
<p>{" · ".join(facts)}{page}</p>
{_link(previous, "previous page", "prev")}
<p class="filter"><input type="checkbox" id="failures"> <label for="failures">only failures</label></p>
</header>
<main>
"""


def foot(note: str, following: str | None) -> str:
    """How it ends: what is not on it, and where it goes on."""
    said = f"<p>{_text(note)}</p>\n" if note else ""
    return f"</main>\n<footer>\n{said}{_link(following, 'next page', 'next')}</footer>\n</body>\n</html>\n"


def card(edit: Row, before: Sequence[Shown], after: Sequence[Shown]) -> str:
    """One edit: its inputs beside its images, and what is known of it."""
    name, state, prompt = _text(edit["name"]), edit["state"], _text(_cut(edit["prompt"] or ""))
    more = int(edit["inputs"] or 0) - len(before)
    rest = f", and {more} more" if more > 0 else ""
    waiting = "no image" if state in FINAL else "no image yet"
    return f"""<article class="{state}" id="edit-{edit["position"]}">
<h2 dir="auto">{name} <span class="state">{state}</span></h2>
<div class="pair">
<section><h3>before{rest}</h3>{_images(before, f"input of {name}", "no input")}</section>
<section><h3>after</h3>{_images(after, f"image of {name}", waiting)}</section>
</div>
{_error(edit["error"])}<p class="prompt" dir="auto"{_focus(prompt)}>{prompt}</p>
<dl>{"".join(f"<div><dt>{fact}</dt><dd>{_text(value)}</dd></div>" for fact, value in _facts(edit))}</dl>
</article>
"""


def _facts(edit: Row) -> list[tuple[str, object]]:
    sizes = [f"{image['width']}×{image['height']}, {decimal(image['bytes'])}" for image in edit["images"]]
    took = (edit["finished_at"] - edit["created_at"]).total_seconds() if edit["finished_at"] else None
    facts = [
        ("position", edit["position"]),
        ("seed", edit["seed"]),
        ("asked for", _size(edit["image_size"])),
        ("size", " · ".join(sizes)),
        ("attempts", edit["attempt"] if edit["attempt"] > 1 else None),
        ("cost", f"${edit['cost']:.2f}" if edit["cost"] else None),
        ("took", duration(took) if took is not None else None),
    ]
    return [(name, value) for name, value in facts if value not in (None, "")]


def _size(wanted: object) -> object:
    return f"{wanted.get('width', 512)}×{wanted.get('height', 512)}" if isinstance(wanted, dict) else wanted


def _focus(text: str) -> str:
    """What may be long enough to scroll can be reached with the keyboard."""
    return ' tabindex="0"' if len(text) > LONG_TEXT else ""


def _images(images: Sequence[Shown], label: str, nothing: str) -> str:
    if not images:
        return f'<div class="none">{nothing}</div>'
    return "".join(
        f'<img src="{html.escape(image.source)}" alt="{label}" loading="lazy" decoding="async">'
        if image.source
        else f'<div class="none">{_text(image.reason)}</div>'
        for image in images
    )


def _error(error: Row | None) -> str:
    if not error:
        return ""
    message = _text(_cut(str(error.get("message") or "")))
    return f'<p class="error" dir="auto"{_focus(message)}><strong>{_text(error.get("type"))}</strong> {message}</p>\n'


def _link(target: str | None, text: str, relation: str) -> str:
    return f'<p><a rel="{relation}" href="{quote(os.fsencode(target))}">{text}</a></p>\n' if target else ""


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_PROMPT else f"{text[:SHOWN_PROMPT]}… ({len(text)} characters)"


def _text(value: object) -> str:
    return html.escape(show_controls(str(value)))
