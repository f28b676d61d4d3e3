"""The contact sheet as HTML: before beside after, complete in itself, harmless whatever a prompt holds."""

import base64
import html
import io
import json
import os
import re
import tracemalloc
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from PIL import Image
from sqlalchemy import Connection, Engine

from cli.batches import html_sheet, thumbnails
from intake.batches import BatchHeader, create
from intake.manifest import read_jsonl
from models.record_reports import record_reports
from models.transitions import StoredImage, record_stored
from models.verdict import Retry
from storage.store import Storage
from tests.support.command_line import CommandLine
from tests.support.factories import POLICY, accept, answer, claim, failure, success
from tests.support.servers import closed_port, serve

HOSTILE = """</p><script>alert(1)</script><img src=x onerror=alert(1)>" ' & \u202egnp.exe <!-- {{ 7*7 }}"""


@cache
def encoded(colour: str, size: tuple[int, int] = (1200, 800), kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


def data_uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


SIZE = (1200, 800)
RED = data_uri(encoded("red", (40, 30)))


def submit(connection: Connection, *edits: dict[str, Any], **header: object) -> UUID:
    """A batch of these edits."""
    lines = "\n".join(json.dumps({"prompt": "a hat", "image_urls": [RED], **edit}) for edit in edits)
    return create(connection, BatchHeader(**header), read_jsonl(io.BytesIO(lines.encode()))).batch_id


def store(connection: Connection, batch_id: UUID, *, failed: tuple[int, ...] = (), images: int = 1) -> None:
    """End every edit: these failed, the others have images in the store."""
    submissions = claim(connection, limit=1000, window=1000)
    accept(connection, submissions)
    rows = connection.exec_driver_sql("SELECT id, position FROM edits").all()
    positions = {row.id: row.position for row in rows}
    blocked = failure("content_policy_violation", Retry.NEVER)
    reports = [answer(one, blocked if positions[one.edit_id] in failed else success(images)) for one in submissions]
    record_reports(connection, reports, POLICY)
    waiting = connection.exec_driver_sql("""
        SELECT i.id, e.position, i.index
        FROM images i JOIN submissions s ON s.id = i.submission_id JOIN edits e ON e.id = s.edit_id
    """)
    record_stored(
        connection,
        [
            StoredImage(
                row.id, f"{batch_id}/{row.position}/{row.index}.png", "0" * 64, 2_000_000, "image/png", 1200, 800
            )
            for row in waiting
        ],
    )
    storage = Storage(os.environ["STORAGE_URL"])
    for position in set(positions.values()) - set(failed):
        for number in range(images):
            storage.put(f"{batch_id}/{position}/{number}.png", io.BytesIO(encoded("green")))


class Page(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def images(self) -> list[tuple[int, int, tuple[int, ...]]]:
        """Width, height and colour of each image."""
        found = []
        for tag, attributes in self.tags:
            if tag == "img":
                head, _, data = str(attributes["src"]).partition(",")
                assert head == "data:image/webp;base64"
                with Image.open(io.BytesIO(base64.b64decode(data))) as image:
                    found.append((image.width, image.height, image.convert("RGB").getpixel((5, 5))))
        return found


def near(colour: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return all(abs(one - other) < 12 for one, other in zip(colour, wanted, strict=True))


def test_before_beside_after(run_cli: CommandLine, engine: Engine, tmp_path: Path) -> None:
    """Inputs, images, prompt, seed, size, state; a failure with its reason, an edit that is not over yet without."""
    with engine.begin() as connection:
        edits = (
            {"custom_id": "hat", "seed": 4711, "image_size": {"width": 900, "height": 600}},
            {},
            {"prompt": "later"},
        )
        batch_id = submit(connection, *edits[:2], name="Autumn")
        store(connection, batch_id, failed=(1,))
        connection.exec_driver_sql("UPDATE batches SET edit_count = 3, finished_at = NULL")
        connection.exec_driver_sql(
            'INSERT INTO edits (batch_id, position, arguments, seed) VALUES (%s, 2, \'{"prompt": "later"}\', 1)',
            (batch_id,),
        )
    output = tmp_path / "sheet.html"
    shown = run_cli("contact-sheet", "last", "--output", output, "--json")
    assert shown.json == {"batch_id": str(batch_id), "edits": 3, "of": 3, "files": [str(output)]}
    page = Page(output)
    articles = [(attributes["id"], attributes["class"]) for tag, attributes in page.tags if tag == "article"]
    assert articles == [("edit-0", "stored"), ("edit-1", "failed"), ("edit-2", "pending")]
    sizes = [(width, height) for width, height, _ in page.images]
    assert sizes == [(40, 30), (320, 213), (40, 30)]
    assert near(page.images[0][2], (255, 0, 0))
    assert near(page.images[1][2], (0, 128, 0))
    for fact in (
        "Autumn",
        "hat stored",
        "a hat",
        "4711",
        "900×600",
        "1200×800, 2.0 MB",
        "1 of 3 edits stored",
        "1 failed",
    ):
        assert fact in page.text
    assert "content_policy_violation no" in page.text
    assert "no image yet" in page.text
    assert list(tmp_path.glob(".*")) == []


def test_hostile_text_is_only_shown(run_cli: CommandLine, engine: Engine, tmp_path: Path) -> None:
    """No script, no attribute and no address of a prompt, a name or an error becomes part of the page."""
    with engine.begin() as connection:
        batch_id = submit(connection, {"prompt": HOSTILE}, {"prompt": HOSTILE}, name=HOSTILE)
        store(connection, batch_id, failed=(1,))
        error = json.dumps([{"type": HOSTILE, "message": HOSTILE, "attempt": 1, "at": "2026-01-01T00:00:00Z"}])
        connection.exec_driver_sql("UPDATE edits SET errors = %s WHERE state = 'failed'", (error,))
    output = tmp_path / 'a "b" #1.html'
    assert run_cli("contact-sheet", "last", "--output", output).code == 0
    page = Page(output)
    assert page.text.count("<script>alert(1)</script>") >= 5
    assert "\\u202egnp.exe" in page.text
    assert {tag for tag, _ in page.tags} & {"script", "iframe", "object", "embed", "link", "base", "form"} == set()
    names = {name for _, attributes in page.tags for name in attributes}
    assert not [name for name in names if name.startswith("on")]
    addresses = [value for _, found in page.tags for name, value in found.items() if name in ("src", "href", "srcset")]
    assert all(str(address).startswith("data:image/webp;base64,") for address in addresses)
    assert not re.search(r"url\(|@import|https?://", output.read_text().replace(html.escape(HOSTILE), ""))
    policy = next(found["content"] for tag, found in page.tags if tag == "meta" and "http-equiv" in found)
    assert str(policy).startswith("default-src 'none'; img-src data:;")


def test_pages_are_bounded_and_linked(
    run_cli: CommandLine, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that grows too large goes on in the next one; each edit is in one of them, and each leads on and back."""
    monkeypatch.setattr(html_sheet, "FILE_BYTES", 30_000)
    monkeypatch.setattr(html_sheet, "EDITS_AT_ONCE", 7)
    with engine.begin() as connection:
        batch_id = submit(connection, *[{"custom_id": f"x{n}"} for n in range(60)])
        store(connection, batch_id)
    files = run_cli("contact-sheet", "last", "--output", tmp_path / "s #.html", "--json").json["files"]
    pages = [Page(Path(file)) for file in files]
    assert len(pages) >= 3
    assert [Path(file).name for file in files[:2]] == ["s #.html", "s #-2.html"]
    assert max(Path(file).stat().st_size for file in files) < 40_000
    ids = [found["id"] for page in pages for tag, found in page.tags if tag == "article"]
    assert ids == [f"edit-{n}" for n in range(60)]
    links = [[found["href"] for tag, found in page.tags if tag == "a"] for page in pages]
    assert links[:2] == [["s%20%23-2.html"], ["s%20%23.html", "s%20%23-3.html"]]
    assert len(links[-1]) == 1
    said = run_cli("contact-sheet", "last", "--output", tmp_path / "few.html", "--limit", 5)
    assert said.err == "The first 5 of 60 edits; more with --limit.\n"
    assert said.err.strip() in Page(tmp_path / "few.html").text


def test_inputs_from_elsewhere(run_cli: CommandLine, engine: Engine, tmp_path: Path) -> None:
    """Fetched once however many edits have them, and only from where images may be fetched; one that does not come is
    a word in its place, and its host is not asked for ever."""
    content = encoded("blue", (100, 100), "JPEG")
    dead = f"http://127.0.0.1:{closed_port()}"
    with serve(lambda peer: peer.reply(200, content)) as wire:
        with engine.begin() as connection:
            same = [{"image_urls": [f"{wire.url}/a.jpg"]}] * 4
            gone = [{"image_urls": [f"{dead}/{n}.png"]} for n in range(6)]
            private = [{"image_urls": ["http://169.254.169.254/latest"]}]
            several = [{"image_urls": [f"{wire.url}/a.jpg"] * 5}]
            batch_id = submit(connection, *same, *gone, *private, *several)
            store(connection, batch_id)
        run_cli.set(FAL_MEDIA_HOSTS="127.0.0.1")
        assert run_cli("contact-sheet", "last", "--output", tmp_path / "s.html").code == 0
        fetched = len(wire.received)
    page = Page(tmp_path / "s.html")
    assert sum(near(colour, (0, 0, 255)) for _, _, colour in page.images) == 4 + 3
    assert 1 <= fetched <= html_sheet.READERS  # those that began before the first was there
    assert page.text.count("could not be fetched: unreachable") >= thumbnails.FAILURES
    assert page.text.count("its host does not answer") >= 1
    assert "is not fetched: host_refused" in page.text
    assert "before, and 2 more" in page.text


def test_files_that_are_lost_or_broken(run_cli: CommandLine, engine: Engine, tmp_path: Path) -> None:
    """A word in the place of each."""
    with engine.begin() as connection:
        broken = data_uri(b"no image at all")
        batch_id = submit(connection, {}, {"image_urls": [broken]})
        store(connection, batch_id)
    folder = tmp_path / "images" / str(batch_id)
    (folder / "0" / "0.png").unlink()
    (folder / "1" / "0.png").write_bytes(b"no image")
    assert run_cli("contact-sheet", "last", "--output", tmp_path / "s.html").code == 0
    text = Page(tmp_path / "s.html").text
    assert ("not in storage" in text, text.count("cannot be read")) == (True, 2)


def test_memory_does_not_grow_with_the_batch(run_cli: CommandLine, engine: Engine, tmp_path: Path) -> None:
    """Inputs of two megabytes in each of thirty edits: a few of them are held at one time."""
    noise = Image.frombytes("RGB", (700, 700), os.urandom(700 * 700 * 3))
    file = io.BytesIO()
    noise.save(file, "PNG")
    with engine.begin() as connection:
        submit(connection, *[{"image_urls": [data_uri(file.getvalue())], "prompt": f"{n}"} for n in range(30)])
    run_cli("contact-sheet", "last", "--output", tmp_path / "warm.html", "--limit", 1)
    tracemalloc.start()
    assert run_cli("contact-sheet", "last", "--output", tmp_path / "s.html").code == 0
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30_000_000
    assert len(Page(tmp_path / "s.html").images) == 30


def test_where_it_cannot_be_written(run_cli: CommandLine, engine: Engine, tmp_path: Path, small_disk: Path) -> None:
    """A folder that is not there, a disk that is full: a sentence, and no half a page."""
    with engine.begin() as connection:
        submit(connection, *[{"prompt": "x" * 4000}] * 300)
    said = run_cli("contact-sheet", "last", "--output", tmp_path / "none" / "s.html")
    assert (said.code, said.err.endswith("s.html cannot be written: No such file or directory.\n")) == (2, True)
    said = run_cli("contact-sheet", "last", "--output", small_disk / "s.html")
    assert (said.code, said.err.endswith("s.html cannot be written: No space left on device.\n")) == (2, True)
    assert list(small_disk.iterdir()) == []


def test_other_kinds_of_files(run_cli: CommandLine, engine: Engine) -> None:
    """The name says which of the two it is to be."""
    with engine.begin() as connection:
        submit(connection, {})
    assert "does not end in .png or .html" in run_cli("contact-sheet", "last", "--output", "sheet.pdf").err
