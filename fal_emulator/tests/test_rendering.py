"""The images: really made from the inputs, of the right size, the same again for the same request."""

import base64
import hashlib
import io
import struct
import threading
import time
import zlib
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from PIL import Image, ImageChops

from fal_emulator import drawing
from fal_emulator.caption import clean, typeface, wrap
from fal_emulator.plain_images import flat

from .emulator_process import image_bytes


def draw(prompt="Turn the page", seed=1, size=(480, 480), index=0, inputs=1, encoding="png"):
    opened = drawing.open_inputs([image_bytes(seed=n) for n in range(inputs)])
    return drawing.draw(drawing.ImageSpec(prompt, seed, *size, index), opened, encoding)


def opened(data):
    sample = Image.open(io.BytesIO(data))
    sample.load()
    return sample


def test_the_same_request_gives_the_same_bytes():
    """Seed, prompt, inputs and index decide every byte."""
    first = draw()
    assert first == draw()

    others = [draw(seed=2), draw(prompt="Turn back"), draw(index=1), draw(inputs=2)]
    assert len({first, *others}) == 5


def test_a_person_sees_the_difference():
    """Another seed is not one pixel but another image."""
    one, two = (opened(draw(seed=seed)).resize((64, 64)) for seed in (1, 2))
    difference = ImageChops.difference(one, two).convert("L").histogram()

    changed = sum(difference[16:]) / sum(difference)
    assert changed > 0.3


@pytest.mark.parametrize(
    ("size", "inputs"), [((720, 1280), 1), ((1280, 720), 5), ((3840, 240), 10), ((240, 3840), 3), ((2048, 2048), 1)]
)
def test_every_shape(size, inputs):
    """Portrait, landscape and very long prints have exactly the size that was asked for."""
    assert size == opened(draw(size=size, inputs=inputs)).size


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "word " * 5000,
        "x" * 5000,
        "夜の街 🐱 ñandú",
        "\ud800 half a character",
        "a\x00b\n\tc\u202ed",
        "é́́́",
        "😀" * 900,
    ],
)
def test_any_prompt_can_be_printed(prompt):
    """No prompt breaks the caption, and none runs over its edge."""
    draw(prompt=prompt, size=(960, 960))
    lines = wrap(clean(prompt), typeface(24), 300, 2)
    assert len(lines) <= 2
    assert all(typeface(24).getlength(line) <= 300 for line in lines)


def test_letters_the_font_lacks():
    """Accents fall back to the plain letter, anything else to a dot."""
    assert clean("ñandú, café 夜 “oui” ß") == "nandu, cafe · “oui” ss"


def test_a_long_prompt_ends_in_an_ellipsis():
    """Where something was left out, one sees it."""
    assert wrap("many words that do not fit here", typeface(20), 120, 1)[0].endswith("…")


def test_cost():
    """An image of 1024 x 1024 takes well under 0.3 s of CPU."""
    begun = time.process_time()
    draw(size=(1024, 1024))
    assert time.process_time() - begun < 0.6  # twice the promise: other tests share the machine


@pytest.mark.parametrize("broken", [b"", b"no image", image_bytes()[:200], image_bytes("JPEG")[:400]])
def test_unreadable_inputs_are_named(broken):
    """The first input that is no image is named by its position."""
    with pytest.raises(drawing.Unreadable) as caught:
        drawing.open_inputs([image_bytes(), broken])
    assert caught.value.position == 1


def test_inputs_of_every_mode():
    """Palette, grey, transparent and 16-bit images are inputs like any other."""
    for mode in ("P", "L", "LA", "RGBA", "I;16", "1", "CMYK"):
        target = io.BytesIO()
        Image.new(mode, (40, 30)).save(target, "TIFF")
        assert drawing.open_inputs([target.getvalue()])[0].mode == "RGB"


