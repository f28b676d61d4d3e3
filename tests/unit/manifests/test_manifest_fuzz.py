"""Real manifests, damaged at random: each is read, or refused in words; no row is lost and nothing else is raised.

Bounded in time; a failure names the seed that repeats it.
"""

import csv
import gzip
import io
import json
import random
import time
from collections.abc import Callable

import pytest

from core.errors import ManifestError
from intake.decode_manifest import decode_manifest
from intake.insert_edits import ManifestTotals, count_entries
from intake.manifest import FaultyLine, NewEdit
from intake.read_manifest import read_manifest

SECONDS = 10.0
"""Per kind of manifest; the two together are far below a minute."""
ROWS = 12
Mutation = Callable[[bytearray, random.Random], None]


def edits(seed: random.Random) -> list[dict[str, object]]:
    prompts = ["A red hat, please", 'Say "hat"; then', "帽子\nété", "plain", "a|b\tc"]
    return [
        {
            "custom_id": f"row-{number:04}",
            "prompt": f"{seed.choice(prompts)} {number}",
            "image_urls": [f"https://example.com/{number}.png", "data:image/png;base64,AAAA"][: seed.randint(1, 2)],
            "num_images": seed.choice([1, 2.0, None]),
            "image_size": seed.choice([None, "auto", {"width": 1280, "height": 720}]),
        }
        for number in range(ROWS)
    ]


def as_jsonl(rows: list[dict[str, object]], seed: random.Random) -> bytes:
    """As lines, as a list, or indented."""
    lines = [json.dumps(row, ensure_ascii=seed.random() < 0.5) for row in rows]
    form = seed.choice(["lines", "lines", "list", "indented"])
    if form == "indented":
        return "\n".join(json.dumps(row, indent=2) for row in rows).encode()
    return ("[" + ",\n".join(lines) + "]" if form == "list" else "\n".join(lines) + "\n").encode()


def as_csv(rows: list[dict[str, object]], seed: random.Random) -> bytes:
    """With any separator and line end, row numbers or not."""
    text = io.StringIO(newline="")
    separator = seed.choice(",;\t|")
    end = seed.choice(["\n", "\r\n", "\r"])
    quoting = csv.QUOTE_ALL if end == "\r" else csv.QUOTE_MINIMAL  # the writer forgets the other line ends
    writer = csv.writer(text, delimiter=separator, lineterminator=end, quoting=quoting)
    numbered = seed.random() < 0.3
    if seed.random() < 0.2:
        text.write(f"sep={separator}{end}")
    names = list(rows[0])
    writer.writerow([""] * numbered + names)
    for number, row in enumerate(rows):
        size = row["image_size"]
        cells = {**row, "image_size": f"{size['width']}x{size['height']}" if isinstance(size, dict) else size}
        cells["image_urls"] = " ".join(map(str, row["image_urls"]))  # type: ignore[call-overload]
        writer.writerow([number] * numbered + [cells[name] for name in names])
    return text.getvalue().encode()


def change_bytes(data: bytearray, seed: random.Random) -> None:
    for _ in range(seed.randint(1, 4)):
        data[seed.randrange(len(data))] = seed.choice([*b"\"',;\t\n\r{}[]:\0\\x", 0xE9, 0xFF, seed.randrange(256)])


INSERTED = [b'"', b"\xef\xbb\xbf", b"\xff\xfe", b"\r", b"\n\n", b",", b"\0", b"NaN", b"null", b"\xe9"]


def insert_bytes(data: bytearray, seed: random.Random) -> None:
    at = seed.randrange(len(data))
    data[at:at] = seed.choice(INSERTED)


def remove_bytes(data: bytearray, seed: random.Random) -> None:
    at = seed.randrange(len(data))
    del data[at : at + seed.randint(1, 30)]


def cut(data: bytearray, seed: random.Random) -> None:
    del data[seed.randrange(1, len(data)) :]


def double(data: bytearray, seed: random.Random) -> None:
    data += data[: seed.randrange(len(data))]


MUTATIONS: list[Mutation] = [change_bytes, insert_bytes, remove_bytes, cut, double]
ENCODINGS = ["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "gzip"]


def encode(data: bytes, seed: random.Random) -> bytes:
    encoding = seed.choice(ENCODINGS)
    return gzip.compress(data, 1) if encoding == "gzip" else data.decode().encode(encoding, errors="replace")


def read(data: bytes, name: str) -> list[NewEdit | FaultyLine] | None:
    """What is made of it, the way `skip` makes it; None where it is refused whole."""
    try:
        entries = list(read_manifest(io.BytesIO(data), name=name))
        count_entries(iter(entries), ManifestTotals({}), on_invalid="skip")
    except ManifestError as error:
        sentences = str(error).splitlines()
    else:
        return entries
    assert sentences
    assert [part for part in sentences if not part.isprintable()] == []
    return None


def find_lost(data: bytes, entries: list[NewEdit | FaultyLine]) -> list[str]:
    """The rows whose name stands in the manifest, and neither in an edit nor in the lines of a faulty one."""
    text = decode_manifest(io.BytesIO(data)).read()
    missing = []
    for number in range(ROWS):
        name = f"row-{number:04}"
        at = text.find(name.encode())
        line = text.count(b"\n", 0, at) + 1
        over = [entry for entry in entries if entry.line <= line]
        near = max((entry.line for entry in over), default=0)
        here = [entry for entry in over if entry.line == near]
        named = any(isinstance(entry, FaultyLine) or name in f"{entry.custom_id} {entry.arguments}" for entry in here)
        if at >= 0 and not named:
            missing.append(name)
    return missing


@pytest.mark.parametrize("form", [as_jsonl, as_csv])
def test_a_damaged_manifest_is_read_or_refused_and_no_row_is_lost(
    form: Callable[[list[dict[str, object]], random.Random], bytes],
) -> None:
    """Whatever was done to some bytes, the rows that were not touched are edits, or nothing is taken."""
    end = time.monotonic() + SECONDS
    base, tried, whole, refused = random.randrange(10**9), 0, 0, 0
    while time.monotonic() < end and tried < 1500:
        seed = random.Random(base + tried)
        name = seed.choice(["", "m.csv" if form is as_csv else "m.jsonl"])
        sound = form(edits(seed), seed)
        expected = read(encode(sound, seed), name)
        assert expected is not None, base + tried
        assert len(expected) == ROWS, (base + tried, len(expected))
        damaged = bytearray(sound)
        mutation = seed.choice(MUTATIONS)
        mutation(damaged, seed)
        packed = seed.random() < 0.2
        found = read(gzip.compress(damaged, 1) if packed else bytes(damaged), name)
        refused += found is None
        if found is not None:
            whole += 1
            assert find_lost(bytes(damaged), found) == [], f"seed {base + tried}, {mutation.__name__}"
        tried += 1
    assert tried > 50
    assert whole
    assert refused
