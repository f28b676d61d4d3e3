"""Whatever a person brings is read where it is unambiguous, else named; docs/manifests.md is what is promised."""

import codecs
import gzip
import io
import json
import re
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.errors import ManifestError
from intake import decode_manifest
from intake.manifest import LINE_MAX_BYTES, FaultyLine, ManifestFaults, NewEdit
from intake.read_manifest import read_manifest

URL = "https://example.com/a.png"
PAGE = (Path(__file__).parents[3] / "docs/manifests.md").read_text()
EXAMPLES = re.findall(r"^```(jsonl|json|csv|tsv)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
EXPECTED: list[dict[str, Any]] = [
    {
        "custom_id": "hat",
        "prompt": "A red hat, please",
        "image_urls": [URL, "https://example.com/b.png"],
        "image_size": {"width": 1280, "height": 720},
    },
    {"custom_id": "ete", "prompt": "帽子", "image_urls": ["https://example.com/c.png"], "num_images": 2},
]
BYTES: dict[str, Callable[[str], bytes]] = {
    "UTF-8": str.encode,
    "UTF-8 with a byte order mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16 little endian with a byte order mark": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "UTF-16 big endian with a byte order mark": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "UTF-16 little endian without a byte order mark": lambda text: text.encode("utf-16-le"),
    "UTF-32 with a byte order mark": lambda text: text.encode("utf-32"),
    "CR LF at the ends of lines": lambda text: text.replace("\n", "\r\n").encode(),
    "CR at the ends of lines": lambda text: text.replace("\n", "\r").encode(),
    "gzip": lambda text: gzip.compress(text.encode()),
}
"""As docs/manifests.md lists them."""


def read(data: bytes, name: str = "") -> list[NewEdit | FaultyLine]:
    return list(read_manifest(io.BytesIO(data), name=name))


def as_given(entries: list[NewEdit | FaultyLine]) -> list[dict[str, Any]]:
    assert all(isinstance(entry, NewEdit) for entry in entries), list(map(str, entries))
    return [{"custom_id": entry.custom_id, **entry.arguments} for entry in entries if isinstance(entry, NewEdit)]


def refused(data: bytes, name: str = "") -> str:
    """Why nothing of the manifest may be taken, whatever becomes of faulty lines."""
    with pytest.raises(ManifestError) as caught:
        read(data, name)
    return str(caught.value)


def line(**fields: object) -> str:
    return json.dumps({"prompt": "x", "image_urls": [URL], **fields})


@pytest.mark.parametrize("named", [True, False], ids=["named", "standard input"])
@pytest.mark.parametrize("form", BYTES)
@pytest.mark.parametrize("example", range(len(EXAMPLES)))
def test_every_example_of_the_page_is_the_same_two_edits(example: int, form: str, named: bool) -> None:
    """In every encoding that the page lists, with the right name and without any."""
    ending, text = EXAMPLES[example]
    assert as_given(read(BYTES[form](text), f"m.{ending}" if named else "")) == EXPECTED


def test_the_page_lists_what_is_tried_here() -> None:
    """Every encoding of its table, and examples of every dialect."""
    rows = re.findall(r"^\| ((?:UTF|CR|gzip).*?) \|", PAGE, re.MULTILINE)
    assert rows == list(BYTES)
    assert len(EXAMPLES) >= 10
    assert str(LINE_MAX_BYTES) in PAGE


def archive() -> bytes:
    """A tar file with a manifest in it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        member = tarfile.TarInfo("m.jsonl")
        member.size = len(line())
        tar.addfile(member, io.BytesIO(line().encode()))
    return file.getvalue()


def workbook(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (workbook("[Content_Types].xml", "xl/workbook.xml"), "an Excel workbook (.xlsx); in its program save"),
        (workbook("mimetype", "Index/Document.iwa"), "a Numbers document (.numbers); in its program save"),
        (workbook("batch.csv"), "a ZIP archive; unpack it first."),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "an old Excel workbook (.xls)"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"PAR1" + bytes(100), "a Parquet file"),
        (b"BZh91AY&SY", "packed with bzip2"),
        (b"\xfd7zXZ\0", "packed with xz"),
        (b"\x28\xb5\x2f\xfd\0", "packed with zstd"),
        (b"\n<!doctype html><html>", "a web page"),
        (b"{\\rtf1\\ansi", "a rich text document"),
        (b"\x89PNG\r\n\x1a\n", "an image"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS"),
        (gzip.compress(gzip.compress(b"{}")), "packed with gzip twice"),
        (archive(), "a tar archive; unpack it first."),
        (gzip.compress(archive()), "a tar archive; unpack it first."),
        (b"7z\xbc\xaf\x27\x1c" + bytes(40), "a 7z archive"),
        (b"\x04\x22\x4d\x18" + bytes(40), "packed with lz4"),
        (b"ARROW1\0\0" + bytes(40), "an Arrow file"),
        (b"Obj\x01" + bytes(40), "an Avro file"),
        (b"\x80\x04\x95" + bytes(40) + b"\n", "no text: its first line holds bytes that no text has."),
        (b"--- # edits\n- prompt: x\n", "YAML"),
        (gzip.compress(workbook("[Content_Types].xml")), "an Excel workbook (.xlsx)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", ""])
def test_a_file_of_another_kind_is_named(data: bytes, words: str, name: str) -> None:
    """In one sentence with what to do, whatever it is called."""
    assert refused(data, name).startswith(f"The manifest is {words}")


@pytest.mark.parametrize(
    "text",
    [
        f"- prompt: x\n  image_urls: [{URL}]\n",
        f"x,{URL}\ny,{URL}\n",
        f"prompt^image_urls\nx^{URL}\n",
        f"My catalogue\nprompt,image_urls\nx,{URL}\n",
        json.dumps(line()),
    ],
    ids=["YAML", "no first row", "another separator", "a title", "JSON in quotes"],
)
def test_what_is_neither_json_nor_a_table_is_told_once(text: str) -> None:
    """A hundred thousand rows do not repeat it, and with `skip` they are not passed over."""
    assert "is neither JSON lines nor a table" in refused(text.encode() * 5)


def test_a_table_behind_empty_rows_needs_no_name() -> None:
    """As spreadsheets write the rows above it."""
    [edit] = read(f"\r\n;;\r\nprompt;image_urls;\r\nx;{URL};\r\n".encode("utf-8-sig"))
    assert isinstance(edit, NewEdit)


def test_a_json_text_sequence() -> None:
    """As `jq --seq` writes it."""
    indented = json.dumps(json.loads(line()), indent=2)
    for form in (line(), indented):
        assert len(as_given(read(f"\x1e{form}\n\x1e{form}\n".encode()))) == 2


@pytest.mark.parametrize("name", ["m.csv", "m.txt", ""])
@pytest.mark.parametrize(
    "head",
    [
        "Prompt,Image_URLs",
        "PROMPT,IMAGE_URLS",
        '"Prompt","Image_Urls"',
        '#TYPE System.Management.Automation.PSCustomObject\r\n"prompt","image_urls"',
    ],
)
def test_heads_as_spreadsheets_and_powershell_write_them(head: str, name: str) -> None:
    expected = {"custom_id": None, "prompt": "x", "image_urls": [URL]}
    assert as_given(read(f"{head}\r\nx,{URL}\r\n".encode("utf-8-sig"), name)) == [expected]


@pytest.mark.parametrize("name", ["m.jsonl.gz", "m.csv.gz"])
def test_a_gzip_file_that_was_cut_is_refused_whole(name: str) -> None:
    """What came before the cut is no batch."""
    text = "\n".join([line(), *(line(prompt=str(number)) for number in range(5000))])
    packed = gzip.compress(text.encode())
    for damaged in (packed[:-4], packed[: len(packed) // 2], packed[:5000] + b"\0\0\0\0" + packed[5004:]):
        assert "damaged or was cut short" in refused(damaged, name)


def test_a_gzip_bomb_is_refused_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line without end is read over in pieces, and the whole is bounded."""
    monkeypatch.setattr(decode_manifest, "UNPACKED_MAX_BYTES", 2**27)
    bomb = gzip.compress(b"{" * 2**28, 1)
    tracemalloc.start()
    try:
        assert "unpacks to more than" in refused(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * LINE_MAX_BYTES


def test_a_character_that_was_cut_is_a_fault_of_its_line() -> None:
    """UTF-16 with half a character at the end: the line is named, the ones before it are read."""
    text = f"{line()}\n{line()}"
    for broken in (text.encode("utf-16")[:-1], text.encode("utf-16") + b"\x3d\xd8"):
        first, second = read(broken)
        assert isinstance(first, NewEdit)
        assert isinstance(second, FaultyLine)
        assert (second.line, "is not UTF-8" in str(second)) == (2, True)


LISTED = [
    (f"[{line()},\n\n{line(seed=1.5)}, 7,\n{line(custom_id='a')}]", [1, 3, 3, 4], [2, 3]),
    (f'[{line()},\n{{"seed": NaN}},\n{{"a": 1, "a": 2}}\n, {line()} ]\n', [1, 2, 3, 4], [2, 3]),
    ("[]", [], []),
    (" \n[ ]\n", [], []),
    (f"{{\n{line()[1:]}\n\n{line()}", [1, 4], []),
]


@pytest.mark.parametrize(("text", "lines", "faulty"), LISTED, ids=range(len(LISTED)))
def test_edits_of_a_list_are_told_by_their_lines(text: str, lines: list[int], faulty: list[int]) -> None:
    """A faulty one is one fault, with the line on which it begins; its neighbours are read."""
    entries = read(text.encode(), "m.json")
    assert [entry.line for entry in entries] == lines
    assert [number for number, entry in enumerate(entries, 1) if isinstance(entry, FaultyLine)] == faulty


def test_a_byte_that_is_no_utf_8_in_a_list() -> None:
    """It is a fault of its edit alone."""
    entries = read(f"[{line()},\n{line(prompt='caf#')},\n{line()}]".encode().replace(b"#", b"\xe9"))
    assert [type(entry) for entry in entries] == [NewEdit, FaultyLine, NewEdit]
    assert "0xE9 stands there" in str(entries[1])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"[{line()}", "line 1: is not JSON: a comma or the end of the list is missing"),
        (f"[{line()},", "line 1: the list of edits does not end"),
        (f"[{line()},\n{line()[:-3]}", "line 2: is not JSON ("),
        (f"[{line()}\n{line()}]", "line 2: is not JSON: a comma or the end of the list is missing"),
        (f"[{line()}]\n{line()}", "line 2: is not JSON: something stands behind the end of the list"),
        (f"[]\n{line()}", "line 2: is not JSON: something stands behind the end of the list"),
        (f'{{\n"prompt": "x"\n}}\n{{"prompt" "y"}}\n{line()}', "line 4: is not JSON ("),
        ("[" * 100_000, "line 1: is nested too deeply"),
    ],
    ids=range(8),
)
def test_a_list_that_cannot_be_read_on_is_refused_whole(text: str, reason: str) -> None:
    """Where the next edit begins cannot be told; nothing of it is taken, `skip` or not."""
    with pytest.raises(ManifestFaults) as caught:
        read(text.encode())
    assert str(caught.value).startswith(reason)
    assert str(caught.value).endswith("nothing after it was read")


