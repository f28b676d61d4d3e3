"""The page holds no image and no input in memory for whoever is slow, and shows lines that were faulty."""

import os
import socket
import threading
import time
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

from PIL import Image
from sqlalchemy import Engine

from intake.pages.thumbnails import THREADS, Thumbnails
from intake.settings import IntakeSettings
from tests.support.api_client import ALICE, NDJSON, intake_served, lines
from tests.support.factories import success
from tests.support.lane_runner import wait_for
from tests.support.pages import HTML, INPUT, OLGA, create_batch, page_app, report, sign_in, store_images
from tests.support.servers import closed_port

READERS, SIDE = 30, 1500


def test_slow_readers_of_stored_images_hold_no_memory(database_url: str, engine: Engine, tmp_path: Path) -> None:
    """Thirty browsers that read nothing of an image of seven megabytes; the next one gets it whole."""
    file = BytesIO()
    Image.frombytes("RGB", (SIDE, SIDE), os.urandom(3 * SIDE * SIDE)).save(file, "PNG", compress_level=0)
    content = file.getvalue()
    with engine.begin() as connection:
        batch = create_batch(connection, [{}])
        report(connection, success())
        (image,) = store_images(connection, tmp_path, content)
    request = f"GET /batches/{batch}/images/{image} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    port = closed_port()
    with intake_served(database_url, port, DARKROOM_API_KEYS="", STORAGE_URL=tmp_path.as_uri()) as process:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as first:  # what it loads for the first image
            first.sendall(request)
            with first.makefile("rb") as answer:
                assert answer.read().partition(b"\r\n\r\n")[2] == content
        before = process.memory_info().rss
        with ExitStack() as readers:
            for _ in range(READERS):
                reader = readers.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
                reader.sendall(request)
                assert reader.recv(15) == b"HTTP/1.1 200 OK"
            assert process.memory_info().rss - before < READERS * len(content) / 2
            last = readers.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            last.sendall(request)
            with last.makefile("rb") as answer:
                assert answer.read().partition(b"\r\n\r\n")[2] == content


def test_inputs_that_wait_for_their_turn_are_not_held(database_url: str, tmp_path: Path) -> None:
    """Each may be a data URI of megabytes: it is read when a thread is free to make it small."""
    thumbnails = Thumbnails(IntakeSettings(database_url=database_url, storage_url=tmp_path.as_uri()))
    begun, released = [], threading.Event()

    def find_url() -> str:
        begun.append(1)
        released.wait(60)
        return INPUT

    made = [thumbnails.of_input(find_url, "local") for _ in range(3 * THREADS)]
    wait_for(lambda: len(begun) == THREADS)
    time.sleep(0.1)
    assert len(begun) == THREADS
    released.set()
    assert all(future.result(60) for future in made)


def test_an_edit_with_large_inputs_is_a_small_page(database_url: str, engine: Engine, tmp_path: Path) -> None:
    """Their beginning is shown, in their order."""
    large = f"data:image/png;base64,{'A' * 4_000_000}"
    with engine.begin() as connection:
        batch = create_batch(connection, [{"image_urls": [large, "https://example.com/second.png"]}])
    with page_app(database_url, tmp_path) as app:
        text = sign_in(app, OLGA).get(f"/batches/{batch}/edits/0", headers=HTML).text
    assert len(text) < 50_000
    assert 0 < text.index("data:image/png;base64") < text.index("https://example.com/second.png")


def test_faulty_lines_that_were_skipped_are_shown(database_url: str, tmp_path: Path) -> None:
    """Their fields may be of any kind; neither their batch's page nor their own breaks on them."""
    faulty = [{"prompt": 7, "image_urls": "https://e.com/a.png"}, {"image_urls": {"a": 1}}, {"prompt": ["a"]}, {}]
    body = lines({"name": "odd"}, *faulty, {"prompt": "Good", "image_urls": ["https://e.com/a.png"]})
    with page_app(database_url, tmp_path) as app:
        headers = {"Authorization": f"Bearer {ALICE}"}
        created = (
            app.test_client()
            .post("/v1/batches?on_invalid=skip", data=body, content_type=NDJSON, headers=headers)
            .get_json()
        )
        browser, path = sign_in(app, OLGA), f"/batches/{created['batch_id']}"
        pages = [path, *(f"{path}/edits/{position}" for position in range(5))]
        assert [browser.get(page, headers=HTML).status_code for page in pages] == [200] * 6
