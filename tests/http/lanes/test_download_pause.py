"""Trouble of the store, and of hosts: it fails no image, holds up no other, and ends by itself."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import Engine

from http_client import fetch
from models.pauses import list_pauses
from tests.support.lane_runner import (
    Emulator,
    LaneRunner,
    all_are,
    assert_stored_as_made,
    lane_runner,
    make_edits,
    stand,
    wait_for,
)
from tests.support.receiving import rows
from tests.support.servers import Peer, serve
from worker.beat_scheduler import lanes_due

CANVAS = BytesIO()
Image.new("RGB", (64, 64)).save(CANVAS, "PNG")
IMAGE = CANVAS.getvalue()

pytestmark = pytest.mark.usefixtures("balanced")


def fill(disk: Path) -> Path:
    """Not a byte is free any more."""
    free = os.statvfs(disk)
    (disk / "ballast").write_bytes(bytes(free.f_bavail * free.f_frsize))
    return disk / "ballast"


def reasons(engine: Engine) -> list[tuple[str, str, str]]:
    with engine.connect() as connection:
        return [(pause.lane, pause.subject, pause.reason) for pause in list_pauses(connection)]


def change(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)


def serve_from(engine: Engine, url: str, which: str) -> None:
    """Some of the images stand at another host, and come first."""
    declared = "file_size = NULL, width = NULL, height = NULL"
    change(engine, f"UPDATE images SET url = '{url}/' || id, {declared}, expires_at = now() WHERE {which}")


def due(engine: Engine) -> bool:
    with engine.connect() as connection:
        return lanes_due(connection)["download"]


def download(worker: LaneRunner, done: Callable[[], object]) -> None:
    worker.work_until(lambda: bool(done()), lanes=("download",))


@contextmanager
def ready(engine: Engine, emulator: Emulator, folder: Path, edits: int, **changes: object) -> Iterator[LaneRunner]:
    """Results that wait to be stored."""
    make_edits(engine, [f"edit {n}" for n in range(edits)])
    with lane_runner(engine, emulator, folder, **changes) as worker:
        worker.work_until(all_are(engine, ready=edits), lanes=("submit",))
        yield worker


def test_full_disk_fails_nothing(engine: Engine, emulator: Emulator, small_disk: Path) -> None:
    """For as long as it is full images wait with all their tries; once there is room everything is stored."""
    with ready(engine, emulator, small_disk, 6, provider_retry_after=0.05) as worker:
        ballast = fill(small_disk)
        download(worker, lambda: rows(engine, "SELECT 1 FROM lane_pauses WHERE probes > 3"))

        assert reasons(engine) == [("download", "storage", "disk_full")]
        assert stand(engine) == {"ready": 6}
        assert rows(engine, "SELECT DISTINCT attempt, errors FROM images") == [(0, [])]
        assert [path.name for path in small_disk.rglob("*") if path.is_file()] == ["ballast"]

        ballast.unlink()
        download(worker, all_are(engine, stored=6))

    assert reasons(engine) == []
    assert rows(engine, "SELECT DISTINCT attempt, errors FROM images") == [(1, [])]
    assert [row["charges"] for row in emulator.rows] == [1] * 6
    assert_stored_as_made(engine, emulator, small_disk)


def test_store_that_cannot_be_opened(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """The lane pauses, with the reason in SQL, for as long as it cannot; tries grow rare, and it ends by itself."""
    in_the_way = tmp_path / "mount"
    in_the_way.write_text("no folder")
    with ready(engine, emulator, in_the_way / "images", 3) as worker:
        download(worker, lambda: rows(engine, "SELECT 1 FROM lane_pauses WHERE probes > 2"))
        assert not due(engine)
        assert reasons(engine) == [("download", "storage", "cannot_be_opened")]
        assert "STORAGE_URL cannot be opened" in rows(engine, "SELECT message FROM lane_pauses")[0][0]
        assert stand(engine) == {"ready": 3}
        assert rows(engine, "SELECT DISTINCT attempt, errors FROM images") == [(0, [])]
        in_the_way.unlink()
        download(worker, all_are(engine, stored=3))

    assert reasons(engine) == []
    assert_stored_as_made(engine, emulator, in_the_way / "images")


def test_nothing_is_fetched_in_vain(engine: Engine, emulator: Emulator, small_disk: Path) -> None:
    """While the lane is paused nobody downloads what cannot be stored, and the tick starts no lane."""
    with ready(engine, emulator, small_disk, 30, download_threads=4, provider_retry_after=60) as worker:
        fill(small_disk)
        with serve(lambda peer: peer.reply(200, IMAGE)) as wire:
            serve_from(engine, wire.url, "true")
            download(worker, lambda: reasons(engine))
            begun = len(wire.received)
            stop = time.monotonic() + 0.5
            download(worker, lambda: time.monotonic() > stop)
            assert not due(engine)
            assert len(wire.received) == begun <= 4
            change(engine, "UPDATE lane_pauses SET retry_at = now()")
            download(worker, lambda: len(wire.received) > begun)
            stop = time.monotonic() + 0.5
            download(worker, lambda: time.monotonic() > stop)
            assert len(wire.received) == begun + 1


def test_probe_that_tells_nothing(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """A probe whose own file is bad neither ends the pause nor puts the next probe off: another image goes."""
    with ready(engine, emulator, tmp_path, 3, retry_delay=60) as worker:
        change(engine, "UPDATE images SET url = url || '/no', expires_at = now() WHERE mod(id, 3) > 0")
        change(
            engine,
            "INSERT INTO lane_pauses (lane, subject, reason, message, retry_at, probes)"
            " VALUES ('download', 'storage', 'disk_full', 'full', now(), 20)",
        )
        download(worker, all_are(engine, ready=2, stored=1))

    assert reasons(engine) == []
    assert rows(engine, "SELECT state, attempt, jsonb_array_length(errors) FROM images ORDER BY 1") == [
        ("stored", 1, 0),
        ("waiting", 1, 1),
        ("waiting", 1, 1),
    ]


def drip(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
    while not peer.closing.is_set():
        peer.send(b"x")
        peer.silence(0.05)


def test_dripping_host_holds_nobody_up(
    engine: Engine, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many images of a host that drips come first; those of another host are stored beside them."""
    monkeypatch.setattr(fetch, "LEAST_RATE", (1000, 60.0))
    with ready(engine, emulator, tmp_path, 24, download_threads=4) as worker, serve(drip) as wire:
        serve_from(engine, wire.url, "mod(id, 2) = 0")
        stop = threading.Event()
        lane = threading.Thread(target=download, args=(worker, stop.is_set))
        lane.start()
        try:
            wait_for(all_are(engine, ready=12, stored=12))
            dripping = wire.connections
        finally:
            # what drips is cut when its server goes
            stop.set()
    lane.join()
    assert dripping == 3


