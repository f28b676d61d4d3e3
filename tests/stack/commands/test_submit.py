"""What a person may say about a batch when handing it in, what is said back, and what a dry run leaves undone."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import Engine

from tests.support.command_line import CommandLine

EDIT = {"prompt": "x", "image_urls": ["https://example.com/a.png"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the manifest lies, with two images of the same content and a text."""
    folder = tmp_path / "manifests"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (1000, 1000)).save(folder / name)
    (folder / "text.png").write_text("no image")
    return folder


def manifest(folder: Path, *edits: dict[str, Any]) -> Path:
    path = folder / "m.jsonl"
    path.write_text("\n".join(json.dumps({**EDIT, **edit}) for edit in edits))
    return path


def rows(engine: Engine, query: str) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.exec_driver_sql(query).mappings()]


def count(engine: Engine, table: str) -> int:
    return int(rows(engine, f"SELECT count(*) AS n FROM {table}")[0]["n"])


def test_options_become_the_header(run_cli: CommandLine, engine: Engine, folder: Path) -> None:
    """Every option stands in its column, and shows in the status."""
    options = "--name hats --priority 7 --idempotency-key k --max-cost 2.5 --max-in-flight 3 --max-attempts 2"
    more = "--tolerate 12.5% --deadline 2099-01-02T03:04:05+00:00 --notify-url https://example.com/hook"
    more += " --output-expires-after 30d12h"
    said = run_cli("submit", manifest(folder, {}), *f"{options} {more}".split(), "--metadata", "shop=paris=7")
    assert said.code == 0, said.err
    [row] = rows(engine, "SELECT * FROM batches")
    assert (row["name"], row["priority"], row["idempotency_key"], row["max_in_flight"]) == ("hats", 7, "k", 3)
    assert (float(row["max_cost"]), row["max_attempts"], float(row["tolerated_failure_percent"])) == (2.5, 2, 12.5)
    assert row["deadline"] == datetime(2099, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert (row["notify_url"], row["metadata"]) == ("https://example.com/hook", {"shop": "paris=7"})
    assert row["tolerated_failures"] is None
    assert row["output_expires_after"] == 30 * 86400 + 12 * 3600
    shown = run_cli("status", "last").out
    assert "priority  7\n" in shown
    assert "$0.00 of at most $2.50 committed" in shown


def test_same_key_same_batch(run_cli: CommandLine, engine: Engine, folder: Path) -> None:
    """Handing in twice under one key makes one batch; other content under it is refused."""
    call = ("submit", manifest(folder, {}), "--idempotency-key", "k", "--json")
    first = run_cli(*call).json
    assert run_cli(*call).json == {**first, "existing": True}
    assert count(engine, "batches") == 1
    said = run_cli("submit", manifest(folder, {}, {}), "--idempotency-key", "k")
    assert (said.code, "other content" in said.err) == (2, True)


def test_durations_and_counts(run_cli: CommandLine, engine: Engine, folder: Path) -> None:
    """A deadline may be a duration from now, a tolerance a number of edits."""
    assert run_cli("submit", manifest(folder, {}), "--deadline", "1d2h30m", "--tolerate", "0").code == 0
    [row] = rows(engine, "SELECT deadline - created_at AS within, tolerated_failures FROM batches")
    assert abs(row["within"] - timedelta(days=1, hours=2, minutes=30)) < timedelta(minutes=1)
    assert row["tolerated_failures"] == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--tolerate", "some"), "--tolerate 'some' is neither a number of edits"),
        (("--tolerate", "101%"), "--tolerate: must be"),
        (("--deadline", "soon"), "--deadline 'soon' is neither a duration"),
        (("--deadline", "2020-01-01"), "--deadline '2020-01-01' has passed already."),
        (("--deadline", "9" * 9 + "d"), "is neither a duration"),
        (("--deadline", "2h", "--idempotency-key", "k"), "with --idempotency-key give a time."),
        (("--max-cost", "lots"), "--max-cost: must be a valid decimal."),
        (("--max-in-flight", "0"), "--max-in-flight: must be at least 1."),
        (("--priority", "40000"), "--priority: must be"),
        (("--notify-url", "ftp://x"), "--notify-url: must be a URL"),
        (("--metadata", "shop"), "--metadata 'shop' is not of the form KEY=VALUE."),
        (("--metadata", "a=1", "--metadata", "a=2"), "--metadata names a twice."),
        (("--name", ""), "--name is empty."),
        (("--output-expires-after", "soon"), "--output-expires-after 'soon' is no duration"),
        (("--output-expires-after", "0s"), "--output-expires-after: must be at least 1."),
    ],
)
def test_wrong_options(
    run_cli: CommandLine, engine: Engine, folder: Path, options: tuple[str, ...], sentence: str
) -> None:
    """One sentence that names the option; nothing is written."""
    said = run_cli("submit", manifest(folder, {}), *options)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert said.err.startswith("darkroom: ")
    assert sentence in said.err
    assert count(engine, "batches") == 0


