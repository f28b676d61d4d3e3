"""Any text, on a terminal of any encoding and width: shown or degraded, no error, no raw control character."""

import io
import json
import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli import output
from cli.streams import prepare_streams

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
ENCODINGS = st.sampled_from(["ascii", "latin-1", "cp1252", "cp437", "koi8-r", "shift_jis", "utf-8", "utf-16"])
WIDTHS = st.sampled_from([-5, 0, 1, 20, 40, 79, 200])


@settings(max_examples=150)
@given(text=st.text(max_size=60), encoding=ENCODINGS, width=WIDTHS)
def test_whatever_is_shown(text: str, encoding: str, width: int) -> None:
    """A name in a table of pairs, in a warning and in JSON."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        for name in ("stdout", "stderr"):
            patch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline=""))
        patch.setattr(output, "screen", type(output.screen)(highlight=False, emoji=False, soft_wrap=True))
        patch.setattr(output, "stderr", type(output.stderr)(stderr=True, highlight=False, emoji=False, soft_wrap=True))
        prepare_streams()
        output.print_pairs([("name", output.escape(text) or "-"), ("id", "4d32b7fb-db1b-4753-8d31-188ecf7d87cc")])
        output.print_warnings([text])
        output.print_json({"name": text.encode(errors="replace").decode()})
        said = []
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            said.append(stream.buffer.getvalue().decode(encoding))
    lines = said[0].split("\n")
    assert not CONTROL.search("".join(said))
    assert len(lines) == 4  # a record is a line, and the last one ends
    assert "4d32b7fb-db1b-4753-8d31-188ecf7d87cc" in lines[1]
    assert json.loads(lines[2])["name"] == text.encode(errors="replace").decode()
