"""Images on the page: small ones are made once and kept, and no bad image, host or store holds anybody up."""

import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import requests
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from sqlalchemy import Engine
from werkzeug.test import TestResponse

from tests.support.api_client import ALICE, intake_served
from tests.support.factories import success
from tests.support.lane_runner import wait_for
from tests.support.pages import INPUT, OLGA, create_batch, data_uri, image_file, page_app, report, sign_in, store_images
from tests.support.servers import Peer, closed_port, serve


@pytest.fixture
def app(database_url: str, tmp_path: Path) -> Iterator[Flask]:
    with page_app(database_url, tmp_path, fal_media_hosts=("127.0.0.1",)) as app:
        yield app


@pytest.fixture
def olga(app: Flask) -> FlaskClient:
    return sign_in(app, OLGA)


def stored(engine: Engine, folder: Path, content: bytes | None = None) -> str:
    """The address of a stored image."""
    with engine.begin() as connection:
        batch = create_batch(connection, [{}], client="alice")
        report(connection, success())
        (image,) = store_images(connection, folder, content)
    return f"/batches/{batch}/images/{image}"


def with_inputs(engine: Engine, *urls: str) -> UUID:
    """A batch of an edit with these inputs, whatever a manifest would say to them."""
    with engine.begin() as connection:
        batch = create_batch(connection, [{}], client="alice")
        connection.exec_driver_sql(
            "UPDATE edits SET arguments = jsonb_set(arguments, '{image_urls}', to_jsonb(%s::text[]))", (list(urls),)
        )
    return batch


def shown(answer: TestResponse) -> Image.Image | None:
    """The image that a browser would show; None for the sign that stands for one that is missing."""
    assert answer.status_code == 200
    if answer.mimetype == "image/svg+xml":
        assert "max-age=60" in answer.headers["Cache-Control"]
        return None
    assert answer.mimetype == "image/webp"
    assert "immutable" in answer.headers["Cache-Control"]
    image = Image.open(BytesIO(answer.data))
    assert max(image.size) <= 320
    return image


def small_input(browser: FlaskClient, batch: UUID, number: int = 0) -> Image.Image | None:
    return shown(browser.get(f"/batches/{batch}/edits/0/inputs/{number}/thumbnail"))


def files(folder: Path, name: str = "*.webp") -> list[Path]:
    return list(folder.rglob(name))


def test_a_small_version_is_made_once(olga: FlaskClient, app: Flask, engine: Engine, tmp_path: Path) -> None:
    """The second look comes from the store, also in another process, and does not need the original any more."""
    path = stored(engine, tmp_path, image_file(size=(1600, 900), color="navy"))
    first = olga.get(f"{path}/thumbnail")
    (kept,) = files(tmp_path / "thumbnails")
    for original in files(tmp_path, "*.png"):
        original.unlink()
    again = olga.get(f"{path}/thumbnail")

    assert shown(first).size == (320, 180)  # type: ignore[union-attr]
    assert again.data == first.data == kept.read_bytes()
    assert olga.get(path).status_code == 404


