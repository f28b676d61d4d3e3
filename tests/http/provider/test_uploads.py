"""Local files at the provider: judged first, sent once per content, sent again in time, the key to one host only."""

import json
import threading
from collections.abc import Collection
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sqlalchemy import Engine

from core import input_images
from core.errors import SettingsError, UserError
from core.image_files import check_image
from provider import uploads
from provider.settings import ProviderSettings
from provider.uploads import LocalFile, ReportProgress, needed_for, upload_files
from tests.support.lane_runner import Emulator
from tests.support.queueing import KEY, NGINX
from tests.support.servers import Peer, Script, Wire, serve

EXPIRES = "2999-01-01T00:00:00+00:00"


def image(path: Path, colour: str = "red", kind: str = "PNG") -> Path:
    Image.new("RGB", (8, 8), colour).save(path, kind)
    return path


def upload(paths: list[Path], settings: ProviderSettings, engine: Engine, **options: Any) -> dict[Path, str]:
    return upload_files([uploads.inspect(path) for path in paths], settings, engine, **options)


def settings(url: str, **changes: Any) -> ProviderSettings:
    return ProviderSettings(fal_key=KEY, fal_rest_url=url, fal_cdn_url=url, **changes)


def storage(peer: Peer) -> bool:
    """A storage that works; it names another host wherever it can."""
    assert peer.request is not None
    if peer.request.target.startswith("/storage/auth/token"):
        token = {"token": "T", "token_type": "Bearer", "base_url": "http://evil.example", "expires_at": EXPIRES}
        return peer.reply(200, json.dumps(token).encode())
    return peer.reply(200, b'{"access_url": "https://v3b.fal.media/files/b/%d.png"}' % len(peer.request.body))


def posts(wire: Wire) -> list[str]:
    return [request.target for request in wire.received if request.target == "/files/upload"]


def test_same_content_is_sent_once(engine: Engine, tmp_path: Path) -> None:
    """Two names of one content, and the same content later: one upload, one URL."""
    first, second = image(tmp_path / "a.png"), image(tmp_path / "b.png")
    with serve(storage) as wire:
        urls = upload([first, second], settings(wire.url), engine)
        again = upload([second], settings(wire.url), engine)

    assert len(posts(wire)) == 1
    assert set(urls.values()) == set(again.values())


def test_key_goes_to_the_token_only(engine: Engine, tmp_path: Path) -> None:
    """The upload carries the token; no host that a reply names is ever spoken to."""
    with serve(storage) as wire:
        upload([image(tmp_path / "a b.jpg", kind="JPEG")], settings(wire.url), engine)

    token, post = wire.received
    assert (token.target, token.headers["authorization"]) == (
        "/storage/auth/token?storage_type=fal-cdn-v3",
        f"Key {KEY}",
    )
    assert (post.target, post.headers["authorization"]) == ("/files/upload", "Bearer T")
    assert (post.headers["content-type"], post.headers["x-fal-file-name"]) == ("image/jpeg", "a%20b.jpg")
    assert post.body == (tmp_path / "a b.jpg").read_bytes()


@pytest.mark.parametrize(("beyond", "sent"), [(60, 1), (-60, 2)])
def test_sent_again_before_it_expires(engine: Engine, tmp_path: Path, beyond: float, sent: int) -> None:
    """A URL that would die before its edit has run is replaced; how long that takes follows the settings."""
    path = image(tmp_path / "a.png")
    with serve(storage) as wire:
        slow = settings(wire.url, submit_start_timeout=9_000, run_allowance=1_000)
        upload([path], slow, engine)
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "UPDATE uploads SET expires_at = now() + %s * interval '1 s'", (needed_for(slow) + beyond,)
            )
        upload([path], slow, engine)

    assert len(posts(wire)) == sent
    assert needed_for(slow) - needed_for(settings(wire.url)) == 10_000 - 900


