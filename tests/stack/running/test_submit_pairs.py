"""`darkroom submit --images DIR --prompts FILE`: what it would cost is shown first, and nothing is paid for unasked."""

import json
import os
import pty
import subprocess
from pathlib import Path
from typing import Any

import pillow_heif
import pytest
import requests
from PIL import Image
from sqlalchemy import Engine

from tests.support.command_line import CommandLine
from tests.support.input_files import drawn, encoded, turned
from tests.support.running_stack import PYTHON, Stack
from tests.support.terminals import read_terminal


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three images as a camera and a person name them, and what else lies there."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    (folder / "IMG_1.JPG").write_bytes(encoded(drawn((300, 200)), "JPEG"))
    (folder / "Käse.png").write_bytes(encoded(drawn((300, 200), seed=2), "PNG"))
    (folder / "more" / "IMG_1.jpg").write_bytes(encoded(drawn((300, 200), seed=3), "JPEG", exif=turned(6)))
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    return folder


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.csv"
    rows = ("\ufeffprompt,num_images,image_size,", '"A red hat, please",2,square,', "Blau,,square,", ",,,")
    path.write_bytes("\r\n".join(rows).encode())
    return path


def pairs(photos: Path, prompts: Path, *options: str) -> tuple[str, ...]:
    return ("submit", "--images", str(photos), "--prompts", str(prompts), *options)


