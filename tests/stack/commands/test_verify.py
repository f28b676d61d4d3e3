"""`darkroom verify`: what storage holds against what the rows say, and its repair from where the image came."""

import os
import time
from pathlib import Path

import pytest
from sqlalchemy import Engine

from storage.store import Storage
from tests.support.command_line import CommandLine
from tests.support.servers import Peer, serve
from tests.support.stored_images import png, stored


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Where the command line looks for stored images."""
    return tmp_path / "images"


def test_all_is_sound(run_cli: CommandLine, engine: Engine, store: Path) -> None:
    """Each is read, none complained of."""
    stored(engine, store, 3)
    said = run_cli("verify", "last")
    assert (said.code, said.out.split()) == (0, ["sound", "3", "images"])


@pytest.mark.parametrize("command", ["verify last --repair", "download last out"])
def test_folder_that_is_not_there(
    command: str, run_cli: CommandLine, engine: Engine, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is not mounted: said at once; nothing is made in its place, and no image is called missing."""
    monkeypatch.chdir(tmp_path)
    stored(engine, store, 1)
    store.rename(tmp_path / "elsewhere")
    said = run_cli(*command.split())
    assert (said.code, said.out) == (2, "")
    assert f"the folder {store} is not there; is its disk mounted?" in said.err.replace("\n", " ")
    assert not store.exists()


def test_every_kind_of_damage(run_cli: CommandLine, engine: Engine, store: Path) -> None:
    """Gone, cut, longer, one bit changed, another image of the same size, and a file of nobody's."""
    batch, paths = stored(engine, store, 6)
    paths[0].unlink()
    paths[1].write_bytes(png(1)[:-5])
    paths[2].write_bytes(png(2) + b"x")
    spoilt = bytearray(png(3))
    spoilt[-20] ^= 1
    paths[3].write_bytes(spoilt)
    paths[4].write_bytes(png(40))
    for name, age in (("stranger.png", 3600), ("being-recorded.png", 1)):
        (store / str(batch) / name).write_bytes(b"?")
        os.utime(store / str(batch) / name, (time.time() - age,) * 2)
    said = run_cli("verify", "last", "--json")
    *images, total = said.lines
    assert said.code == 1
    assert [(image["edit"], image["verdict"]) for image in images] == [
        ("0", "missing"),
        ("1", "damaged"),
        ("2", "damaged"),
        ("3", "damaged"),
        ("4", "damaged"),
    ]
    assert total == {
        "batch_id": str(batch),
        "sound": 1,
        "missing": 1,
        "damaged": 4,
        "unreadable": 0,
        "deleted": 0,
        "repaired": 0,
        "of_no_image": [f"{batch}/stranger.png"],
    }


def test_repair(run_cli: CommandLine, engine: Engine, store: Path) -> None:
    """What the provider still has is put back, byte for byte; what is gone or another file there is said to be."""

    def answer(peer: Peer) -> bool:
        assert peer.request
        number = int(peer.request.target.strip("/").removesuffix(".png"))
        return peer.reply(404) if number == 1 else peer.reply(200, png(99 if number == 2 else number))

    with serve(answer) as host:
        run_cli.set(FAL_MEDIA_HOSTS="127.0.0.1")
        _, paths = stored(engine, store, 4, host=host.url)
        for path in paths[:3]:
            path.unlink()
        said = run_cli("verify", "last", "--repair")
    assert said.code == 1
    lines = said.out.splitlines()
    assert lines[0].endswith("missing; repaired")
    assert "not repaired: The file's host answered 404." in lines[1]
    assert "not repaired: what the provider has there now is another file" in lines[2]
    assert paths[0].read_bytes() == png(0)
    assert not paths[1].exists()
    assert not paths[2].exists()
    paths[1].write_bytes(png(1))
    paths[2].write_bytes(png(2))
    assert run_cli("verify", "last").code == 0


def test_object_store(s3: str, run_cli: CommandLine, engine: Engine, tmp_path: Path) -> None:
    """The same in a bucket: copied out, found missing, put back with its type, and deleted when its time is over."""
    with serve(lambda peer: peer.reply(200, png(int(peer.request.target[1:-4])))) as host:
        run_cli.set(FAL_MEDIA_HOSTS="127.0.0.1", STORAGE_URL=s3)
        _, paths = stored(engine, tmp_path / "seen", 3, host=host.url)
        store, keys = Storage(s3), [str(path.relative_to(tmp_path / "seen")) for path in paths]
        for key, path in zip(keys, paths, strict=True):
            with path.open("rb") as file:
                store.put(key, file, "image/png")
        assert run_cli("download", "last", tmp_path / "copy", "--json").json["copied"] == 3
        store.delete(keys[1])
        assert run_cli("verify", "last", "--json").lines[-1]["missing"] == 1
        assert run_cli("verify", "last", "--repair").code == 0
    with store.open_range(keys[1]) as again:
        assert (b"".join(again.pieces), again.content_type, again.metadata["edit"]) == (png(1), "image/png", "1")
    run_cli.set(KEEP_IMAGES="3600")
    assert run_cli("prune", "--dry-run", "--json").json["images"] == 3
    assert run_cli("prune", "--json").json["images"] == 3
    assert list(store.list_older("", 0)) == []
    assert run_cli("verify", "last", "--json").json["deleted"] == 3
    assert run_cli("download", "last", tmp_path / "again", "--json").json["deleted"] == 3
