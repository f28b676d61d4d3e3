"""A folder as people have it: what is taken for an image, what is passed over, and that it is said."""

import os
from pathlib import Path

import pytest

from cli.batches.image_folder import find_images
from core.errors import UserError
from tests.support.input_files import drawn, encoded

PNG = encoded(drawn(), "PNG")


def fill(folder: Path, *names: str, content: bytes = PNG) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_images_and_what_lies_between(tmp_path: Path) -> None:
    """By their names or their bytes, in folders beneath too; nothing is passed over without a word."""
    fill(tmp_path, "b.png", "A.JPG", "Käse.webp", "sub/deep/c.heic", "no ending", "photo.bin")
    fill(tmp_path, "Thumbs.db", "notes.txt", "sub/prompts.csv", content=b"x")
    fill(tmp_path, ".DS_Store", "._b.png", "sub/.b.png", ".git/d.png", "__MACOSX/b.png", "@eaDir/b.png")
    fill(tmp_path, "page.png", content=b"<html>")  # meant to be one: it is named later, not passed over
    found = find_images(tmp_path)
    names = ["A.JPG", "Käse.webp", "b.png", "no ending", "page.png", "photo.bin", "sub/deep/c.heic"]
    assert sorted(map(str, found.images)) == sorted(names)
    assert found.images == sorted(found.images)
    assert found.passed_over == {"other file": 3, "hidden file": 3, "hidden folder": 3}


def test_links(tmp_path: Path) -> None:
    """A link to an image elsewhere is one, a link to one in the folder is not paid for twice, circles do no harm."""
    fill(tmp_path, "photos/b.png", "elsewhere/e.png")
    folder = tmp_path / "photos"
    (folder / "a.png").symlink_to(folder / "b.png")
    (folder / "z.png").symlink_to(tmp_path / "elsewhere" / "e.png")
    (folder / "zz.png").symlink_to(tmp_path / "elsewhere" / "e.png")
    (folder / "circle").symlink_to(folder)
    (folder / "gone.png").symlink_to(folder / "nothing")
    found = find_images(folder)
    assert [str(path) for path in found.images] == ["b.png", "gone.png", "z.png"]
    assert found.passed_over == {"repeated link": 2, "folder link": 1}


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    """It would wait for a writer."""
    fill(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe")
    assert find_images(tmp_path).passed_over == {"other file": 1}


def test_no_image(tmp_path: Path) -> None:
    """In one sentence."""
    fill(tmp_path, "notes.txt", content=b"x")
    with pytest.raises(UserError, match="There is no image in"):
        find_images(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    """Is a fault, and not an empty folder."""
    fill(tmp_path, "a.png", "sub/b.png")
    (tmp_path / "sub").chmod(0)
    with pytest.raises(UserError, match="sub cannot be read"):
        find_images(tmp_path)