def test_a_long_list_is_read_in_bounded_memory() -> None:
    """Edit by edit, as lines are."""
    text = f"[{','.join(line(custom_id=str(number)) for number in range(100_000, 130_000))}]".encode()
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_manifest(io.BytesIO(text)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 30_000
    assert peak < 8 * 2**20  # the custom_ids, and a piece of the text


def test_an_edit_without_end_takes_bounded_memory() -> None:
    """A list whose first string does not end is refused at the bound of a line."""
    text = b'[{"prompt": "' + b"x" * (3 * LINE_MAX_BYTES)
    assert refused(text).startswith(f"line 1: is longer than {LINE_MAX_BYTES} bytes")


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.json", "a", "https://store.example/a.jsonl?x=.csv"])
def test_the_content_tells_where_the_name_does_not(name: str) -> None:
    """JSON in a .csv, a table in a .txt."""
    assert as_given(read(line(custom_id="a").encode(), name))[0]["custom_id"] == "a"
    if name != "a.csv":
        assert as_given(read(f"prompt;image_urls\nx;{URL}\n".encode(), name))[0]["prompt"] == "x"


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "", "a.csv.gz"])
def test_nothing_is_no_edit(name: str) -> None:
    """An empty file is an empty manifest, of which whoever reads it says that it holds no edit."""
    for data in (b"", b"\n \r\n", codecs.BOM_UTF8, codecs.BOM_UTF16_LE, gzip.compress(b"")):
        assert read(data, name) == []