def test_a_stored_image_is_shown_as_it_is(olga: FlaskClient, engine: Engine, tmp_path: Path) -> None:
    """Byte for byte, with its own type; and not sent again to a browser that has it."""
    content = image_file("JPEG", quality=90)
    path = stored(engine, tmp_path, content)
    answer = olga.get(path)
    assert (answer.data, answer.mimetype) == (content, "image/jpeg")
    again = olga.get(path, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


EXIF = Image.Exif()
EXIF[0x0112] = 6  # held to the right
PICTURES: dict[str, tuple[dict[str, Any], tuple[int, int], str]] = {
    "turned by its camera": ({"kind": "JPEG", "size": (400, 200), "exif": EXIF}, (160, 320), "RGB"),
    "transparent": ({"color": (255, 0, 0, 60)}, (320, 240), "RGBA"),
    "tiny": ({"size": (1, 1)}, (1, 1), "RGB"),
    "a thin line": ({"size": (3000, 2)}, (320, 1), "RGB"),
    "a photograph of 88 megapixels": ({"kind": "JPEG", "size": (9_400, 9_400), "quality": 30}, (320, 320), "RGB"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_images_as_people_have_them(name: str, olga: FlaskClient, engine: Engine, tmp_path: Path) -> None:
    """Upright, see-through where they are, and in the right size."""
    image, size, mode = PICTURES[name]
    small = shown(olga.get(f"{stored(engine, tmp_path, image_file(**image))}/thumbnail"))
    assert small is not None
    assert (small.size, small.mode) == (size, mode)


def test_kinds_of_pixels(olga: FlaskClient, engine: Engine) -> None:
    """Grey, palettes, sixteen bits, ink colours, an animation: as an input each is shown."""
    made = {}
    for mode, kind in (
        ("L", "PNG"),
        ("LA", "PNG"),
        ("P", "PNG"),
        ("1", "PNG"),
        ("I;16", "PNG"),
        ("CMYK", "JPEG"),
        ("P", "GIF"),
    ):
        file = BytesIO()
        Image.new(mode, (50, 40), 1).save(file, kind, **({"transparency": 0} if mode == "P" else {}))
        made[f"{mode} {kind}"] = data_uri(file.getvalue(), kind.lower())
    batch = with_inputs(engine, *made.values())
    assert [name for number, name in enumerate(made) if small_input(olga, batch, number) is None] == []


def too_many_pixels() -> bytes:
    """101 megapixels."""
    file = BytesIO()
    Image.new("P", (10_100, 10_000)).save(file, "GIF")
    return file.getvalue()


BROKEN: dict[str, Callable[[], bytes]] = {
    "cut off": lambda: image_file(size=(900, 900), color="red")[:300],
    "not an image": lambda: b"<html>no</html>",
    "empty": lambda: b"",
    "a vector with a script": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "a bomb": lambda: image_file(size=(1, 1)).replace(
        (1).to_bytes(4, "big") * 2, (2**31 - 1).to_bytes(4, "big") * 2, 1
    ),
    "101 megapixels": too_many_pixels,
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_image_is_shown_as_missing(name: str, olga: FlaskClient, engine: Engine, tmp_path: Path) -> None:
    """A sign in its place, for a minute; nothing of it is kept, and nothing of it reaches the browser."""
    batch = with_inputs(engine, data_uri(BROKEN[name]()))
    assert small_input(olga, batch) is None
    assert files(tmp_path) == []


def test_a_broken_store_is_no_broken_page(olga: FlaskClient, engine: Engine, tmp_path: Path) -> None:
    """The original is gone: a sign. The store takes nothing: the small one is shown all the same."""
    path = stored(engine, tmp_path)
    (tmp_path / "thumbnails").write_text("a file where the folder should be")
    assert shown(olga.get(f"{path}/thumbnail")) is not None
    for original in files(tmp_path, "*.png"):
        original.unlink()
    assert shown(olga.get(f"{path}/thumbnail")) is None
    answer = olga.get(path)
    assert (answer.status_code, answer.mimetype) == (404, "image/svg+xml")
    assert str(tmp_path) not in answer.text


def test_nothing_is_fetched_from_where_it_must_not(
    database_url: str, olga: FlaskClient, engine: Engine, tmp_path: Path
) -> None:
    """An input may name this machine, a private network or a file; none is read for the page."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(image_file())
    with serve(lambda peer: peer.reply(200, image_file(), content_type="image/png")) as wire:
        urls = [secret.as_uri(), str(secret), "", "ftp://127.0.0.1/a.png", f"https://localhost:{wire.port}/a.png",
                f"http://[::1]:{wire.port}/a.png", f"https://0.0.0.0:{wire.port}/a.png", f"http://2130706433:{wire.port}/",
                "http://169.254.169.254/latest/meta-data/", f"https://u:p@127.0.0.1:{wire.port}/a.png"]  # fmt: skip
        batch = with_inputs(engine, *urls)
        assert [url for number, url in enumerate(urls) if small_input(olga, batch, number)] == []
        own = with_inputs(engine, f"{wire.url}/a.png")
        with page_app(database_url, tmp_path) as app:  # where no setting names this machine
            assert small_input(sign_in(app, OLGA), own) is None
        assert wire.received == []
        assert small_input(olga, own) is not None
    assert [request.target for request in wire.received] == ["/a.png"]
    assert "authorization" not in wire.received[0].headers
    assert "cookie" not in wire.received[0].headers


def test_there_is_no_such_input(olga: FlaskClient, engine: Engine) -> None:
    """Behind the last one: 404."""
    batch = with_inputs(engine, INPUT)
    assert olga.get(f"/batches/{batch}/edits/0/inputs/1/thumbnail").status_code == 404


@pytest.fixture
def served(database_url: str, tmp_path: Path) -> Iterator[str]:
    """The intake as it is really served."""
    port = closed_port()
    given = {"STORAGE_URL": tmp_path.as_uri(), "FAL_MEDIA_HOSTS": "127.0.0.1", "DARKROOM_OPERATOR_KEYS": f"olga:{OLGA}"}
    with intake_served(database_url, port, **given):
        yield f"http://127.0.0.1:{port}"


def signed_in(url: str) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    assert session.post(f"{url}/sign-in", data={"key": OLGA}, timeout=60).ok
    return session


def test_a_slow_host_holds_up_nobody(served: str, engine: Engine, tmp_path: Path) -> None:
    """140 inputs of a host that says nothing: the API, the page and stored images are there at once; of more
    than can be waited for, 503 says when to come again; and the program ends when it is told to."""
    url = served
    released = threading.Event()

    def say_nothing(peer: Peer) -> None:
        released.wait(60)

    path = stored(engine, tmp_path)
    with serve(say_nothing) as wire:
        batch = with_inputs(engine, *(f"{wire.url}/{n}.png" for n in range(140)))
        browser, threads = signed_in(url), []
        statuses: list[int] = []

        def ask(number: int) -> None:
            try:
                address = f"{url}/batches/{batch}/edits/0/inputs/{number}/thumbnail"
                statuses.append(browser.get(address, timeout=60, cookies=browser.cookies).status_code)
            except requests.RequestException:
                statuses.append(0)

        for number in range(140):
            threads.append(threading.Thread(target=ask, args=(number,)))
            threads[-1].start()
        try:
            wait_for(lambda: statuses.count(503) == 20 and len(wire.received) == 3)
            other = signed_in(url)
            assert other.get(f"{url}{path}/thumbnail", timeout=60).headers["Content-Type"] == "image/webp"
            assert other.get(f"{url}/batches/{batch}", timeout=60).ok
            assert other.get(f"{url}/v1/batches", headers={"Authorization": f"Bearer {ALICE}"}, timeout=60).ok
        finally:
            released.set()
            for thread in threads:
                thread.join()


def test_served_images_are_guarded_and_set_no_cookie(database_url: str, engine: Engine, tmp_path: Path) -> None:
    """What is answered later carries the headers of the page; also where no keys are needed."""
    port = closed_port()
    path, batch = stored(engine, tmp_path), with_inputs(engine, INPUT)
    with intake_served(database_url, port, DARKROOM_API_KEYS="", STORAGE_URL=tmp_path.as_uri()):
        url = f"http://127.0.0.1:{port}"
        for part in (path, f"{path}/thumbnail", f"/batches/{batch}/edits/0/inputs/0/thumbnail"):
            for _ in range(2):
                answer = requests.Session().get(f"{url}{part}", timeout=60)
                assert answer.status_code == 200
                assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert "Set-Cookie" not in answer.headers