def test_progress_is_told(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has to be sent is named first, then how far each file is; a file that is known is not among them."""
    known, small = image(tmp_path / "known.png", "blue"), image(tmp_path / "small.png")
    large = tmp_path / "large.png"
    Image.effect_noise((900, 900), 90).save(large)
    begun: list[set[str]] = []
    progress: dict[str, list[int]] = {}
    lock = threading.Lock()

    def begin(files: Collection[LocalFile]) -> ReportProgress:
        begun.append({file.path.name for file in files})

        def report(file: LocalFile, sent: int) -> None:
            with lock:
                progress.setdefault(file.path.name, []).append(sent)

        return report

    with serve(storage) as wire:
        upload([known], settings(wire.url), engine)
        upload([known, small, large], settings(wire.url), engine, begin=begin)

    assert begun == [{"small.png", "large.png"}]
    assert {name: steps[-1] for name, steps in progress.items()} == {
        path.name: path.stat().st_size for path in (small, large)
    }
    assert progress["large.png"] == sorted(progress["large.png"])
    assert len(set(progress["large.png"])) > 10


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "is empty"), (b"<svg></svg>", "no image"), (b"\x89PNG\r\n\x1a\n", "no image")]
)
def test_no_image_is_refused(engine: Engine, tmp_path: Path, content: bytes, reason: str) -> None:
    """A file that the model could not load is named, and nothing is sent."""
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with serve(storage) as wire, pytest.raises(UserError, match=reason) as caught:
        upload([image(tmp_path / "fine.png"), path], settings(wire.url), engine)
    assert str(path) in str(caught.value)
    assert wire.received == []


def test_a_file_that_changes_meanwhile_is_not_remembered(engine: Engine, tmp_path: Path) -> None:
    """Else its new content would pass for the one that was inspected, in every edit of the next days."""
    inspected = uploads.inspect(image(tmp_path / "a.png"))
    image(inspected.path, "blue")
    with serve(storage) as wire:
        with pytest.raises(UserError, match=r"a\.png was changed while it was sent"):
            upload_files([inspected], settings(wire.url), engine)
        upload([image(tmp_path / "b.png")], settings(wire.url), engine)
    assert len(posts(wire)) == 2


def cut(path: Path, keep: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


@pytest.mark.parametrize("keep", [0.5, 0.999])
@pytest.mark.parametrize(("kind", "how"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {})])
def test_a_image_that_was_cut_is_refused(
    engine: Engine, tmp_path: Path, kind: str, how: dict[str, Any], keep: float
) -> None:
    """A copy that broke off is named before it is uploaded; the head of the file alone would pass."""
    path = tmp_path / "a.jpg"
    Image.effect_noise((300, 200), 90).convert("RGB").save(path, kind, **how)
    with serve(storage) as wire, pytest.raises(UserError, match="cut short or damaged") as caught:
        upload([cut(path, keep)], settings(wire.url), engine)
    assert str(path) in str(caught.value)
    assert wire.received == []


def with_text(path: Path, characters: int, *, zipped: bool) -> Path:
    info = PngInfo()
    info.add_itxt("workflow", '{"nodes": []}' * (characters // 13), zip=zipped)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_large_text_beside_the_image_is_no_fault(tmp_path: Path, zipped: bool) -> None:
    """ComfyUI and others keep the whole workflow in a PNG; Pillow alone stops at a megabyte."""
    path = with_text(tmp_path / "a.png", 5_000_000, zipped=zipped)
    assert uploads.inspect(path).content_type == "image/png"
    with path.open("rb") as file:
        assert check_image(file, file_size=path.stat().st_size, width=8, height=8).content_type == "image/png"


def test_text_without_bound_is_refused(tmp_path: Path) -> None:
    """A few kilobytes may unpack to gigabytes."""
    with pytest.raises(UserError, match="bytes of text beside the image") as caught:
        uploads.inspect(with_text(tmp_path / "a.png", 70_000_000, zipped=True))
    assert str(tmp_path / "a.png") in str(caught.value)


def test_too_large_and_unreadable_are_refused(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its reason."""
    path = image(tmp_path / "a.png")
    with pytest.raises(UserError, match="cannot be read"):
        upload([tmp_path], settings("http://127.0.0.1:1"), engine)
    monkeypatch.setattr(input_images, "INPUT_MAX_BYTES", path.stat().st_size - 1)
    with pytest.raises(UserError, match="too large"):
        upload([path], settings("http://127.0.0.1:1"), engine)


def storage_that_says(token: bytes, address: bytes) -> Script:
    """A storage with these two answers."""

    def script(peer: Peer) -> bool:
        assert peer.request is not None
        return peer.reply(200, token if "token" in peer.request.target else address)

    return script


TOKEN = b'{"token": "T", "expires_at": "2999-01-01T00:00:00"}'
REFUSALS: dict[str, tuple[Script, str]] = {
    "wrong key": (lambda peer: peer.reply(401, b"{}"), "FAL_KEY"),
    "locked": (lambda peer: peer.reply(403, b"{}"), "balance"),
    "no JSON": (lambda peer: peer.reply(200, NGINX), "did not take"),
    "500": (lambda peer: peer.reply(500, b"{}"), "did not take"),
    "no token": (lambda peer: peer.reply(200, b"{}"), "did not take"),
    "token of no time": (storage_that_says(b'{"token": "T", "expires_at": "soon"}', b"{}"), "did not take"),
    "no address": (storage_that_says(TOKEN, b'{"uploaded": true}'), "did not take"),
    "address that is none": (storage_that_says(TOKEN, b'{"access_url": null}'), "did not take"),
    "address of a file": (storage_that_says(TOKEN, b'{"access_url": "file:///etc/passwd"}'), "did not take"),
    "nested too deeply": (lambda peer: peer.reply(200, b"[" * 100_000), "did not take"),
    "closes": (lambda peer: None, "did not take"),
    "redirect": (lambda peer: peer.reply(307, b"", location="http://evil.example/"), "did not take"),
}


@pytest.mark.parametrize("manner", REFUSALS)
def test_storage_that_does_not_take_it(engine: Engine, tmp_path: Path, manner: str) -> None:
    """One sentence, whatever it answers; nothing is remembered as uploaded."""
    script, word = REFUSALS[manner]
    with serve(script) as wire, pytest.raises(UserError, match=word):
        upload([image(tmp_path / "a.png")], settings(wire.url), engine)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM uploads").scalar() == 0


def test_token_without_time_zone(engine: Engine, tmp_path: Path) -> None:
    """Taken for UTC, as the provider's own are."""
    with serve(storage_that_says(TOKEN, b'{"access_url": "https://v3b.fal.media/a"}')) as wire:
        urls = upload([image(tmp_path / "a.png")], settings(wire.url), engine)
    assert list(urls.values()) == ["https://v3b.fal.media/a"]


def test_missing_key_names_its_variable(engine: Engine, tmp_path: Path) -> None:
    """Without a key nothing is sent."""
    with pytest.raises(SettingsError, match="FAL_KEY"):
        upload([image(tmp_path / "a.png")], ProviderSettings(), engine)


def test_uploaded_file_can_be_fetched(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Against the emulator: what lies behind the URL is the file."""
    path = image(tmp_path / "a.png")
    (url,) = upload([path], settings(emulator.url), engine).values()
    fetched = emulator.session.get(url, timeout=60).content
    assert fetched == path.read_bytes()
    assert Image.open(BytesIO(fetched)).size == (8, 8)
