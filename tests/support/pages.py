"""Helpers of the tests of the operator's page: an application with a store, who signs in, edits with their images."""

import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

from flask import Flask
from flask.testing import FlaskClient
from jinja2.bccache import Bucket, BytecodeCache
from PIL import Image
from sqlalchemy import Connection
from werkzeug.test import TestResponse

from intake.app import create_app
from intake.batches import BatchHeader, create
from intake.manifest import read_jsonl
from intake.settings import IntakeSettings
from models.claims import claim_images
from models.record_reports import record_reports
from models.transitions import StoredImage, record_stored
from models.verdict import Verdict
from storage.store import Storage
from tests.support.api_client import KEYS, lines
from tests.support.factories import POLICY, accept, answer, claim

OLGA = "olga-key-5b20aa"
"""An operator's key."""
HTML = {"Accept": "text/html"}
TOKEN = re.compile(r'name="token" value="([0-9a-f]+)"')


class Compiled(BytecodeCache):
    """Templates as other applications of this process have compiled them."""

    def __init__(self) -> None:
        self._codes: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if code := self._codes.get(bucket.key):
            bucket.bytecode_from_string(code)

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._codes[bucket.key] = bucket.bytecode_to_string()


COMPILED = Compiled()


@contextmanager
def page_app(database_url: str, folder: Path, **settings: Any) -> Iterator[Flask]:
    """The application over a folder of images, with nothing of it left behind; alice, bob and Olga have keys."""
    keys = {"darkroom_api_keys": KEYS, "darkroom_operator_keys": f"olga:{OLGA}"}
    app = create_app(IntakeSettings(database_url=database_url, storage_url=folder.as_uri(), **keys | settings))
    app.jinja_env.bytecode_cache = COMPILED
    try:
        yield app
    finally:
        app.extensions["darkroom"].engine.dispose()


def sign_in(app: Flask, key: str) -> FlaskClient:
    """A browser that has signed in."""
    browser = app.test_client()
    response = browser.post("/sign-in", data={"key": key}, headers=HTML)
    assert response.status_code == 303, response.text
    return browser


def token_of(response: TestResponse) -> str:
    """What the forms of a page carry."""
    found = TOKEN.search(response.text)
    assert found, response.text
    return found[1]


def image_file(kind: str = "PNG", size: tuple[int, int] = (640, 480), color: Any = "teal", **options: Any) -> bytes:
    """An image file."""
    file = BytesIO()
    Image.new("RGBA" if kind == "PNG" and isinstance(color, tuple) else "RGB", size, color).save(file, kind, **options)
    return file.getvalue()


def data_uri(content: bytes, kind: str = "png") -> str:
    """The file as an input that needs no host."""
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


INPUT = data_uri(image_file(size=(64, 48), color="maroon"))


def create_batch(connection: Connection, edits: Sequence[dict[str, Any]], **header: Any) -> UUID:
    """A batch of these edits, each with a prompt and an input unless it says otherwise."""
    given = [{"prompt": f"Paint it {n}", "image_urls": [INPUT], **edit} for n, edit in enumerate(edits)]
    return create(connection, BatchHeader(**header), read_jsonl(BytesIO(lines(*given)))).batch_id


def report(connection: Connection, *verdicts: Verdict) -> None:
    """As many pending edits as there are verdicts are submitted, in their order, and end so."""
    submissions = sorted(claim(connection, limit=len(verdicts)), key=lambda submission: submission.edit_id)
    accept(connection, submissions)
    reports = [answer(submission, verdict) for submission, verdict in zip(submissions, verdicts, strict=True)]
    record_reports(connection, reports, POLICY)


def store_images(connection: Connection, folder: Path, content: bytes | None = None) -> list[int]:
    """All images that wait come into the store; answers their ids."""
    content = content or image_file()
    storage, due = Storage(folder.as_uri()), claim_images(connection, limit=100, lease=60)
    for image in due:
        storage.put(f"{image.name}.png", BytesIO(content))
    with Image.open(BytesIO(content)) as opened:
        kind, size = f"image/{str(opened.format).lower()}", opened.size
    digest, size_of = sha256(content).hexdigest(), len(content)
    record_stored(connection, [StoredImage(i.id, f"{i.name}.png", digest, size_of, kind, *size) for i in due])
    return [image.id for image in due]
