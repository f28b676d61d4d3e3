"""Any text, on a terminal of any encoding and width: shown or degraded, no error, no raw control character."""

import io
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli import output
from cli.batches import errors, timeline, watch_batches
from cli.batches.batch_text import error_pairs, paused_lane
from cli.batches.html_sheet_page import Shown, card, foot, head
from cli.overview import Overview, Trouble
from cli.overview_text import overview_lines
from cli.streams import prepare_streams

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
ENCODINGS = st.sampled_from(["ascii", "latin-1", "cp1252", "cp437", "koi8-r", "shift_jis", "utf-8", "utf-16"])
WIDTHS = st.sampled_from([-5, 0, 1, 20, 40, 79, 200])


@contextmanager
def terminal(encoding: str, width: int, said: list[str], *, screen: bool = False) -> Iterator[None]:
    """Standard output and error of this encoding and width; `said` gets what came out of each. `screen`: redrawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        for name in ("stdout", "stderr"):
            patch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline=""))
        console = {"highlight": False, "emoji": False, "soft_wrap": True}
        shown = type(output.screen)(**console, force_terminal=screen)
        patch.setattr(output, "screen", shown)
        patch.setattr(watch_batches, "screen", shown)
        patch.setattr(output, "stderr", type(output.stderr)(stderr=True, **console))
        prepare_streams()
        yield
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            said.append(stream.buffer.getvalue().decode(encoding))


@settings(max_examples=150)
@given(text=st.text(max_size=60), encoding=ENCODINGS, width=WIDTHS)
def test_whatever_is_shown(text: str, encoding: str, width: int) -> None:
    """A name in a table of pairs, in a warning and in JSON."""
    said: list[str] = []
    with terminal(encoding, width, said):
        output.print_pairs([("name", output.escape(text) or "-"), ("id", "4d32b7fb-db1b-4753-8d31-188ecf7d87cc")])
        output.print_warnings([text])
        output.print_json({"name": text.encode(errors="replace").decode()})
    lines = said[0].split("\n")
    assert not CONTROL.search("".join(said))
    assert len(lines) == 4  # a record is a line, and the last one ends
    assert "4d32b7fb-db1b-4753-8d31-188ecf7d87cc" in lines[1]
    assert json.loads(lines[2])["name"] == text.encode(errors="replace").decode()


FILE = "sheet \udcff.html"
"""A name that is no UTF-8, as Python has it."""
NOW = datetime(2026, 11, 27, 7, 0, tzinfo=UTC)
TEXTS = st.text(max_size=40) | st.sampled_from(
    [
        "[/]",
        "[red]x",
        "a\\\\\\",
        "[link=file:///etc]",
        "\x1b]0;x\x07",
        "\n\r\x85\u2028",
        "\ud800",
        ":skull:",
        "<script>",
    ]
)


def batch(text: str, *, over: bool) -> dict[str, Any]:
    """A row of `batch_progress`, with a name and an error of this text."""
    given: dict[str, Any] = {
        "batch_id": "4d32b7fb-db1b-4753-8d31-188ecf7d87cc",
        "name": text,
        "edits": 3,
        "failed": 1,
        "pending": 2,
        "time_left": timedelta(seconds=90),
        "finished_at": NOW if over else None,
        "provider_paused": text,
        "created_at": NOW,
        "errors": [{"type": text, "edits": 1, "failed": 1, "example": text}],
    }
    nothing = dict.fromkeys(("broken_criterion", "paused_at", "cancelled_at", "pruned_at"))
    return defaultdict(int, nothing | given)


def overview(text: str) -> Overview:
    """The system, with this text wherever one may stand."""
    pause = {"reason": text, "message": text, "paused_at": NOW, "retry_at": NOW, "subject": text}
    lane = {"lane": "submit", "due": 1, "waits": None, "last_tick_at": NOW, "last_turn_at": NOW, "last_work_at": None}
    late = {"rows": 1, "what": "edit", "state": text, "late": timedelta(1)}
    return Overview(NOW, [lane | pause], [pause], pause, [], [late], [], [], [batch(text, over=False)])


def lines_of(text: str) -> list[str]:
    """What `errors`, `timeline`, `top` and `status` print of it, a line each."""
    edit = {"custom_id": text, "state": "failed", "attempt": 1, "at": NOW, "type": text, "message": text}
    event = {"at": NOW, "what": "error", "attempt": 1, "detail": text, "message": text}
    top = overview_lines(overview(text), Trouble(3.0, text))
    pause = {"lane": "download", "subject": text, "reason": text, "message": text, "paused_at": NOW, "retry_at": NOW}
    pairs = error_pairs([{"type": text, "edits": 1, "failed": 1, "example": text}])
    said = [errors._edit_line(edit), timeline._line(event, NOW), paused_lane(pause), *(value for _, value in pairs)]
    return [*said, *filter(None, top)]


@settings(max_examples=100)
@given(text=TEXTS, encoding=ENCODINGS, width=WIDTHS)
def test_whatever_an_error_or_a_pause_says(text: str, encoding: str, width: int) -> None:
    """`errors`, `timeline`, `top`, `status`: each record one line, nothing of it taken for markup, and to its end."""
    said: list[str] = []
    lines = lines_of(text)
    with terminal(encoding, width, said):
        for line in lines:
            output.screen.print(line, soft_wrap=True)
    assert not CONTROL.search("".join(said))
    assert said[0].count("\n") == len(lines)


@settings(max_examples=60)
@given(text=TEXTS, encoding=ENCODINGS, width=WIDTHS, screen=st.booleans(), others=st.booleans())
def test_whatever_is_watched(text: str, encoding: str, width: int, screen: bool, others: bool) -> None:
    """`watch`: bars on a terminal, lines in a pipe, of one batch and of several."""
    said: list[str] = []
    with terminal(encoding, width, said, screen=screen):
        looks = [[batch(text, over=over), *([batch("", over=over)] if others else [])] for over in (False, True)]
        watch_batches.watch_batches(iter(looks))
    drawn = re.sub("\x1b\\[[0-9;?]*[A-Za-z]|\r", "", said[0]) if screen else said[0]
    assert not CONTROL.search(drawn)
    if not screen:
        assert all(len(line.split("  ")) >= 2 for line in said[0].splitlines())


class Elements(HTMLParser):
    """The elements that a browser would find."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert not any(name.startswith("on") for name, _ in attrs)
        self.found.append(tag)


def sheet(text: str) -> str:
    """An HTML contact sheet with this text wherever one may stand, between two others."""
    edit = {
        "name": text,
        "state": "failed",
        "prompt": text,
        "inputs": 3,
        "error": {"type": text, "message": text},
        "images": [],
        "finished_at": None,
        "created_at": NOW,
        "position": 0,
        "seed": 1,
        "image_size": text,
        "attempt": 2,
        "cost": 0,
    }
    return head(batch(text, over=True), 2, FILE) + card(edit, [Shown(None, text)], []) + foot(text, FILE)


@settings(max_examples=100)
@given(text=TEXTS.filter(bool))
def test_whatever_stands_on_a_contact_sheet(text: str) -> None:
    """Text stays text, and the file can be written, whatever the bytes of its name."""
    page = sheet(text)
    assert page.encode("utf-8", errors="backslashreplace")
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f]", page)
    assert Elements(page).found == Elements(sheet("plain")).found
