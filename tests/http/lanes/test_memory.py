"""Memory is bounded by bytes: neither large inputs nor large images add up, however many are under way."""

import base64
import json
import os
import subprocess
import sys
import threading
import time
from io import BytesIO
from pathlib import Path
from uuid import uuid4

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from sqlalchemy import Engine

from core import image_files
from intake.batches import BatchHeader, create
from intake.manifest import read_jsonl
from tests.support.receiving import rows
from tests.support.servers import Peer, serve

LARGE = 4_000_000
"""Bytes of the images that an edit holds as data URIs."""
EDITS = 12


def large_edits(engine: Engine) -> None:
    """Edits whose inputs are data URIs, as large as the model takes them, and do not compress."""
    lines = []
    for number in range(EDITS):
        uri = f"data:image/png;base64,{base64.b64encode(os.urandom(LARGE)).decode()}"
        lines.append(json.dumps({"prompt": f"edit {number}", "image_urls": [uri]}).encode())
    with engine.begin() as connection:
        create(connection, BatchHeader(), read_jsonl(BytesIO(b"\n".join(lines))))


def test_large_inputs_do_not_add_up(engine: Engine, database_url: str) -> None:
    """12 edits of 5 MB each: the submit lane sends all of them, few at a time, in the memory of few."""
    large_edits(engine)
    under_way = most = 0
    lock = threading.Lock()

    def accept(peer: Peer) -> bool:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.3)
        with lock:
            under_way -= 1
        return peer.reply(200, json.dumps({"request_id": str(uuid4())}).encode())

    with serve(accept) as wire:
        script = Path(__file__).parents[2] / "support" / "lane_memory.py"
        command = [sys.executable, str(script), database_url, wire.url, str(LARGE)]
        environment = {**os.environ, "PYTHONPATH": str(script.parent.parent.parent)}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        wire.received.clear()
    made, before, peak = map(int, done.stdout.split())

    assert made == EDITS
    assert rows(engine, "SELECT DISTINCT state FROM edits") == [("submitted",)]
    assert peak - before < 120
    assert most <= 2


def test_large_images_are_decoded_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many threads have one in hand."""
    file = BytesIO()
    Image.new("RGB", (3000, 3000)).save(file, "PNG")
    under_way = most = 0
    lock, together = threading.Lock(), threading.Event()
    load = PngImageFile.load

    def counted(image: PngImageFile) -> object:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        if most == 2:
            together.set()
        assert together.wait(60)
        try:
            return load(image)
        finally:
            with lock:
                under_way -= 1

    monkeypatch.setattr(PngImageFile, "load", counted)
    monkeypatch.setattr(image_files, "DECODED", image_files.Budget(20_000_000))
    undeclared = dict.fromkeys(("file_size", "width", "height"))
    threads = [
        threading.Thread(target=image_files.check_image, args=(BytesIO(file.getvalue()),), kwargs=undeclared)
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most == 2
