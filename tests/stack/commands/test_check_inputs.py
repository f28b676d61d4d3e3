"""`--dry-run --check-inputs`: what the URLs of a manifest lead to is known before anything is paid for."""

import json
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import Engine

from cli.batches import check_urls
from tests.support.command_line import CommandLine
from tests.support.input_files import drawn, encoded, turned
from tests.support.servers import Peer, serve

FILES = {
    "/good.png": encoded(drawn(), "PNG"),
    "/turned.jpg": encoded(drawn(), "JPEG", exif=turned(6)),
    "/page.png": b"<!doctype html><title>Sign in</title>",
    "/cut.jpg": encoded(drawn((300, 200)), "JPEG")[:9000],
    "/scan.tif": encoded(drawn(), "TIFF"),
}


def files(peer: Peer) -> bool:
    assert peer.request is not None
    content = FILES.get(peer.request.target.split("?")[0])
    if peer.request.target == "/private":
        port = peer.request.headers["host"].rpartition(":")[2]
        return peer.reply(302, b"", location=f"http://localhost:{port}/good.png")
    return peer.reply(200, content) if content else peer.reply(404)


def manifest(folder: Path, *images: list[str]) -> Path:
    path = folder / "m.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": "x", "image_urls": urls}) for urls in images))
    return path


def test_each_refused_input_is_named(run_cli: CommandLine, engine: Engine, tmp_path: Path) -> None:
    """With its line and why, each once whatever the number of its edits; the exit code says that there is one."""
    run_cli.set(FAL_MEDIA_HOSTS="127.0.0.1")
    with serve(files) as wire:
        good, gone = f"{wire.url}/good.png", f"{wire.url}/gone.png?signature=x"
        names = ("turned.jpg", "page.png", "cut.jpg", "scan.tif", "private")
        path = manifest(tmp_path, [good, good], [gone], *([f"{wire.url}/{name}", good] for name in names))
        shown = run_cli("submit", path, "--dry-run", "--check-inputs", "all", "--json")
        asked = Counter(request.target for request in wire.received)
        said = run_cli("submit", path, "--dry-run", "--check-inputs", "all")
        fine = run_cli("submit", manifest(tmp_path, [good]), "--dry-run", "--check-inputs", "all")
    inputs = shown.json["inputs"]
    assert (shown.code, inputs["distinct"], inputs["looked_at"]) == (1, 7, 7)
    assert [(found["line"], found["input"].rpartition("/")[2]) for found in inputs["refused"]] == [
        (2, "gone.png?signature=x"),
        *((number, name) for number, name in enumerate(names, 3) if name != "turned.jpg"),
    ]
    reasons = [found["reason"] for found in inputs["refused"]]
    for reason, words in zip(
        reasons, ("host answered 404", "(HTML)", "cut short", "it is TIFF", "a private address"), strict=True
    ):
        assert words in reason
    assert any("EXIF orientation" in warning for warning in shown.json["warnings"])
    assert set(asked.values()) == {1}
    assert said.out.startswith(f"line 2: {gone} cannot be fetched: The file's host answered 404\nline 4: ")
    assert "7 URLs looked at, 5 of them refused" in said.out
    assert (fine.code, "1 URL looked at, 0 of them refused" in fine.out) == (0, True)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM batches").scalar() == 0


def test_a_sample_is_drawn_evenly(run_cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same inputs each time, from everywhere in the manifest; the others are not asked for."""
    run_cli.set(FAL_MEDIA_HOSTS="127.0.0.1")
    monkeypatch.setattr(check_urls, "SAMPLE", 20)
    with serve(files) as wire:
        path = manifest(tmp_path, *([f"{wire.url}/good.png?{number}"] for number in range(200)))
        first = run_cli("submit", path, "--dry-run", "--check-inputs", "sample", "--json").json["inputs"]
        asked = [request.target for request in wire.received]
        run_cli("submit", path, "--dry-run", "--check-inputs", "sample", "--json")
        again = [request.target for request in wire.received][len(asked) :]
    assert (first["distinct"], first["looked_at"], len(asked)) == (200, 20, 20)
    assert set(asked) == set(again)
    numbers = sorted(int(target.partition("?")[2]) for target in asked)
    assert numbers[0] < 60
    assert numbers[-1] > 140


def test_a_host_that_does_not_answer_is_left_alone(
    run_cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand images of one are no thousand times a timeout."""
    run_cli.set(FAL_MEDIA_HOSTS="127.0.0.1")
    monkeypatch.setattr(check_urls, "PAUSE", 0.01)
    path = manifest(tmp_path, *([f"http://127.0.0.1:1/{number}.png"] for number in range(60)))
    inputs = run_cli("submit", path, "--dry-run", "--check-inputs", "all", "--json").json["inputs"]
    reasons = Counter("did not answer before" in found["reason"] for found in inputs["refused"])
    assert reasons[True] + reasons[False] == 60
    assert reasons[True] > 30


def test_private_addresses_are_not_asked(run_cli: CommandLine, tmp_path: Path) -> None:
    """As downloads are guarded; data URIs are judged without asking anybody."""
    with serve(files) as wire:
        path = manifest(tmp_path, [f"{wire.url}/good.png"], ["data:image/png;base64,AAAA"])
        inputs = run_cli("submit", path, "--dry-run", "--check-inputs", "all", "--json").json["inputs"]
        assert wire.received == []
    private, data = (found["reason"] for found in inputs["refused"])
    assert "a private address" in private
    assert data.startswith("the data URI is no image")


def test_objects_of_the_store_are_looked_at(run_cli: CommandLine, engine: Engine, tmp_path: Path) -> None:
    """Where the prepare lane would find them: those of the client of the command line."""
    store = tmp_path / "store"
    folder = store / "inputs" / "local"
    folder.mkdir(parents=True)
    (folder / "good one.png").write_bytes(FILES["/good.png"])
    (folder / "scan.png").write_bytes(FILES["/scan.tif"])
    run_cli.set(STORAGE_URL=str(store))
    path = manifest(tmp_path, ["storage://good one.png"], ["storage://scan.png"], ["storage://gone.png"])
    shown = run_cli("submit", path, "--dry-run", "--check-inputs", "all", "--json")
    refused = shown.json["inputs"]["refused"]
    assert [found["input"] for found in refused] == ["storage://scan.png", "storage://gone.png"]
    assert "it is TIFF" in refused[0]["reason"]
    assert refused[1]["reason"] == "there is no storage://gone.png in the store"
