"""A manifest is read to its end in bounded memory; every faulty line is named, with everything wrong with it."""

import json
import tracemalloc
from io import BytesIO, RawIOBase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UserError
from intake.manifest import LINE_MAX_BYTES, FaultyLine, LineFault, ManifestFaults, NewEdit, read_jsonl, read_objects

URL = "https://example.com/cat.png"
PLAIN = {"prompt": "Put a hat on the cat", "image_urls": [URL]}


def _line(**fields: object) -> bytes:
    return json.dumps({**PLAIN, **fields}).encode()


def _read(*lines: bytes, **options: bool) -> list[NewEdit | FaultyLine]:
    return list(read_jsonl(BytesIO(b"\n".join(lines)), **options))


def _faults(*lines: bytes) -> list[LineFault]:
    return [fault for entry in _read(*lines) if isinstance(entry, FaultyLine) for fault in entry.faults]


def _find_faults(*lines: bytes) -> list[str]:
    return [str(fault) for fault in _faults(*lines)]


def test_a_line_becomes_an_edit_as_the_caller_wrote_it() -> None:
    """Nothing is added to the arguments and nothing lost, whatever the script of the prompt."""
    given = {"prompt": '帽子を 🎩 \\u0000 "ok"\n', "image_urls": [URL], "image_size": {"width": 4096}, "max_images": 3}

    [edit] = _read(json.dumps({"custom_id": "cat-1", **given, "seed": 5, "num_images": 2}, ensure_ascii=False).encode())

    assert edit == NewEdit(1, "cat-1", {**given, "seed": 5, "num_images": 2}, 5, 6, ())


def test_a_number_as_custom_id_must_not_be_the_position_of_an_edit_without_one() -> None:
    """Both would be stored under the same key; numbers that meet no position are as good as any name."""
    assert _find_faults(_line(custom_id="1"), _line(custom_id="0"), _line(custom_id="007")) == []
    assert _find_faults(_line(), _line(custom_id="0")) == [
        "line 2: custom_id: 0 is what an edit before it is called, which has no custom_id"
    ]
    assert _find_faults(_line(custom_id="1"), _line()) == [
        "line 2: custom_id: is needed: without one this edit is called 1, and so is line 1"
    ]


def test_objects_are_judged_as_lines_are() -> None:
    """Edits of one document pass the same checks, their place in the list for a line number."""
    entries = list(read_objects([{**PLAIN, "custom_id": "a"}, "nonsense", {**PLAIN, "prompt": ""}]))

    assert [type(entry) for entry in entries] == [NewEdit, FaultyLine, FaultyLine]
    assert [entry.line for entry in entries] == [1, 2, 3]


def test_an_edit_without_seed_gets_one_of_its_own() -> None:
    """The seed is the fingerprint by which a lost submission is found again, and fits the provider's integer."""
    seeds = {entry.seed for entry in _read(*[_line(seed=None), _line()] * 100) if isinstance(entry, NewEdit)}

    assert len(seeds) == 200
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_what_the_provider_will_change_is_a_warning_of_the_edit() -> None:
    """A small size is no fault; its edit carries the sentence."""
    [edit] = _read(_line(image_size={"width": 512, "height": 512}))

    assert isinstance(edit, NewEdit)
    assert "960x960" in edit.warnings[0]


