"""A folder that others may write to: no link leads out of it, and names that a file system takes for one stay two."""

import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DownloadError, NotFound, UserError
from storage import local_folder
from storage.local_paths import folds_case, spell_distinctly
from storage.store import Storage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def storage(folder: Path) -> Storage:
    return Storage(folder.as_uri())


def read(storage: Storage, key: str) -> bytes:
    with storage.get(key, max_bytes=100) as file:
        return file.read()


def test_a_file_of_the_store_is_read(storage: Storage, folder: Path) -> None:
    """By its key, or by its whole URL; its size is bounded."""
    storage.put("a/b.jsonl", io.BytesIO(b"{}"))
    assert read(storage, "a/b.jsonl") == read(storage, f"{folder.as_uri()}/a/b.jsonl") == b"{}"
    storage.put("large", io.BytesIO(bytes(101)))
    with pytest.raises(UserError, match="has 101 bytes; at most 100"):
        read(storage, "large")


@pytest.mark.parametrize("place", ["link", "folder/secret", "deep/link"])
def test_no_link_is_followed(place: str, storage: Storage, folder: Path, tmp_path: Path) -> None:
    """Whoever may write into the store must not read with it what we may read: not a file, not a folder."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("s")
    (folder / "deep").mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path / "outside" / "secret")
    (folder / "deep" / "link").symlink_to(tmp_path / "outside" / "secret")
    (folder / "folder").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="behind a link"):
        read(storage, place)


@pytest.mark.parametrize("place", ["quarantine", "quarantine/batch", ".incoming"])
def test_nothing_behind_a_link_is_removed_or_overwritten(
    place: str, storage: Storage, folder: Path, tmp_path: Path
) -> None:
    """Nor must he have us remove what we may remove, or write where we may write: pruning, tidying up, storing."""
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("0.png", "precious"):
        (outside / name).write_text("precious")
        os.utime(outside / name, (0, 0))
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).symlink_to(outside)
    (folder / "quarantine" if place == ".incoming" else folder / place).parent.mkdir(exist_ok=True)

    again = Storage(folder.as_uri())
    assert list(again.list_older("quarantine", 60)) == []
    if place != ".incoming":
        with pytest.raises(DownloadError):
            again.delete(f"{place}/precious")
        with pytest.raises(DownloadError):
            again.put(f"{place}/0.png", io.BytesIO(b"image"))
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"0.png": "precious", "precious": "precious"}


def test_a_link_among_files_that_are_kept_for_a_time(storage: Storage, folder: Path, tmp_path: Path) -> None:
    """It is no file, so it is not listed; whoever removes it removes the link alone."""
    (tmp_path / "secret").write_text("s")
    storage.put("quarantine/a", io.BytesIO(b"x"))
    (folder / "quarantine" / "link").symlink_to(tmp_path / "secret")
    assert list(storage.list_older("quarantine", -60)) == ["quarantine/a"]
    storage.delete("quarantine/link")
    assert [path.name for path in (folder / "quarantine").iterdir()] == ["a"]
    assert (tmp_path / "secret").exists()


@pytest.mark.parametrize("key", ["none", "../outside", "a/../../outside", "/etc/passwd", "", "a//b"])
def test_what_is_not_there(key: str, storage: Storage, tmp_path: Path) -> None:
    """A path out of the store leads nowhere."""
    (tmp_path / "outside").write_text("s")
    with pytest.raises(NotFound):
        read(storage, key)


def test_what_is_no_file(storage: Storage, folder: Path) -> None:
    """A folder, or a pipe that would keep us waiting for ever."""
    (folder / "folder").mkdir(parents=True)
    os.mkfifo(folder / "pipe")
    for key in ("folder", "pipe"):
        with pytest.raises(UserError, match="cannot be read"):
            read(storage, key)


def test_the_store_itself_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    """Where the operator's own STORAGE_URL leads is the operator's business."""
    Storage(folder.as_uri()).put("a", io.BytesIO(b"x"))
    (tmp_path / "alias").symlink_to(folder)
    assert read(Storage((tmp_path / "alias").as_uri()), "a") == b"x"


def test_this_file_system_is_asked(storage: Storage, folder: Path) -> None:
    """The probe tells what the file system does, and leaves nothing."""
    folder.mkdir(exist_ok=True)
    (folder / "Hat").touch()
    assert folds_case(folder) is (folder / "hat").exists()
    assert [path.name for path in folder.iterdir() if path.name.startswith("Case-")] == []


def test_names_stay_as_they_are_where_they_are_told_apart(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The contract's key, whatever is in it."""
    monkeypatch.setattr(local_folder, "folds_case", lambda _: False)
    assert storage.key_of("b/Hat/0") == "b/Hat/0"


def test_two_names_are_two_images_where_case_is_folded(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Hat` would overwrite `hat`, and so would é written in two ways; the lower-case name keeps the contract's key."""
    monkeypatch.setattr(local_folder, "folds_case", lambda _: True)
    keys = [storage.key_of(f"b/{name}/0") for name in ("hat", "Hat", "HAT", "\u00e9t\u00e9", "e\u0301te\u0301")]
    assert keys[0] == "b/hat/0"
    assert keys[1].startswith("b/Hat~")
    assert len({key.casefold() for key in keys}) == 5


@given(st.text(max_size=20), st.text(max_size=20))
def test_no_two_names_fold_into_one(one: str, other: str) -> None:
    """Whatever they are."""
    if one != other:
        assert spell_distinctly(one).casefold() != spell_distinctly(other).casefold()