def test_too_many_pixels():
    """A decompression bomb is not opened."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    with pytest.raises(drawing.Unreadable):
        drawing.open_inputs([bomb])


def test_plain_images():
    """Of the right size, each with its own bytes, carrying their text, a whole PNG."""
    one, two = opened(flat(2048, 1024, "id 0")), opened(flat(2048, 1024, "id 1"))
    assert one.size == (2048, 1024)
    assert (one.info["Comment"], two.info["Comment"]) == ("id 0", "id 1")


def test_edit_of_an_uploaded_file(make_emulator, data_uri):
    """Our own CDN, data URIs and other web servers are all inputs; the result is what the reply declares."""
    emulator = make_emulator(image_mode="full")
    body = emulator.run(image_urls=[data_uri], image_size="square_hd", num_images=2, seed=4).json()

    assert (len(body["images"]), body["seed"]) == (2, 4)
    for image in body["images"]:
        with requests.get(image["url"], timeout=60) as reply:
            assert "image/png" == reply.headers["Content-Type"] == image["content_type"]
            assert image["file_size"] == len(reply.content) == int(reply.headers["Content-Length"])
            assert (image["width"], image["height"]) == opened(reply.content).size == (1024, 1024)
    again = emulator.run(image_urls=[body["images"][0]["url"]], image_size="auto")
    assert (again.json()["images"][0]["width"], again.json()["images"][0]["height"]) == (1024, 1024)


def test_jpeg(make_emulator, data_uri):
    """Output encoding is not promised; JPEG is a knob."""
    emulator = make_emulator(image_mode="full", image_format="jpeg")
    image = emulator.run(image_urls=[data_uri], image_size="square").json()["images"][0]

    assert image["content_type"] == "image/jpeg"
    assert opened(emulator.get(image["url"]).content).format == "JPEG"


def test_sync_mode(emulator):
    """The image comes as a data URI, is not hosted, and its payload stays out of the history."""
    job = emulator.submit(sync_mode=True, image_size="square")
    url = emulator.finish(job).json()["images"][0]["url"]
    data = base64.b64decode(url.removeprefix("data:image/png;base64,"))

    assert opened(data).size == (960, 960)
    assert [hashlib.sha256(data).hexdigest()] == emulator.row(job)["sha256"]
    params = {"endpoint_id": "fal-ai/bytedance/seedream/v4/edit", "expand": "payloads"}
    assert emulator.get("/v1/models/requests/by-endpoint", params=params).json()["items"][0]["json_output"] is None


@pytest.fixture
def web_server(tmp_path):
    """A plain web server over a folder with one good and one bad file."""
    (tmp_path / "good.jpg").write_bytes(image_bytes("JPEG"))
    (tmp_path / "page.jpg").write_bytes(b"<html>")

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args):
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_inputs_from_the_web(make_emulator, web_server):
    """Fetched for real: good ones are used, the others are named with fal's error types."""
    emulator = make_emulator(image_mode="full", max_input_bytes=50_000, input_timeout=2.0)
    good = f"{web_server}/good.jpg"
    assert emulator.run(image_urls=[good], image_size="square").status_code == 200

    cases = {
        f"{web_server}/missing.jpg": "file_download_error",
        f"{web_server}/page.jpg": "image_load_error",
        "http://127.0.0.1:9/none.jpg": "file_download_error",
        "ftp://127.0.0.1/none.jpg": "file_download_error",
        "not a url": "file_download_error",
        "http://[broken": "file_download_error",
        "data:image/png;base64,@@@": "file_download_error",
        "data:image/png;base64,aGVsbG8=": "image_load_error",
        "data:image/png;base64," + "A" * 80_000: "file_too_large",
        "https://v3b.fal.media/files/b/no/such.png": "file_download_error",
    }
    jobs = {url: emulator.submit(image_urls=[good, url]) for url in cases}
    for url, kind in cases.items():
        reply = emulator.finish(jobs[url])
        problem = reply.json()["detail"][0]
        assert (422, kind, ["body", "image_urls", 1]) == (reply.status_code, problem["type"], problem["loc"])
        assert emulator.row(jobs[url])["charges"] == 0