def test_lines_are_counted_as_an_editor_counts_them() -> None:
    """Blank lines, Windows line ends, a byte order mark and a missing last line end change no number."""
    text = b"\xef\xbb\xbf" + _line(custom_id="a") + b"\r\n\r\n  \n" + _line(custom_id="b") + b"\n\n" + _line(seed="x")

    entries = list(read_jsonl(BytesIO(text)))

    assert [entry.line for entry in entries] == [1, 4, 6]
    assert [type(entry) for entry in entries] == [NewEdit, NewEdit, FaultyLine]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "is not JSON (column 2: "),
        (b"cats.csv", "is not JSON (column 1: "),
        (_line() + b",", "is not JSON (column "),
        (b'{"prompt": "a\0b"}', "is not JSON (column "),
        (b"\xef\xbb\xbf\xef\xbb\xbf{}", "is not JSON (column 1: "),
        (b"[]", "is not a JSON object"),
        (b'"prompt"', "is not a JSON object"),
        (b"null", "is not a JSON object"),
        (b'{"prompt": "\xff"}', "is not UTF-8 (byte 13)"),
        ("{}".encode("utf-16"), "is not UTF-8 (byte 1)"),
        (b'{"prompt": "a", "seed": 1, "prompt": "b"}', "names the field prompt twice"),
        (b'{"image_size": {"width": 1, "width": 2}}', "names the field width twice"),
        (b'{"seed": NaN}', "holds NaN, which is no JSON"),
        (b'{"seed": -Infinity}', "holds -Infinity, which is no JSON"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "holds a number too long to read"),
        (b'{"prompt": ' + b"[" * 100_000, "is nested too deeply"),
        (b'{"prompt": ' + b"[" * 63 + b"1" + b"]" * 63 + b"}", "is nested more than 64 levels deep"),
        (json.dumps({f"n{n}": n for n in range(101)}).encode(), "holds an object of 101 fields, at most 100 are read"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_what_is_no_edit_at_all_is_told_and_its_neighbours_are_read(line: bytes, reason: str) -> None:
    """One broken line is one fault with its number; the lines around it are edits."""
    before, broken, after = _read(_line(), line, _line())

    assert isinstance(before, NewEdit)
    assert isinstance(after, NewEdit)
    assert isinstance(broken, FaultyLine)
    assert str(broken).startswith(f"line 2: {reason}")


@pytest.mark.parametrize(
    "document",
    [
        json.dumps({"name": "a batch, as the API takes it", "edits": [PLAIN, PLAIN]}),
        json.dumps({"edits": [PLAIN]}),
        json.dumps({"data": {"rows": [PLAIN]}}),
        json.dumps({"columns": ["prompt", "image_urls"], "index": [0], "data": [["x", [URL]]]}),  # pandas, split
        json.dumps({"schema": {"fields": []}, "data": [PLAIN]}),  # pandas, table
        json.dumps({"prompt": {"0": "a", "1": "b"}, "image_urls": {"0": [URL], "1": [URL]}}),  # pandas, columns
        json.dumps({"prompt": {str(n): "a" for n in range(200)}, "image_urls": {str(n): [URL] for n in range(200)}}),
        json.dumps({"prompt": ["a", "b"], "image_urls": [[URL], [URL]]}),
        json.dumps({str(n): PLAIN for n in range(3)}),  # pandas, index
        json.dumps({f"cat-{n}": PLAIN for n in range(200)}),
        json.dumps([PLAIN, PLAIN]),
        json.dumps(PLAIN) * 2,  # of two files that were joined, where the first had no last line end
        f"{json.dumps(PLAIN)}, {json.dumps(PLAIN)}",
    ],
)
def test_many_edits_on_one_line_are_never_one_faulty_line(document: str) -> None:
    """With `skip` all of them would be passed over, and the command would end with 0."""
    for line in (document.encode(), _line() + b"\n" + document.encode()):
        with pytest.raises(ManifestFaults, match="holds several edits"):
            _read(line)


def test_files_that_were_joined_with_their_byte_order_marks() -> None:
    """Each line that begins with one is a line all the same."""
    assert all(isinstance(entry, NewEdit) for entry in _read(b"\xef\xbb\xbf" + _line(), b"\xef\xbb\xbf" + _line()))


def test_every_fault_of_a_line_is_told() -> None:
    """A manifest is mended in one go."""
    reasons = _find_faults(_line(custom_id="a/b", image_urls=[URL] * 11, num_images="2", custom_ids=1, prompt="\0"))

    assert reasons == [
        "line 1: custom_id: must be 1 to 64 of the characters A-Z a-z 0-9 . _ -, and not . or ..",
        "line 1: prompt: holds a NUL character",
        "line 1: image_urls: 11 images given, at most 10 are allowed (the provider would drop the first ones)",
        "line 1: num_images: must be a whole number, not text",
        "line 1: custom_ids: is not a known field; did you mean custom_id?",
    ]


@pytest.mark.parametrize("custom_id", ["a", "x" * 64, "A-Z_0.9", "..a", "-1", "1e3", "0x10"])
def test_a_custom_id_that_may_stand_in_a_storage_key_is_kept(custom_id: str) -> None:
    """The caller finds its images under its own name."""
    [edit] = _read(_line(custom_id=custom_id))

    assert edit.custom_id == custom_id


@pytest.mark.parametrize(
    "custom_id",
    ["", ".", "..", "a/b", "../a", "a\\b", "a b", "a\n", "ä", "x" * 65, "\0", "\ud800", 7, True, ["a"]],
)
def test_a_custom_id_that_could_leave_its_folder_or_take_anothers_is_refused(custom_id: object) -> None:
    """It becomes part of a storage key, beside the positions of edits that have none."""
    [fault] = _faults(_line(custom_id=custom_id))

    assert isinstance(fault, LineFault)
    assert (fault.field, fault.custom_id) == ("custom_id", None)


def test_a_doubled_custom_id_names_the_first_line() -> None:
    """Two edits would write the same images; both lines are named, also where the first is faulty otherwise."""
    entries = _read(
        _line(custom_id="a"), b"", _line(custom_id="b", seed="x"), _line(custom_id="a"), _line(custom_id="b")
    )

    assert [str(entry) for entry in entries[1:]] == [
        "line 3: seed: must be a whole number, not text",
        "line 4: custom_id: a stands already on line 1",
        "line 5: custom_id: b stands already on line 3",
    ]


def test_a_fault_carries_the_callers_own_name() -> None:
    """Where the line says which edit it is, so does the fault."""
    [fault] = _faults(_line(custom_id="cat-1", seed="x"))

    assert fault.custom_id == "cat-1"


def test_local_paths_only_where_they_are_uploaded() -> None:
    """A server that reads a manifest must not be made to look at its own disk."""
    line = _line(image_urls=["in/cat.png"])

    assert _find_faults(line) == [
        "line 1: image_urls: image 1 is neither a URL (http, https) nor a data URI of an image"
    ]
    [edit] = _read(line, local_paths=True)
    assert isinstance(edit, NewEdit)
    assert edit.arguments["image_urls"] == ["in/cat.png"]


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "with a byte order mark"])
def test_the_longest_line_is_read_and_a_longer_one_is_passed_over(start: bytes) -> None:
    """The bound is exact, and what follows an over-long line keeps its number."""
    image = "data:image/png;base64," + "A" * (LINE_MAX_BYTES - len(_line(image_urls=["data:image/png;base64,"])))
    longest = _line(image_urls=[image])
    assert len(longest) == LINE_MAX_BYTES

    entries = _read(start + longest + b" " * 3, longest, _line(seed="x"), longest)

    assert [type(entry) for entry in entries] == [FaultyLine, NewEdit, FaultyLine, NewEdit]
    assert str(entries[0]) == "line 1: is longer than 16777216 bytes"
    assert str(entries[2]) == "line 3: seed: must be a whole number, not text"