def test_host_that_asks_to_wait_is_left_alone(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """`Retry-After` holds for every image of the host, and none loses its tries by asking again too soon."""
    moments: list[float] = []
    lock = threading.Lock()

    def busy(peer: Peer) -> bool:
        with lock:
            moments.append(time.monotonic())
        return peer.reply(429, b"", retry_after="1")

    with ready(engine, emulator, tmp_path, 10, download_threads=2, retry_delay=0.01) as worker, serve(busy) as wire:
        serve_from(engine, wire.url, "mod(id, 2) = 0")
        download(worker, lambda: len(moments) >= 3)

    assert stand(engine) == {"ready": 5, "stored": 5}
    assert all(later - moments[0] >= 0.9 for later in moments[1:])
    assert rows(engine, "SELECT max(attempt) FROM images WHERE state = 'waiting'")[0][0] <= 2


def test_host_that_asks_to_wait_is_left_alone_by_every_worker(
    engine: Engine, emulator: Emulator, tmp_path: Path
) -> None:
    """What one process was told stands in the image's row, too: no other process asks for it before."""
    with (
        ready(engine, emulator, tmp_path, 1, retry_delay=0.01) as worker,
        serve(lambda peer: peer.reply(503, b"", retry_after="600")) as wire,
    ):
        serve_from(engine, wire.url, "true")
        download(worker, lambda: rows(engine, "SELECT 1 FROM images WHERE jsonb_array_length(errors) > 0"))
    assert rows(engine, "SELECT due_at > now() + interval '590 s' FROM images") == [(True,)]
