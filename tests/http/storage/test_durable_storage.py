"""What is called stored outlives a power cut, and what the store cannot take is told from what one image cannot be.

A power cut itself cannot be tested here, nor whether a disk keeps its promise. What can be: that everything is synced,
in the order in which it must be, before a put returns; and that no put returns after a sync has failed.
"""

import errno
import io
import os
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from core.errors import DownloadError, FetchAgain, StorageUnavailable, Unusable
from storage import store as module
from storage.local_folder import INCOMING
from storage.store import Storage
from tests.support.servers import Peer, closed_port, serve

IMAGE = os.urandom(300_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "images"


def _path_of(handle: int | None) -> Path:
    return Path() if handle is None else Path(os.readlink(f"/proc/self/fd/{handle}"))


class Calls:
    """What is asked of the file system, while it is really done, in its order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.seen: list[tuple[str, str]] = []
        self._folder = folder
        self._watch(monkeypatch, os, "fsync", _path_of)
        self._watch(monkeypatch, os, "mkdir", lambda path, *_, dir_fd=None: _path_of(dir_fd) / path)
        self._watch(monkeypatch, os, "replace", lambda _, target, *, dst_dir_fd=None: _path_of(dst_dir_fd) / target)

    def _watch(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, path: Callable[..., Path]) -> None:
        real = getattr(owner, name)

        def call(*arguments, **options):
            done = real(*arguments, **options)
            self.seen.append((name, self._named(path(*arguments, **options))))
            return done

        monkeypatch.setattr(owner, name, call)

    def _named(self, path: Path) -> str:
        if path == self._folder.parent:
            return ".."
        name = str(path.relative_to(self._folder))
        return f"{INCOMING}/part" if name.startswith(f"{INCOMING}/") else name

    def first(self, *call: str) -> int:
        return self.seen.index(call)  # type: ignore[arg-type]

    def last(self, *call: str) -> int:
        return len(self.seen) - 1 - self.seen[::-1].index(call)  # type: ignore[arg-type]


def test_everything_is_synced_before_a_put_returns(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes before the name; every new name, the folders' own too, before the put is over."""
    store = Storage(folder.as_uri())
    calls = Calls(monkeypatch, folder)

    store.put("batch/id/0.png", io.BytesIO(IMAGE))

    renamed = calls.first("replace", "batch/id/0.png")
    assert calls.first("fsync", f"{INCOMING}/part") < renamed
    assert renamed < calls.last("fsync", "batch/id")
    assert calls.first("mkdir", "batch/id") < calls.last("fsync", "batch")
    assert calls.first("mkdir", "batch") < calls.last("fsync", ".")


def test_new_store_is_durable_in_the_folder_that_holds_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that somebody removed is made again: its own name counts too."""
    store = Storage(folder.as_uri())
    folder.rmdir()
    calls = Calls(monkeypatch, folder)

    store.put("batch/id/0.png", io.BytesIO(IMAGE))

    assert calls.first("mkdir", ".") < calls.last("fsync", "..")


def test_folder_that_another_thread_has_just_made_is_synced_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever finds the folder there cannot know whether its name is durable."""
    store = Storage(folder.as_uri())
    (folder / "batch" / "id").mkdir(parents=True)
    calls = Calls(monkeypatch, folder)

    store.put("batch/id/0.png", io.BytesIO(IMAGE))

    assert {("fsync", name) for name in ("batch/id", "batch", ".")} <= set(calls.seen)


@pytest.mark.parametrize("failing", range(4))
@pytest.mark.parametrize(("number", "reason"), [(errno.EIO, "disk_error"), (errno.ENOSPC, "disk_full")])
def test_sync_that_fails_is_no_success(
    failing: int, number: int, reason: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the file or of any folder: the put says so, and the same put later is whole."""
    store = Storage(folder.as_uri())
    (folder / INCOMING).mkdir()
    real, count = os.fsync, iter(range(100))

    def fsync(handle: int) -> None:
        if next(count) == failing:
            raise OSError(number, os.strerror(number))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageUnavailable) as caught:
        store.put("batch/id/0.png", io.BytesIO(IMAGE))
    assert caught.value.type == reason

    store.put("batch/id/0.png", io.BytesIO(IMAGE))
    assert (folder / "batch/id/0.png").read_bytes() == IMAGE
    assert list((folder / INCOMING).iterdir()) == []


def test_file_system_without_that_call(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network file systems refuse to sync a folder, because they have nothing to sync: no error of ours."""
    store = Storage(folder.as_uri())
    real = os.fsync

    def fsync(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)

    store.put("batch/id/0.png", io.BytesIO(IMAGE))

    assert (folder / "batch/id/0.png").read_bytes() == IMAGE


def trouble(store: Storage, key: str = "batch/id/0.png") -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        store.put(key, io.BytesIO(IMAGE))
    return caught.value


def test_full_disk(small_disk: Path) -> None:
    """It is nobody's fault but ours; nothing half-written stays, and once there is room it goes on."""
    store = Storage(small_disk.as_uri())
    (small_disk / "ballast").write_bytes(bytes(400_000))

    error = trouble(store)
    left = [path for path in small_disk.rglob("*") if path.is_file()]
    (small_disk / "ballast").unlink()
    store.put("batch/id/0.png", io.BytesIO(IMAGE))

    assert (type(error), error.type) == (StorageUnavailable, "disk_full")
    assert "No space left on device" in error.message
    assert left == [small_disk / "ballast"]


def test_disk_that_became_read_only(small_disk: Path) -> None:
    """What Linux does to a disk with errors."""
    store = Storage(small_disk.as_uri())
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    assert (trouble(store).type, type(trouble(store))) == ("not_writable", StorageUnavailable)


def test_too_many_open_files(folder: Path) -> None:
    """A process out of handles can store nothing, whichever image it is."""
    import resource

    store = Storage(folder.as_uri())
    (folder / INCOMING).mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    handles = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, hard))
        with suppress(OSError):
            while True:
                handles.append(os.open("/dev/null", os.O_RDONLY))
        error = trouble(store)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for handle in handles:
            os.close(handle)

    assert (type(error), error.type) == (StorageUnavailable, "too_many_open_files")