class _Endless(RawIOBase):
    """A stream of so many bytes that never ends a line."""

    def __init__(self, size: int) -> None:
        self.left = size

    def readable(self) -> bool:
        return True

    def readline(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert 0 <= size <= LINE_MAX_BYTES + 1
        piece = min(size, self.left)
        self.left -= piece
        return b"x" * piece


def test_a_line_without_end_takes_bounded_memory() -> None:
    """A gigabyte without a line end is one fault, not a gigabyte of memory."""
    tracemalloc.start()
    try:
        [fault] = read_jsonl(_Endless(2**30))  # type: ignore[arg-type]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert isinstance(fault, FaultyLine)
    assert peak < 4 * LINE_MAX_BYTES


def test_edits_come_while_the_stream_is_read() -> None:
    """The first edit is there before the last line is: memory does not grow with the manifest."""
    stream = BytesIO(b"".join(_line() + b"\n" for _ in range(1000)))

    first = next(iter(read_jsonl(stream)))

    assert first.line == 1
    assert stream.tell() == len(_line()) + 1


def test_the_error_lists_every_fault_on_its_line() -> None:
    """What a person sees is the list itself; a program finds the parts."""
    faults = _faults(b"{", _line(seed="x"))

    error = ManifestFaults(faults)

    assert isinstance(error, UserError)
    assert str(error).splitlines() == [str(fault) for fault in faults]
    assert error.faults == tuple(faults)
    assert str(ManifestFaults(faults, more=True)).splitlines()[-1] == "reading stopped after 2 faults"


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
_fields: dict[str, st.SearchStrategy[Any]] = {
    "prompt": st.text(st.characters(codec=None), max_size=8),
    "image_urls": st.just([URL]),
}
_edits = st.fixed_dictionaries(
    _fields, optional={"custom_id": st.text(max_size=3), "seed": st.integers() | _json, "image_size": _json}
)


@given(st.lists(st.binary() | (_json | _edits).map(lambda value: json.dumps(value).encode()), max_size=5))
def test_whatever_the_lines_hold_each_is_an_edit_or_a_fault(lines: list[bytes]) -> None:
    """Nothing but several edits on one line stops the reading, and every edit that passes can be written to the
    database."""
    text = b"\n".join(lines)
    try:
        entries = list(read_jsonl(BytesIO(text)))
    except ManifestFaults as error:
        if "holds several edits" in str(error):
            return
        raise

    reasons = {entry.line for entry in entries}
    content = [number for number, line in enumerate(text.split(b"\n"), 1) if line.strip(b" \t\r")]
    assert reasons == set(content) or (text.startswith(b"\xef\xbb\xbf") and reasons == set(content[1:]))
    for entry in entries:
        if isinstance(entry, NewEdit):
            written = json.dumps(entry.arguments, ensure_ascii=False, allow_nan=False)
            assert "\0" not in json.loads(written)["prompt"]
            assert written.encode()
            assert abs(entry.seed) < 2**63
        else:
            assert str(entry).isprintable()


def test_a_line_of_results_stands_for_its_edit() -> None:
    """What an export says beside the edit that it carries is passed over; the edit is judged as strictly as ever."""
    edit = {**PLAIN, "custom_id": "hat"}
    result = {"position": 7, "custom_id": "hat", "state": "failed", "images": [], "errors": [{"type": "x"}], "cost": 0}

    good, bad = _read(json.dumps({**result, "edit": edit}).encode(), json.dumps({**result, "edit": {}}).encode())

    assert isinstance(good, NewEdit)
    assert (good.custom_id, good.arguments) == ("hat", PLAIN)
    assert isinstance(bad, FaultyLine)
    assert {fault.field for fault in bad.faults} == {"prompt", "image_urls"}


def test_null_is_a_field_left_out_and_2_0_is_2() -> None:
    """As many programs write them, at every entry point; a required field that is null is missing."""
    given = {
        **PLAIN,
        "custom_id": None,
        "num_images": 2.0,
        "seed": None,
        "image_size": {"width": 1280.0, "height": 720},
    }
    for [edit] in (_read(_line(**given)), list(read_objects([given]))):
        assert isinstance(edit, NewEdit), edit
        assert edit.arguments == {**PLAIN, "num_images": 2, "image_size": {"width": 1280, "height": 720}}
        assert isinstance(edit.arguments["num_images"], int)
    assert _find_faults(_line(prompt=None), _line(num_images=2.5), _line(image_size={"width": None})) == [
        "line 1: prompt: is missing",
        "line 2: num_images: must be a whole number, not a number with a fraction",
        "line 3: image_size: width must be a whole number, not null",
    ]


@pytest.mark.parametrize("joint", [",", ";", "|", ", "])
def test_a_string_that_joins_several_urls_is_refused(joint: str) -> None:
    """It would be submitted as one, and paid for or failed at the provider."""
    [reasons] = _find_faults(_line(image_urls=[f"{URL}{joint}{URL}"]))
    assert "image 1 joins several URLs" in reasons or "image 1 holds a blank" in reasons
