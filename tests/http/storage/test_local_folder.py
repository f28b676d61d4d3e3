"""A folder as a store: what else people put there, remove, or set in its way."""

import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from core.errors import FetchAgain, SettingsError, StorageUnavailable, Unusable
from storage.local_folder import ABANDONED_AFTER, INCOMING
from storage.store import Storage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a folder" / "images"


@pytest.fixture
def storage(folder: Path) -> Storage:
    return Storage(folder.as_uri())


@pytest.mark.parametrize("make", [True, False])
def test_folder_that_can_have_no_such_name(make: bool) -> None:
    """What the file system says of the name is a sentence, whether the folder is made or only looked for."""
    with pytest.raises(SettingsError, match="STORAGE_URL cannot be opened"):
        Storage(f"file:///{'x' * 300}", make=make)


@pytest.mark.parametrize(
    "key", ["b/A.b_c-1/0.png", "b/a b/0", "b/ü🦊/0", "b/%2e%20%/0", "b/#?&=+/0", "b/...x/0", "b/~/0"]
)
def test_odd_characters(key: str, storage: Storage, folder: Path) -> None:
    """The key is the path, character by character."""
    storage.put(key, io.BytesIO(b"x"))

    assert [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()] == [key]


@pytest.mark.parametrize("key", ["../up", "a/../../up", "/../up", "a//b", "a/./b", "x" * 300, "a\nb", "", "a\0b"])
def test_key_that_cannot_be_one(key: str, storage: Storage, folder: Path) -> None:
    """A key that would leave the folder, or that it cannot hold, is this image's trouble alone, and stays so."""
    with pytest.raises(Unusable) as caught:
        storage.put(key, io.BytesIO(b"x"))

    assert caught.value.type == "storage_key_refused"
    assert len(caught.value.message) <= 500
    assert [path for path in folder.parent.parent.rglob("*") if path.is_file()] == []


def test_folder_that_cannot_be_written(storage: Storage, folder: Path) -> None:
    """Something in the way, or a folder that is gone and cannot come back: try again later."""
    storage.put("batch", io.BytesIO(b"a file where a folder should be"))

    with pytest.raises(FetchAgain) as caught:
        storage.put("batch/id/0.png", io.BytesIO(b"x"))

    assert caught.value.type == "storage_error"
    assert len(caught.value.message) <= 500


def test_folder_that_was_removed(storage: Storage, folder: Path) -> None:
    """Somebody tidied up while we ran: the folder is made again."""
    folder.rmdir()

    storage.put("batch/id/0.png", io.BytesIO(b"x"))

    assert (folder / "batch/id/0.png").read_bytes() == b"x"


def test_folder_that_is_gone_is_no_missing_image(storage: Storage, folder: Path) -> None:
    """Its disk is not mounted, say: the store gives nothing for now, and nobody may conclude that images are lost."""
    storage.put("k", io.BytesIO(b"x"))
    folder.rename(folder.parent / "elsewhere")

    with pytest.raises(StorageUnavailable) as caught, storage.get("k", max_bytes=10):
        pass

    assert caught.value.type == "bucket_missing"


@pytest.mark.parametrize("name", ["ümlaut", "a b", "100%", "a#b"])
def test_folder_with_an_odd_name(name: str, tmp_path: Path) -> None:
    """The URL names the folder in its quoted form."""
    Storage(f"file://{quote(str(tmp_path / name))}").put("k", io.BytesIO(b"x"))

    assert (tmp_path / name / "k").read_bytes() == b"x"


def test_store_that_cannot_be_opened(tmp_path: Path) -> None:
    """A file where the folder should be is one sentence at the start, not an error per image."""
    (tmp_path / "file").write_text("x")

    with pytest.raises(SettingsError, match="STORAGE_URL cannot be opened"):
        Storage((tmp_path / "file" / "images").as_uri())


@pytest.mark.parametrize("url", ["s3://", "gs://", "az://", "nonsense://x"])
def test_url_of_no_store(url: str) -> None:
    """So is a URL that names no store."""
    with pytest.raises(SettingsError, match="STORAGE_URL cannot be opened"):
        Storage(url)


def test_what_a_killed_writer_left_is_swept(folder: Path) -> None:
    """Parts lie aside, never beside an image; old ones go when the store is opened, young ones may be in work."""
    incoming = folder / INCOMING
    incoming.mkdir(parents=True)
    for name, age in (("old", 2 * ABANDONED_AFTER), ("young", 0)):
        (incoming / name).write_bytes(b"part")
        os.utime(incoming / name, (time.time() - age, time.time() - age))

    Storage(folder.as_uri())

    assert [path.name for path in incoming.iterdir()] == ["young"]


@contextmanager
def shut(folder: Path) -> Iterator[None]:
    """Nobody may enter it; root, whom nothing keeps out, is nobody meanwhile."""
    folder.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o700)


def test_folder_that_may_no_longer_be_entered(storage: Storage, folder: Path) -> None:
    """It is there, and its images are not lost: trouble of the store, whatever Python says of such a folder."""
    storage.put("b/a.png", io.BytesIO(b"x"))
    with (
        shut(folder.parent),
        pytest.raises(StorageUnavailable, match="Permission denied"),
        storage.get("b/a.png", max_bytes=10),
    ):
        pass
    with shut(folder.parent), pytest.raises(SettingsError, match=r"STORAGE_URL cannot be opened: .*ermission denied"):
        Storage(folder.as_uri(), make=False)