def test_what_is_in_the_way_of_one_batch_is_no_trouble_of_all(folder: Path) -> None:
    """A file where this batch's folder should be, a name that is too long: the others are stored meanwhile."""
    store = Storage(folder.as_uri())
    (folder / "batch").write_text("a file")

    assert type(trouble(store)) is FetchAgain
    assert type(trouble(store, f"{'x' * 300}/0.png")) is Unusable
    store.put("another/id/0.png", io.BytesIO(IMAGE))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Storage]:
    """An S3 bucket at an address, spoken to as everywhere."""
    monkeypatch.setattr(module, "RETRIES", {**module.RETRIES, "max_retries": 0})

    def opened(url: str) -> Storage:
        settings = {
            "ENDPOINT_URL": url,
            "ACCESS_KEY_ID": "k",
            "SECRET_ACCESS_KEY": "s",
            "REGION": "x",
            "ALLOW_HTTP": "1",
        }
        for name, value in settings.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        return Storage("s3://bucket/prefix")

    return opened


def refusing(status: int, code: str) -> Callable[[Peer], bool]:
    body = f"<Error><Code>{code}</Code><Message>{code} was said</Message></Error>".encode()
    return lambda peer: peer.reply(status, body, content_type="application/xml")


@pytest.mark.parametrize(
    ("status", "code", "kind", "type_"),
    [
        (403, "InvalidAccessKeyId", StorageUnavailable, "credentials_refused"),
        (401, "Unauthorized", StorageUnavailable, "credentials_refused"),
        (404, "NoSuchBucket", StorageUnavailable, "bucket_missing"),
        (503, "SlowDown", StorageUnavailable, "unreachable"),
        (429, "TooManyRequests", StorageUnavailable, "unreachable"),
        (400, "EntityTooLarge", FetchAgain, "storage_error"),
    ],
)
def test_object_store_that_refuses(
    status: int, code: str, kind: type, type_: str, bucket: Callable[[str], Storage]
) -> None:
    """Refused credentials, a missing bucket, a store in trouble are ours; what it dislikes of one object is not."""
    with serve(refusing(status, code)) as wire:
        error = trouble(bucket(wire.url))

    assert (type(error), error.type) == (kind, type_)
    assert wire.received[0].method == "PUT"


def test_object_store_that_is_not_there(bucket: Callable[[str], Storage]) -> None:
    """Nobody at the address."""
    assert trouble(bucket(f"http://127.0.0.1:{closed_port()}")).type == "unreachable"


def test_object_store_that_acknowledges(bucket: Callable[[str], Storage]) -> None:
    """Its 200 is its word that the object is durable; the put returns after it, not before."""
    answer = threading.Event()

    def late(peer: Peer) -> bool:
        answer.wait(0.3)
        return peer.reply(200, etag='"e"')

    with serve(late) as wire:
        bucket(wire.url).put("batch/id/0.png", io.BytesIO(IMAGE), "image/png")

    (request,) = wire.received
    assert (request.target, request.body) == ("/bucket/prefix/batch/id/0.png", IMAGE)
    assert request.headers["content-type"] == "image/png"
