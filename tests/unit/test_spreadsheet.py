"""A CSV manifest says the same as a JSONL manifest, and every faulty row is named by the line it begins on."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intake.manifest import LINE_MAX_BYTES, FaultyLine, NewEdit, read_jsonl
from intake.spreadsheet import read_csv, reader_for

URL = "https://example.com/a.png"


def read(text: str | bytes, **options: bool) -> list[NewEdit | FaultyLine]:
    return list(read_csv(io.BytesIO(text.encode() if isinstance(text, str) else text), **options))


def told(text: str | bytes) -> list[str]:
    return [str(entry) for entry in read(text) if isinstance(entry, FaultyLine)]


def test_a_row_is_the_edit_that_its_jsonl_line_would_be() -> None:
    """Every field of the model, in the types that it wants."""
    names = "custom_id,prompt,image_urls,image_urls,image_size,num_images,max_images,seed,sync_mode,"
    text = (
        f"\ufeff{names}enable_safety_checker,enhance_prompt_mode\r\n"
        f'a,"Put a ""hat"" on,\r\nplease",{URL},{URL}?2,1280x720,2,3,7,TRUE,false,fast\r\n'
        f'b,plain,"[""{URL}"", ""{URL}?3""]",,auto_2K,,,,,,\r\n'
    )
    first, second = read(text)
    assert isinstance(first, NewEdit)
    assert isinstance(second, NewEdit)
    assert (first.line, first.custom_id, first.seed, first.expected_images) == (2, "a", 7, 6)
    assert first.arguments == {
        "prompt": 'Put a "hat" on,\r\nplease',
        "image_urls": [URL, f"{URL}?2"],
        "image_size": {"width": 1280, "height": 720},
        "num_images": 2,
        "max_images": 3,
        "seed": 7,
        "sync_mode": True,
        "enable_safety_checker": False,
        "enhance_prompt_mode": "fast",
    }
    assert (second.line, second.arguments["image_urls"]) == (4, [URL, f"{URL}?3"])


def test_faults_are_those_of_the_schema() -> None:
    """What a cell cannot be is told in the words of every other door; blank rows are no rows."""
    text = f"prompt,image_urls,seed\nx,{URL},1\n\nx,,\nx,{URL},many\nx,{URL},1,more\n"
    assert told(text) == [
        "line 4: image_urls: is missing",
        "line 5: seed: must be a whole number, not text",
        "line 6: has 4 cells, the first row names 3",
    ]


def test_a_wrong_first_row_is_told_once() -> None:
    """A hundred thousand rows do not repeat it."""
    text = "promt,image_urls,seed,seed\n" + f"x,{URL},1,2\n" * 100
    assert told(text) == [
        "line 1: promt: is no known field; did you mean prompt?",
        "line 1: seed: stands twice",
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f'prompt,image_urls\n"x"y,{URL}\n', "line 2: ',' expected after '\"'; nothing after it was read"),
        (f'prompt,image_urls\n"x,{URL}\n', "line 2: unexpected end of data; nothing after it was read"),
        (b"prompt,image_urls\n\xff,x\n", "line 2: is not UTF-8; nothing after it was read"),
        (
            b"prompt\n" + b"x" * (LINE_MAX_BYTES + 2),
            f"line 2: is longer than {LINE_MAX_BYTES} bytes; nothing after it was read",
        ),
    ],
    ids=["quote", "end", "encoding", "length"],
)
def test_what_is_no_csv_ends_the_reading(text: str | bytes, reason: str) -> None:
    """Where the next row begins can no longer be told; the manifest is faulty."""
    assert told(text) == [reason]


def test_reader_by_name() -> None:
    """The ending decides."""
    assert reader_for("Batch.CSV") is read_csv
    assert reader_for("batch.jsonl") is reader_for("-") is read_jsonl


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), min_size=1))
def test_any_prompt_comes_through(prompts: list[str]) -> None:
    """Quotes, commas, line ends of every kind: a prompt that JSONL takes is the same in CSV."""
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(("prompt", "image_urls"))
    writer.writerows((prompt, URL) for prompt in prompts)
    lines = "\n".join(json.dumps({"prompt": prompt, "image_urls": [URL]}) for prompt in prompts)
    expected = [
        entry.arguments if isinstance(entry, NewEdit) else None for entry in read_jsonl(io.BytesIO(lines.encode()))
    ]
    assert [entry.arguments if isinstance(entry, NewEdit) else None for entry in read(table.getvalue())] == expected