def batches(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM batches").scalar() or 0)


def test_dry_run(run_cli: CommandLine, engine: Engine, photos: Path, prompts: Path) -> None:
    """Counts, costs, what was passed over, and a few examples; a column of the prompts counts for each image."""
    shown = run_cli(*pairs(photos, prompts, "--dry-run", "--json")).json
    assert (shown["edits"], shown["images_most"], shown["cost_worst"], shown["files"]) == (6, 9, 0.27, 3)
    said = run_cli(*pairs(photos, prompts, "--dry-run"))
    assert said.code == 0
    for line in (
        "pairs     3 images with 2 prompts",
        "left out  1 hidden file, 1 other file",
        "example   IMG_1.1  IMG_1.JPG: A red hat, please",
        "example   more-IMG_1.2  IMG_1.jpg: Blau",
    ):
        assert line in said.out
    assert "$0.27 at $0.03 an image" in said.out
    assert f"{photos}/more/IMG_1.jpg is upright by its EXIF orientation only" in said.err
    shown = run_cli(*pairs(photos, prompts, "--sample", "4", "--dry-run", "--json")).json
    assert (shown["edits"], shown["files"]) == (4, 3)
    assert "4 of these 6 edits drawn evenly" in run_cli(*pairs(photos, prompts, "--sample", "4", "--dry-run")).out
    assert run_cli(*pairs(photos, prompts, "--sample", "99", "--dry-run", "--json")).json["edits"] == 6
    assert batches(engine) == 0


def test_nobody_is_asked_without_a_terminal(
    run_cli: CommandLine, engine: Engine, photos: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script says that it means it; until then nothing is submitted, and no image read."""
    said = run_cli(*pairs(photos, prompts))
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert "6 edits would be submitted, and there is no terminal on which to ask: give --yes" in said.err
    said = run_cli(*pairs(photos, prompts, "--json"))
    assert "With --json nobody is asked: give --yes, or --dry-run." in said.err
    assert batches(engine) == 0


def test_a_bad_file_is_named_once(run_cli: CommandLine, engine: Engine, photos: Path, prompts: Path) -> None:
    """However many prompts it would have met; what can be converted says how."""
    (photos / "page.png").write_bytes(b"<!doctype html>")
    (photos / "scan.tif").write_bytes(encoded(drawn(), "TIFF"))
    said = run_cli(*pairs(photos, prompts, "--yes"))
    assert (said.code, said.err.count("page.png"), said.err.count("scan.tif")) == (2, 1, 1)
    assert "it is TIFF; save it as JPEG or PNG, or give --convert" in said.err
    shown = run_cli(*pairs(photos, prompts, "--dry-run", "--on-invalid", "skip", "--convert", "--json"))
    assert (shown.json["edits"], shown.json["invalid"]) == (10, 2)
    assert f"{photos}/scan.tif: TIFF sent as PNG\n" in shown.err
    assert f"{photos}/more/IMG_1.jpg: JPEG sent as JPEG: turned upright\n" in shown.err
    assert not any("EXIF" in warning for warning in shown.json["warnings"])
    assert batches(engine) == 0


def test_the_manifest_instead(run_cli: CommandLine, photos: Path, prompts: Path, tmp_path: Path) -> None:
    """A file, whole or not there, that `submit` takes from any folder; none is overwritten."""
    out = tmp_path / "m.jsonl"
    assert run_cli(*pairs(photos, prompts, "--out", str(out), "--json")).json == {"manifest": str(out), "edits": 6}
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["custom_id"] for line in lines] == [
        f"{image}.{prompt}" for image in ("IMG_1", "Kase", "more-IMG_1") for prompt in (1, 2)
    ]
    assert lines[0] == {
        "custom_id": "IMG_1.1",
        "image_urls": [str(photos / "IMG_1.JPG")],
        "prompt": "A red hat, please",
        "num_images": 2,
        "image_size": "square",
    }
    assert run_cli("submit", out, "--dry-run", "--json").json["edits"] == 6
    said = run_cli(*pairs(photos, prompts, "--out", str(out)))
    assert (said.code, f"{out} is there already" in said.err) == (2, True)
    said = run_cli(*pairs(photos, prompts, "--out", str(tmp_path / "nowhere" / "m")))
    assert (said.code, "cannot be written" in said.err) == (2, True)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["m.jsonl", "prompts.csv"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "Give a MANIFEST, or --images and --prompts."),
        (("--images", "."), "Give a MANIFEST, or --images and --prompts."),
        (("m.jsonl", "--yes"), "--images, --prompts, --sample, --out and --yes stand in the place of MANIFEST."),
    ],
)
def test_options_that_do_not_go_together(
    run_cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], sentence: str
) -> None:
    """Said at once."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.jsonl").write_text("{}")
    said = run_cli("submit", *options)
    assert (said.code, sentence in said.err) == (2, True)


def answer(stack: Stack, said: bytes, *arguments: str) -> tuple[int, str]:
    """A command on a terminal, and what a person types there."""
    try:
        leader, follower = pty.openpty()
    except OSError as error:  # a chroot without /dev/pts
        pytest.skip(f"this machine gives no terminal: {error}")
    variables = os.environ | {"DARKROOM_HOME": str(stack.home), "TERM": "xterm", "COLUMNS": "120", "NO_COLOR": "1"}
    streams: Any = {"stdin": follower, "stdout": follower, "stderr": follower}
    with subprocess.Popen((*PYTHON, *arguments), env=variables, **streams) as process:
        os.close(follower)
        os.write(leader, said)
        *_, shown = read_terminal(leader)
    return process.returncode, shown.decode()


def newest(stack: Stack) -> dict[str, Any]:
    return dict(json.loads(stack.run("status", "last", "--json").stdout))


def test_asked_and_done(stack: Stack, photos: Path, prompts: Path) -> None:
    """Yes goes the whole way: converted, stored under the names that were shown; after no there is no further batch."""
    options = ("--sample", "3", "--convert", "--name", "pairs")
    code, shown = answer(stack, b"y\n", *pairs(photos, prompts, *options, "--wait"))
    assert (code, "Submit 3 edits, for at most $0." in shown) == (0, True), shown
    done = newest(stack)
    assert (done["name"], done["stored"]) == ("pairs", 3)
    names = {json.loads(line)["custom_id"] for line in stack.run("export", "last").stdout.splitlines()}
    assert names <= {f"{image}.{prompt}" for image in ("IMG_1", "Kase", "more-IMG_1") for prompt in (1, 2)}

    code, shown = answer(stack, b"n\n", *pairs(photos, prompts))
    assert (code, "Submit 6 edits, for at most $0.27? [y/N]" in shown) == (2, True)
    assert "Nothing was submitted." in shown
    assert newest(stack)["batch_id"] == done["batch_id"]

    said = stack.run(*pairs(photos, prompts, *options, "--yes", "--json"))
    assert json.loads(said.stdout)["edits"] == 3


def test_heic_of_a_phone_reaches_the_model(stack: Stack, tmp_path: Path) -> None:
    """`edit --convert`: what the provider fetches is a JPEG, whatever the file is called."""
    pillow_heif.register_heif_opener(thumbnails=False)
    (tmp_path / "IMG_2.jpg").write_bytes(encoded(drawn((300, 200)), "HEIF"))
    command = ("edit", "--prompt", "x", "--image", str(tmp_path / "IMG_2.jpg"), "--wait")
    said = stack.run(*command)
    assert (said.returncode, "it is HEIC; save it as JPEG or PNG, or give --convert" in said.stderr) == (2, True)
    said = stack.run(*command, "--convert", "--json")
    assert said.returncode == 0, said.stderr
    assert "IMG_2.jpg: HEIC sent as JPEG" in said.stderr
    [url] = json.loads(stack.run("export", "last").stdout)["edit"]["image_urls"]
    with Image.open(requests.Session().get(url, stream=True, timeout=60).raw) as image:
        assert (image.format, image.size) == ("JPEG", (300, 200))
