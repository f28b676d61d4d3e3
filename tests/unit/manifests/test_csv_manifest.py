"""A CSV manifest says the same as a JSONL manifest, and every faulty row is named by the line it begins on."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intake.csv_manifest import read_csv
from intake.manifest import LINE_MAX_BYTES, FaultyLine, ManifestFaults, NewEdit, read_jsonl

URL = "https://example.com/a.png"


def read(text: str | bytes, **options: bool) -> list[NewEdit | FaultyLine]:
    return list(read_csv(io.BytesIO(text.encode() if isinstance(text, str) else text), **options))


def find_faults(text: str | bytes) -> list[str]:
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
    """What a cell cannot be is told in the words of every other entry point; blank rows are no rows."""
    text = f"prompt,image_urls,seed\nx,{URL},1\n\nx,,\nx,{URL},many\nx,{URL},1,more\n"
    assert find_faults(text) == [
        "line 4: image_urls: is missing",
        "line 5: seed: must be a whole number, not text",
        "line 6: has 4 cells, the first row names 3",
    ]


def refused(text: str | bytes) -> list[str]:
    """Why nothing of the manifest may be taken, whatever becomes of faulty lines."""
    with pytest.raises(ManifestFaults) as caught:
        read(text)
    return str(caught.value).splitlines()


def test_a_wrong_first_row_is_told_once() -> None:
    """A hundred thousand rows do not repeat it, and with `skip` they are not lost."""
    text = "promt,image_urls,seed,seed\n" + f"x,{URL},1,2\n" * 100
    assert refused(text) == [
        "line 1: promt: is no known field; did you mean prompt?",
        "line 1: seed: stands twice",
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            f'prompt,image_urls\n"x"y,{URL}\n',
            "line 2: a cell goes on behind its closing quote; inside a cell a quote is doubled; "
            "nothing after it was read",
        ),
        (f'prompt,image_urls\n"x,{URL}\n', "line 2: a cell's quote is never closed; nothing after it was read"),
        (
            b"prompt\n" + b"x" * (LINE_MAX_BYTES + 2),
            f"line 2: is longer than {LINE_MAX_BYTES} bytes; nothing after it was read",
        ),
    ],
    ids=["quote", "end", "length"],
)
def test_what_is_no_csv_ends_the_reading(text: str | bytes, reason: str) -> None:
    """Where the next row begins can no longer be told; nothing of the manifest may be taken, `skip` or not."""
    assert refused(text) == [reason]


def test_a_row_in_another_encoding_is_one_faulty_row() -> None:
    """The rows after it are read, also where it holds a quoted line end; nothing is guessed."""
    rows = ["é,{}", '"two\r\nlines é",{}', "ok,{}"]
    text = "prompt,image_urls\r\n" + "\r\n".join(row.format(URL) for row in rows) + "\r\n"
    entries = read(text.encode("cp1252"))
    assert [type(entry) for entry in entries] == [FaultyLine, FaultyLine, NewEdit]
    assert [entry.line for entry in entries] == [2, 3, 5]
    expected = "is not UTF-8 (byte 1): 0xE9 stands there; save the file as UTF-8, in Excel as CSV UTF-8"
    assert str(entries[0]) == f"line 2: {expected}"


@pytest.mark.parametrize("separator", ["\t", ";", ",", "|"])
@pytest.mark.parametrize("announced", [False, True])
def test_the_separator_is_found(separator: str, announced: bool) -> None:
    """By the names of the first row, or by the line that Excel writes for itself."""
    rows = (("seed", "prompt", "image_urls"), ("3", "a, b; c", URL))
    lines = [separator.join(f'"{cell}"' for cell in row) for row in rows]
    text = "\n".join([f"sep={separator}"] * announced + lines)
    [edit] = read(text)
    assert isinstance(edit, NewEdit), edit
    assert (edit.line, edit.arguments["prompt"], edit.seed) == (2 + announced, "a, b; c", 3)


@pytest.mark.parametrize(
    ("cell", "images"),
    [
        (f"{URL},{URL}?2", [URL, f"{URL}?2"]),
        (f"{URL} ; {URL}?2", [URL, f"{URL}?2"]),
        (f"{URL}|{URL}?2,", [URL, f"{URL}?2,"]),
        (f"{URL}\n{URL}?2\n", [URL, f"{URL}?2"]),
        (f" {URL} ", [URL]),
        (f"{URL},data:image/png;base64,AAAA", [URL, "data:image/png;base64,AAAA"]),
        ("https://example.com/w_200,h_100/a.png", ["https://example.com/w_200,h_100/a.png"]),
        (
            "https://example.com/fetch/https://example.com/a.png",
            ["https://example.com/fetch/https://example.com/a.png"],
        ),
        ("a.png;in/b 1.JPG", ["a.png", "in/b 1.JPG"]),
        (f"a.png,{URL}", ["a.png", URL]),
        ("a,b.png", ["a,b.png"]),
        ("a b.png", ["a b.png"]),
        (f'["{URL}"]', [URL]),
        ("[2024] b.png", ["[2024] b.png"]),
    ],
)
def test_several_images_in_one_cell(cell: str, images: list[str]) -> None:
    """Split where it is certain that they are several; what may be one name or one URL stays one."""
    table = io.StringIO(newline="")
    csv.writer(table).writerows([("prompt", "image_urls"), ("x", cell)])
    [edit] = read(table.getvalue(), local_paths=True)
    assert isinstance(edit, NewEdit), edit
    assert edit.arguments["image_urls"] == images


def test_columns_that_nobody_named() -> None:
    """Row numbers of pandas and commas at the end are passed over; anything else in such a column is a fault."""
    text = f",prompt,image_urls,\n0,x,{URL},\n17,y,{URL}\n2,z,{URL},,,\nfoo,x,{URL}\n3,x,{URL},note\n4,x,{URL},,note\n"
    entries = read(text)
    assert [type(entry) for entry in entries] == [NewEdit] * 3 + [FaultyLine] * 3
    assert [str(entry) for entry in entries[3:]] == [
        "line 5: has something in column 1, which has no name",
        "line 6: has something in column 4, which has no name",
        "line 7: has 5 cells, the first row names 4",
    ]


def test_a_row_with_nothing_but_its_number_is_a_fault() -> None:
    """It may be an edit that was lost on the way here."""
    assert find_faults(f",prompt,image_urls\n0,x,{URL}\n1,,\n") == [
        "line 3: prompt: is missing; line 3: image_urls: is missing"
    ]


@pytest.mark.parametrize("cell", ["2.0", "2.", " 2 ", "2.00"])
def test_whole_numbers_as_spreadsheets_write_them(cell: str) -> None:
    """A column with an empty cell makes pandas write fractions."""
    [edit] = read(f"prompt,image_urls,num_images\nx,{URL},{cell}\n")
    assert isinstance(edit, NewEdit), edit
    assert edit.arguments["num_images"] == 2


@pytest.mark.parametrize("cell", ["#REF!", "#N/A", "#NAME?"])
def test_a_formula_that_failed_is_no_prompt(cell: str) -> None:
    """It would be paid for."""
    assert find_faults(f"prompt,image_urls\n{cell},{URL}\n") == [
        f"line 2: prompt: is {cell}: a formula of the spreadsheet failed there"
    ]


@pytest.mark.parametrize("head", ["a,b", "", "name", '{"x"'])
def test_a_table_that_is_none_of_ours(head: str) -> None:
    """It is told once what a first row must be."""
    if head:
        assert refused(f"{head}\n1,2\n") == [
            "line 1: names no field; a first row does, with a comma, a semicolon, a tab or | between the names"
        ]
    else:
        assert read("\n\n") == []


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
