"""A manifest in storage, named by another service's task: the same forms, and the same promise that no row is lost."""

import gzip
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Engine

from core.errors import ManifestError
from intake.celery_batch import create_from_document
from storage.store import Storage

URL = "https://example.com/a.png"


def create(engine: Engine, folder: Path, name: str, content: bytes, **about: object) -> tuple[int, int]:
    """Hand in a manifest in a real store; how many edits the batch has, and how many of them failed."""
    (folder / name).write_bytes(content)
    manifest = partial(Storage(folder.as_uri()).get, max_bytes=2**30)
    with engine.begin() as connection:
        created = create_from_document(connection, {"manifest": name, **about}, manifest)
    with engine.connect() as connection:
        query = "SELECT count(*), count(*) FILTER (WHERE state = 'failed') FROM edits WHERE batch_id = %s"
        edits, failed = connection.exec_driver_sql(query, (created.batch_id,)).one()
    assert (created.edits, created.skipped) == (edits, failed)
    return edits, failed


def excel(rows: int, odd: int) -> bytes:
    """A table as Excel saves it, with one row in the encoding of its Windows."""
    lines = [f"{'é' if number == odd else 'x'};{URL}" for number in range(rows)]
    return "\r\n".join(["prompt;image_urls", *lines, ""]).encode("cp1252")


@pytest.mark.parametrize("name", ["m.csv", "m.txt", "m"])
def test_a_row_that_cannot_be_read_costs_its_neighbours_nothing(engine: Engine, tmp_path: Path, name: str) -> None:
    """Twenty rows are twenty edits, one of them failed with the reason."""
    assert create(engine, tmp_path, name, excel(20, 0), on_invalid="skip") == (20, 1)
    with engine.connect() as connection:
        query = "SELECT errors -> -1 ->> 'message' FROM edits WHERE state = 'failed'"
        assert "line 2: is not UTF-8 (byte 1): 0xE9" in connection.exec_driver_sql(query).scalar()
    with pytest.raises(ManifestError, match="line 6: is not UTF-8"):
        create(engine, tmp_path, name, excel(20, 4))


@pytest.mark.parametrize(
    "content",
    [
        f'prompt,image_urls\nx,{URL}\n"y,{URL}\nz,{URL}\n'.encode(),
        f"promt,image_urls\nx,{URL}\ny,{URL}\n".encode(),
        gzip.compress(b"\n".join([json.dumps({"prompt": "x", "image_urls": [URL]}).encode()] * 99))[:-9],
        json.dumps([{"prompt": "x", "image_urls": [URL]}] * 9)[:-20].encode(),
        b"PK\x03\x04" + bytes(30) + b"[Content_Types].xml",
    ],
    ids=["quote", "head", "gzip", "list", "xlsx"],
)
def test_what_cannot_be_read_on_writes_nothing_even_with_skip(engine: Engine, tmp_path: Path, content: bytes) -> None:
    """No batch of the first rows alone."""
    with pytest.raises(ManifestError):
        create(engine, tmp_path, "m.csv", content, on_invalid="skip")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM batches").scalar() == 0


def test_forms_of_a_manifest_in_storage(engine: Engine, tmp_path: Path) -> None:
    """UTF-16 from PowerShell, gzip, a list."""
    line = json.dumps({"prompt": "帽子", "image_urls": [URL]})
    assert create(engine, tmp_path, "a.jsonl", f"{line}\r\n{line}\r\n".encode("utf-16")) == (2, 0)
    assert create(engine, tmp_path, "a.jsonl.gz", gzip.compress(f"{line}\n{line}".encode())) == (2, 0)
    assert create(engine, tmp_path, "a.json", f"[{line}, {line}]".encode()) == (2, 0)


EAGERLY = """
import json, sys
from worker.tasks import create_batch
print(json.dumps(create_batch.apply(args=[json.loads(sys.argv[1])]).get()))
"""


def test_a_store_in_trouble_refuses_no_batch_that_needs_none(database_url: str, tmp_path: Path) -> None:
    """The Celery task opens the store for a manifest in it alone."""
    (tmp_path / "file").write_text("no folder")
    settings = {"REDIS_URL": "redis://127.0.0.1:1/0", "STORAGE_URL": str(tmp_path / "file" / "images")}
    document = {"name": "hats", "edits": [{"prompt": "x", "image_urls": ["https://example.com/a.png"]}]}
    done = subprocess.run(
        [sys.executable, "-c", EAGERLY, json.dumps(document)],
        env={**os.environ, "DATABASE_URL": database_url, **settings},
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stdout)["edits"] == 1