def test_faults_for_programs(run_cli: CommandLine, engine: Engine, folder: Path) -> None:
    """With --json every fault is an object on standard output; files are judged like everything else of a line."""
    path = manifest(
        folder, {}, {"prompt": 7}, {"image_urls": ["missing.png", "text.png"], "custom_id": "c"}, {"custom_id": "c"}
    )
    said = run_cli("submit", path, "--json")
    assert said.code == 2
    assert [(fault["line"], fault["custom_id"], fault["field"]) for fault in said.lines] == [
        (2, None, "prompt"),
        (3, "c", "image_urls"),
        (3, "c", "image_urls"),
        (4, "c", "custom_id"),
    ]
    assert "there is no file" in said.lines[1]["reason"]
    assert "is no image" in said.lines[2]["reason"]
    assert set(said.lines[0]) == {"line", "custom_id", "field", "reason"}
    assert count(engine, "batches") == count(engine, "uploads") == 0


def test_skip_takes_what_is_sound(run_cli: CommandLine, engine: Engine, folder: Path) -> None:
    """A faulty line, and one whose file is missing, stand there as failed; the rest is handed in."""
    path = manifest(folder, {}, {"prompt": 7}, {"image_urls": ["missing.png"], "custom_id": "c"})
    shown = run_cli("submit", path, "--on-invalid", "skip", "--json").json
    assert (shown["edits"], shown["skipped"], "existing" in shown) == (3, 2, False)
    found = rows(engine, "SELECT state, errors -> -1 ->> 'type' AS type, custom_id FROM edits ORDER BY position")
    assert [tuple(row.values()) for row in found] == [
        ("pending", None, None),
        ("failed", "invalid_input", None),
        ("failed", "invalid_input", "c"),
    ]
    assert "(2 faulty lines skipped)" in run_cli("status", "last").out
    assert run_cli("status", "last", "--json").json["skipped"] == 2


def test_dry_run(run_cli: CommandLine, engine: Engine, folder: Path) -> None:
    """It counts, prices, and says what would be uploaded, once per content; it asks nobody and writes nothing."""
    path = manifest(folder, {"max_images": 3}, {"image_urls": ["a.png", "b.png"]})
    shown = run_cli("submit", path, "--dry-run", "--max-cost", "0.1", "--json").json
    size = (folder / "a.png").stat().st_size
    assert (shown["dry_run"], shown["edits"], shown["invalid"]) == (True, 2, 0)
    assert (shown["images_least"], shown["images_most"]) == (2, 4)
    assert (shown["cost_likely"], shown["cost_worst"], shown["price_per_image"]) == (0.06, 0.12, 0.03)
    assert (shown["files"], shown["uploads"], shown["upload_bytes"]) == (1, 1, size)
    assert shown["warnings"] == ["the worst case of $0.12 is more than max_cost, $0.10"]
    said = run_cli("submit", path, "--dry-run")
    assert "likely $0.06, at most $0.12, at $0.03 an image" in said.out
    assert "uploads  1 file" in said.out
    assert count(engine, "batches") == count(engine, "uploads") == 0


