"""The images in a folder and in those beneath it, as people have them: with notes, hidden files and links between."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from core.errors import UserError
from core.image_kinds import looks_like_image

SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in "png jpg jpeg jpe jfif webp gif heic heif hif avif tif tiff bmp psd ico jp2 svg".split()  # noqa: SIM905
)
"""What is named so is meant to be an image; what it is, its bytes tell later."""
NOT_THEIRS = frozenset({"__MACOSX", "@eaDir"})
"""Folders that archives of macOS and storage of Synology put beside somebody's images, with images of their own."""


class ImageFolder(NamedTuple):
    """Images relative to a folder, in the order of their names, and what else is in it: words, and how many."""

    folder: Path
    images: list[Path]
    passed_over: Counter[str]


def find_images(folder: Path) -> ImageFolder:
    """Every file that is named like an image or begins like one; a link to one that is there already is none.

    Raises:
        UserError: there is none, or a folder cannot be read.
    """
    passed_over: Counter[str] = Counter()
    images: list[Path] = []
    there: set[Path] = set()
    for path in _walk(folder, passed_over):
        if not _is_meant(path):
            passed_over["other file"] += 1
        elif (real := Path(os.path.realpath(path))) in there:
            passed_over["repeated link"] += 1
        else:
            there.add(real)
            images.append(path.relative_to(folder))
    if not images:
        raise UserError(f"There is no image in {folder}.")
    return ImageFolder(folder, sorted(images), passed_over)


def _walk(folder: Path, passed_over: Counter[str]) -> Iterator[Path]:
    """The files; what is no link comes first, so that it is the one that counts."""
    links = []
    for place, folders, files in os.walk(folder, onerror=_refuse):
        for name in list(folders):
            if name.startswith(".") or name in NOT_THEIRS:
                passed_over["hidden folder"] += 1
                folders.remove(name)
            elif Path(place, name).is_symlink():  # it may lead in a circle, or anywhere
                passed_over["folder link"] += 1
        for name in files:
            path = Path(place, name)
            if name.startswith("."):
                passed_over["hidden file"] += 1
            elif path.is_symlink():
                links.append(path)
            else:
                yield path
    yield from sorted(links)


def _refuse(error: OSError) -> None:
    raise UserError(f"The folder {error.filename} cannot be read: {error.strerror}.") from None


def _is_meant(path: Path) -> bool:
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        if not path.is_file():  # a pipe would wait for a writer
            return False
        with path.open("rb") as file:
            return looks_like_image(file.read(32))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
