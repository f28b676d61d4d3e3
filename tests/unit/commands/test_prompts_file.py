"""Prompts as people keep them: a list, a spreadsheet, JSON lines, in any encoding that says what it is."""

from pathlib import Path
from typing import Any

import pytest

from cli.batches.prompts_file import Prompts, read_prompts
from core.errors import UserError
from intake.manifest import ManifestFaults

TWO = ["A red hat, please", "帽子"]
FORMS: dict[str, tuple[str, bytes]] = {
    "a list": ("p.txt", "A red hat, please\n帽子\n".encode()),
    "without its last line end": ("p.txt", "A red hat, please\n帽子".encode()),
    "Windows": ("p.txt", "\ufeffA red hat, please\r\n\r\n  帽子 \r\n\r\n".encode()),
    "old Mac": ("p.txt", "A red hat, please\r帽子\r".encode()),
    "UTF-16": ("p.txt", "A red hat, please\n帽子\n".encode("utf-16")),
    "a list with a head": ("p.txt", "Prompt\nA red hat, please\n帽子\n".encode()),
    "a name without an ending": ("prompts", "A red hat, please\n帽子\n".encode()),
    "a table of one column": ("p.csv", 'prompt\n"A red hat, please"\n帽子\n'.encode()),
    "commas at the end": ("p.csv", '\ufeffPrompt,\r\n"A red hat, please",\r\n帽子,\r\n,\r\n'.encode()),
    "a table by its head": ("p.txt", 'prompt;num_images\n"A red hat, please";\n帽子;\n'.encode()),
    "tabs": ("p.tsv", "prompt\tseed\nA red hat, please\t\n帽子\t\n".encode()),
    "JSON lines": ("p.jsonl", '{"prompt": "A red hat, please"}\n{"prompt": "帽子"}\n'.encode()),
    "said twice": ("p.txt", "A red hat, please\n帽子\nA red hat, please\n帽子\n".encode()),
}


def prompts(folder: Path, name: str, content: bytes) -> Prompts:
    path = folder / name
    path.write_bytes(content)
    return read_prompts(path)


@pytest.mark.parametrize("form", FORMS)
def test_forms(tmp_path: Path, form: str) -> None:
    """Each of these is the same two prompts, numbered from 1."""
    found = prompts(tmp_path, *FORMS[form])
    assert [prompt.fields for prompt in found.prompts] == [{"prompt": text} for text in TWO]
    assert [prompt.id for prompt in found.prompts] == ["1", "2"]
    assert found.repeated == ([3, 4] if form == "said twice" else [])


def test_fields_come_with_a_prompt(tmp_path: Path) -> None:
    """What a column says counts for each image; the same prompt with other fields is another one."""
    rows = "custom_id,prompt,num_images,image_size\nhat,Hat,2,auto\nhats,Hat,3,1280x720\n,Hat,,\n"
    found = prompts(tmp_path, "p.csv", rows.encode())
    assert [(prompt.id, prompt.fields) for prompt in found.prompts] == [
        ("hat", {"prompt": "Hat", "num_images": 2, "image_size": "auto"}),
        ("hats", {"prompt": "Hat", "num_images": 3, "image_size": {"width": 1280, "height": 720}}),
        ("3", {"prompt": "Hat"}),
    ]


FAULTS: dict[str, tuple[str, bytes, str]] = {
    "an image of its own": ("p.csv", b"prompt,image_urls\nHat,a.png\n", "line 2: image_urls: cannot stand here"),
    "a field that is none": ("p.csv", b"prompt,size\nHat,2\n", "line 1: size: is no known field"),
    "too many images": ("p.csv", b"prompt,num_images\nHat,\nHat,7\n", "line 3: num_images: must be at most 6"),
    "a row of two cells": ("p.csv", b"prompt\nA red hat, please\n", "line 2: has 2 cells, the first row names 1"),
    "another encoding": ("p.txt", "Hut\nGrün\n".encode("cp1252"), "line 2: is not UTF-8"),
    "a name twice": ("p.csv", b"custom_id,prompt\na,Hat\na,Cap\n", "line 3: custom_id: a stands already on line 2"),
    "a name that is too long": ("p.csv", b"custom_id,prompt\n" + b"a" * 25 + b",Hat\n", "at most 24 characters here"),
    "a name that is a number": ("p.csv", b"custom_id,prompt\n2,Hat\n,Cap\n", "another prompt is called 2"),
    "a workbook": ("p.xlsx", b"PK\x03\x04" + bytes(30) + b"xl/" + bytes(100), "an Excel workbook"),
    "nothing": ("p.txt", b"\n \n", "p.txt holds no prompt."),
    "a head only": ("p.csv", b"prompt\n", "p.csv holds no prompt."),
}


@pytest.mark.parametrize("what", FAULTS)
def test_faults_are_named(tmp_path: Path, what: str) -> None:
    """By their lines in the file of prompts, and nothing is read past them in silence."""
    name, content, words = FAULTS[what]
    with pytest.raises((UserError, ManifestFaults)) as caught:
        prompts(tmp_path, name, content)
    assert words in str(caught.value)


def test_all_faults_at_once(tmp_path: Path) -> None:
    """Whoever mends a file wants to know them all."""
    content: Any = b"prompt,num_images\nHat,9\n,2\nCap,1\nCoat,x\n"
    with pytest.raises(ManifestFaults) as caught:
        prompts(tmp_path, "p.csv", content)
    assert [fault.line for fault in caught.value.faults] == [2, 3, 5]
