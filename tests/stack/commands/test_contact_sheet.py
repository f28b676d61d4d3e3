"""The contact sheet: every stored image where it belongs, a reason where there is none, however many there are."""

import io
import os
from pathlib import Path
from uuid import UUID

import pytest
from PIL import Image
from sqlalchemy import Connection, Engine

from cli.batches import contact_sheet, contact_sheet_page
from models.record_reports import record_reports
from models.transitions import StoredImage, record_stored
from models.verdict import Retry
from storage.store import Storage
from tests.support.command_line import CommandLine
from tests.support.factories import POLICY, accept, answer, claim, failure, make_batch, success

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
FIRST = (
    contact_sheet_page.MARGIN + contact_sheet_page.TILE // 2,
    contact_sheet_page.MARGIN + contact_sheet_page.HEADER + contact_sheet_page.TILE // 2,
)
"""The middle of the first tile."""


def image(colour: tuple[int, int, int], size: tuple[int, int] = (1200, 800)) -> io.BytesIO:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file


def make_stored(connection: Connection, edits: int, images: int = 1, **header: object) -> UUID:
    """A batch of stored edits, whose images are in no store yet."""
    batch_id = make_batch(connection, edits, **header)
    submissions = claim(connection, limit=edits, window=edits)
    accept(connection, submissions)
    record_reports(connection, [answer(submission, success(images)) for submission in submissions], POLICY)
    query = """
        SELECT i.id, e.position, i.index
        FROM images i JOIN submissions s ON s.id = i.submission_id JOIN edits e ON e.id = s.edit_id
    """
    record_stored(
        connection,
        [
            StoredImage(
                row.id,
                storage_key=f"{batch_id}/{row.position}/{row.index}.png",
                sha256="0" * 64,
                stored_bytes=1,
                stored_type="image/png",
                stored_width=1200,
                stored_height=800,
            )
            for row in connection.exec_driver_sql(query)
        ],
    )
    return batch_id


def at(page: Image.Image, place: int, columns: int) -> tuple[int, ...]:
    """The colour in the upper half of a tile, beside its middle."""
    x = FIRST[0] + place % columns * (contact_sheet_page.TILE + contact_sheet_page.GAP) + 40
    y = FIRST[1] + place // columns * (contact_sheet_page.TILE + contact_sheet_page.CAPTION + contact_sheet_page.GAP)
    found = page.getpixel((x, y))
    assert isinstance(found, tuple)
    return found


def test_images_and_reasons(run_cli: CommandLine, engine: Engine, tmp_path: Path) -> None:
    """Images in the order of the manifest; grey where a file is lost, unreadable, or the edit failed."""
    with engine.begin() as connection:
        batch_id = make_stored(connection, 3)
        make_failed(connection, batch_id)
    store = Storage(os.environ["STORAGE_URL"])
    store.put(f"{batch_id}/0/0.png", image(COLOURS[0]))
    store.put(f"{batch_id}/1/0.png", io.BytesIO(b"no image"))
    output = tmp_path / "sheet.png"
    shown = run_cli("contact-sheet", str(batch_id)[:20], "--output", output, "--json")
    assert shown.json == {"batch_id": str(batch_id), "tiles": 4, "of": 4, "files": [str(output)]}
    with Image.open(output) as page:
        assert [at(page, place, 4) for place in range(4)] == [COLOURS[0], *[contact_sheet_page.MISSING] * 3]


def make_failed(connection: Connection, batch_id: UUID) -> None:
    """One more edit of the batch, which failed."""
    connection.exec_driver_sql(
        'INSERT INTO edits (batch_id, position, arguments, seed) VALUES (%s, 3, \'{"prompt": "x"}\', 1)', (batch_id,)
    )
    connection.exec_driver_sql("UPDATE batches SET edit_count = 4, finished_at = NULL WHERE id = %s", (batch_id,))
    [submission] = claim(connection)
    accept(connection, [submission])
    record_reports(connection, [answer(submission, failure("no_images", Retry.NEVER))], POLICY)


def test_several_images_of_one_edit(
    run_cli: CommandLine, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is a tile of its own, beside the others."""
    monkeypatch.chdir(tmp_path)
    with engine.begin() as connection:
        batch_id = make_stored(connection, 1, images=3)
    for number, colour in enumerate(COLOURS):
        Storage(os.environ["STORAGE_URL"]).put(f"{batch_id}/0/{number}.png", image(colour))
    assert run_cli("contact-sheet", "last").out == f"contact-sheet-{str(batch_id)[:8]}.png\n"
    with Image.open(tmp_path / f"contact-sheet-{str(batch_id)[:8]}.png") as page:
        assert [at(page, place, 3) for place in range(3)] == COLOURS


def test_pages(run_cli: CommandLine, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large batch makes several pages, each drawn before the next is looked up; `--limit` ends it early."""
    with engine.begin() as connection:
        make_stored(connection, 230)
    held = []
    monkeypatch.setattr(
        contact_sheet, "draw_page", lambda *given, **more: held.append(given[2]) or Image.new("RGB", (9, 9))
    )
    output = tmp_path / "sheet.png"
    shown = run_cli("contact-sheet", "last", "--output", output, "--json").json
    assert [Path(file).name for file in shown["files"]] == ["sheet.png", "sheet-2.png", "sheet-3.png"]
    assert held == [100, 100, 30]
    said = run_cli("contact-sheet", "last", "--output", output, "--limit", 7)
    assert (held[3:], said.err) == ([7], "The first 7 of 230 tiles; more with --limit.\n")


def test_nothing_to_draw(run_cli: CommandLine, engine: Engine, tmp_path: Path) -> None:
    """No image yet, no such folder, no PNG: a sentence each."""
    with engine.begin() as connection:
        make_batch(connection)
    assert "has no image and no failed edit yet." in run_cli("contact-sheet", "last").err
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM batches")
        make_stored(connection, 1)
    assert "does not end in .png" in run_cli("contact-sheet", "last", "--output", "sheet.jpg").err
    said = run_cli("contact-sheet", "last", "--output", tmp_path / "none" / "sheet.png")
    assert (said.code, said.err.endswith("cannot be written: No such file or directory.\n")) == (2, True)