def test_dry_run_of_faulty_lines(run_cli: CommandLine, folder: Path) -> None:
    """Faults end it as they would end the real one, unless they are to be skipped."""
    path = manifest(folder, {}, {"image_urls": ["missing.png"]})
    assert run_cli("submit", path, "--dry-run", "--json").lines[0]["line"] == 2
    shown = run_cli("submit", path, "--dry-run", "--on-invalid", "skip", "--json").json
    assert (shown["edits"], shown["invalid"]) == (2, 1)


def test_price_of_our_own(run_cli: CommandLine, folder: Path) -> None:
    """The price that is set is the one that is calculated with."""
    run_cli.set(PRICE_PER_IMAGE="0.5")
    assert run_cli("submit", manifest(folder, {}), "--dry-run", "--json").json["cost_likely"] == 0.5


def test_spreadsheet(run_cli: CommandLine, engine: Engine, folder: Path) -> None:
    """A CSV goes the same ways: dry run, faults, files."""
    path = folder / "m.csv"
    path.write_text("custom_id,prompt,image_urls\na,x,https://example.com/a.png\nb,,missing.png\n")
    assert {fault["line"] for fault in run_cli("submit", path, "--json").lines} == {3}
    path.write_text("custom_id,prompt,image_urls\na,x,https://example.com/a.png\nb,y,missing.png\nc,z,a.png\n")
    shown = run_cli("submit", path, "--dry-run", "--on-invalid", "skip", "--json").json
    assert (shown["edits"], shown["invalid"], shown["uploads"]) == (3, 1, 1)
    path.write_text("prompt,image_urls\nx,https://example.com/a.png\n")
    assert run_cli("submit", path).code == 0
    assert run_cli("append", "last", path, "--json").json["added"] == 1
    assert count(engine, "edits") == 2


def test_a_row_in_another_encoding_is_skipped_alone(run_cli: CommandLine, engine: Engine, folder: Path) -> None:
    """A table from Excel with one such row: the other eighteen are handed in, and the one is named."""
    rows = [b"x;https://example.com/a.png"] * 19
    path = folder / "m.csv"
    path.write_bytes(b"\r\n".join([b"prompt;image_urls", "é;https://example.com/a.png".encode("cp1252"), *rows]))
    shown = run_cli("submit", path, "--on-invalid", "skip", "--json").json
    assert (shown["edits"], shown["skipped"]) == (20, 1)
    assert count(engine, "edits") == 20
    said = run_cli("submit", path)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "line 2: is not UTF-8" in said.err
    assert "save the file as UTF-8" in said.err


@pytest.mark.parametrize("size", [(5000, 5000), (12000, 12000), (100000, 10), (4096, 100)])
def test_a_size_that_the_provider_refuses_is_refused_before(
    run_cli: CommandLine, engine: Engine, folder: Path, size: tuple[int, int]
) -> None:
    """By the dry run too, with the limit."""
    width, height = size
    for call in (("--dry-run",), ()):
        said = run_cli("submit", manifest(folder, {"image_size": {"width": width, "height": height}}), *call)
        assert said.code == 2
        assert ("at most 4096" in said.err) or ("at most 16 times" in said.err)
    said = run_cli("edit", "--prompt", "x", "--image", "https://example.com/a.png", "--size", f"{width}x{height}")
    assert said.code == 2
    assert "--size: " in said.err
    assert count(engine, "batches") == 0


def test_a_workbook_is_named(run_cli: CommandLine, engine: Engine, folder: Path) -> None:
    """One sentence that says what to do instead."""
    path = folder / "m.xlsx"
    path.write_bytes(b"PK\x03\x04" + bytes(30) + b"[Content_Types].xml" + bytes(300))
    said = run_cli("submit", path, "--on-invalid", "skip")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "an Excel workbook (.xlsx); in its program save the sheet as CSV UTF-8" in said.err
    assert count(engine, "batches") == 0
