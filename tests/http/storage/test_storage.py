"""What stands under a key is whole: the new object or the one before it, never a part, whatever happens meanwhile."""

import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from textwrap import dedent
from urllib.parse import quote

import pytest

from core.errors import FetchAgain, SettingsError, Unusable
from storage.local_folder import ABANDONED_AFTER, INCOMING
from storage.store import Storage

LARGE = 12_000_000
"""Bytes; more than one part of a multipart upload."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a folder" / "images"


@pytest.fixture
def storage(folder: Path) -> Storage:
    return Storage(folder.as_uri())


class Halting(io.BytesIO):
    """A file that stops in the middle until it is told to go on, or to break."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.halted, self.should_continue, self.breaks = threading.Event(), threading.Event(), False

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > LARGE // 2 and not self.halted.is_set():
            self.halted.set()
            self.should_continue.wait(10)
            if self.breaks:
                raise OSError("the disk of the temporary file is gone")
        return super().read(size)


def putting(storage: Storage, key: str, file: io.BytesIO) -> tuple[threading.Thread, list[Exception]]:
    """A put under way in another thread, and what it raised."""
    errors: list[Exception] = []

    def put() -> None:
        try:
            storage.put(key, file)
        except FetchAgain as error:
            errors.append(error)

    thread = threading.Thread(target=put)
    thread.start()
    return thread, errors


def test_put(storage: Storage, folder: Path) -> None:
    """The bytes stand under the key, from the file's beginning, in folders made on the way."""
    file = io.BytesIO(b"abc")
    file.seek(2)

    storage.put("batch/id/0.png", file, "image/png")

    assert (folder / "batch/id/0.png").read_bytes() == b"abc"


def test_put_again(storage: Storage, folder: Path) -> None:
    """The same key again replaces what was there, larger or smaller."""
    for content in (b"a" * 1000, b"b", b"c" * LARGE, b""):
        storage.put("k", io.BytesIO(content))
        assert (folder / "k").read_bytes() == content
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["k"]


@pytest.mark.parametrize("before", [None, b"old"])
def test_half_a_put_shows_nothing(before: bytes | None, storage: Storage, folder: Path) -> None:
    """While the bytes are still coming the key shows what was there before; then, at once, all of them."""
    if before is not None:
        storage.put("k", io.BytesIO(before))
    file = Halting(b"n" * LARGE)
    thread, errors = putting(storage, "k", file)
    assert file.halted.wait(5)

    shown = (folder / "k").read_bytes() if (folder / "k").exists() else None
    file.should_continue.set()
    thread.join()

    assert shown == before
    assert errors == []
    assert (folder / "k").read_bytes() == b"n" * LARGE


@pytest.mark.parametrize("before", [None, b"old"])
def test_broken_put_changes_nothing(before: bytes | None, storage: Storage, folder: Path) -> None:
    """A put that breaks off leaves what was there before, and may be tried again."""
    if before is not None:
        storage.put("k", io.BytesIO(before))
    file = Halting(b"n" * LARGE)
    file.breaks = True
    file.should_continue.set()

    thread, errors = putting(storage, "k", file)
    thread.join()

    assert [type(error) for error in errors] == [FetchAgain]
    assert ((folder / "k").read_bytes() if (folder / "k").exists() else None) == before
    storage.put("k", io.BytesIO(b"whole"))
    assert (folder / "k").read_bytes() == b"whole"


def test_reader_never_sees_a_part(storage: Storage, folder: Path) -> None:
    """Two writers take turns on one key; whoever reads sees all of one or all of the other."""
    contents = {b"a" * 3_000_000, b"b" * 2_000_000}
    storage.put("k", io.BytesIO(next(iter(contents))))
    stop, seen, strange = threading.Event(), set(), []

    def read() -> None:
        while not stop.is_set():
            found = (folder / "k").read_bytes()
            seen.add(found[:1])
            if found not in contents:
                strange.append(len(found))

    reader = threading.Thread(target=read)
    reader.start()
    writers = [putting_often(storage, content) for content in contents]
    for writer in writers:
        writer.join()
    stop.set()
    reader.join()

    assert strange == []
    assert seen == {b"a", b"b"}


def putting_often(storage: Storage, content: bytes) -> threading.Thread:
    thread = threading.Thread(target=lambda: [storage.put("k", io.BytesIO(content)) for _ in range(20)])
    thread.start()
    return thread


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


def test_many_at_once(storage: Storage, folder: Path) -> None:
    """Sixteen threads share a store."""
    threads = [
        threading.Thread(target=storage.put, args=(f"b/{number}/0.png", io.BytesIO(bytes([number]) * 100_000)))
        for number in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [(folder / f"b/{number}/0.png").read_bytes()[-1] for number in range(16)] == list(range(16))


def test_killed_writer_leaves_nothing_beside_the_images(storage: Storage, folder: Path) -> None:
    """SIGKILL in the middle of a put: no part of a file under the key, nor under any name beside it."""
    storage.put("batch/0.png", io.BytesIO(b"old"))
    script = f"""
        import tests.http.storage.test_storage as t
        file = t.Halting(b"n" * t.LARGE)
        t.putting(t.Storage({folder.as_uri()!r}), "batch/0.png", file)
        print(file.halted.wait(10), flush=True)
        file.should_continue.wait()
    """
    command = [sys.executable, "-c", dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = writer.stdout.readline()
        writer.kill()

    assert said == "True\n"
    assert (folder / "batch/0.png").read_bytes() == b"old"
    assert [path.name for path in folder.rglob("*") if path.is_file() and INCOMING not in path.parts] == ["0.png"]


def test_what_a_killed_writer_left_is_swept(folder: Path) -> None:
    """Parts lie aside, never beside an image; old ones go when the store is opened, young ones may be in work."""
    incoming = folder / INCOMING
    incoming.mkdir(parents=True)
    for name, age in (("old", 2 * ABANDONED_AFTER), ("young", 0)):
        (incoming / name).write_bytes(b"part")
        os.utime(incoming / name, (time.time() - age, time.time() - age))

    Storage(folder.as_uri())

    assert [path.name for path in incoming.iterdir()] == ["young"]
