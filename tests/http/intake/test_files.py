"""Files that callers hand in over HTTP: stored once per content and client, judged, kept for a time, deleted."""

import hashlib
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from PIL import Image
from sqlalchemy import Engine
from werkzeug.test import TestResponse

from intake.app import create_app
from intake.settings import IntakeSettings
from models.states import Kept
from storage.store import Storage
from tests.support.api_client import ALICE, BOB, KEYS, hand_in, problem
from tests.support.receiving import rows
from worker.deletion import Elsewhere
from worker.retention import Pruning
from worker.settings import RetentionSettings

OF_ALICE, OF_BOB = {"Authorization": f"Bearer {ALICE}"}, {"Authorization": f"Bearer {BOB}"}


def image(colour: str = "red", kind: str = "PNG") -> bytes:
    canvas = BytesIO()
    Image.new("RGB", (64, 64), colour).save(canvas, kind)
    return canvas.getvalue()


@pytest.fixture
def api(database_url: str, tmp_path: Path) -> Iterator[FlaskClient]:
    """The API with two clients, over a folder."""
    settings = IntakeSettings(database_url=database_url, storage_url=tmp_path.as_uri(), darkroom_api_keys=KEYS)
    app = create_app(settings)
    yield app.test_client()
    app.extensions["darkroom"].engine.dispose()


def send(api: FlaskClient, content: bytes, headers: dict[str, str] = OF_ALICE) -> TestResponse:
    return api.post("/v1/files", data=content, headers=headers, content_type="text/plain")


def objects(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_file_is_kept_once(engine: Engine, api: FlaskClient, tmp_path: Path) -> None:
    """By its bytes, whatever type is named; the same again is the same, and is kept for longer by it."""
    content = image()
    digest = hashlib.sha256(content).hexdigest()
    made = send(api, content)
    assert made.status_code == 201, made.text
    answer = made.get_json()
    assert answer["expires_at"]
    measured = {"sha256": digest, "bytes": len(content), "content_type": "image/png", "width": 64, "height": 64}
    expected = {"reference": f"storage://files/{digest}.png", **measured, "existing": False, "warnings": []}
    assert answer == {**expected, "expires_at": answer["expires_at"]}
    assert objects(tmp_path) == {f"inputs/alice/files/{digest}.png": content}

    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE input_files SET expires_at = now() + interval '1 min'")
    again = send(api, content)
    assert (again.status_code, again.get_json()["existing"]) == (200, True)
    assert again.get_json()["expires_at"] >= answer["expires_at"]
    assert api.get(made.headers["Location"], headers=OF_ALICE).get_json()["reference"] == answer["reference"]


def test_clients_are_apart(api: FlaskClient, tmp_path: Path) -> None:
    """The same content of two clients is two files; of another's nothing can be learned, or deleted."""
    digest = send(api, image()).get_json()["sha256"]
    problem(api.get(f"/v1/files/{digest}", headers=OF_BOB), 404)
    problem(api.delete(f"/v1/files/{digest}", headers=OF_BOB), 404)
    assert send(api, image(), OF_BOB).status_code == 201
    assert sorted(objects(tmp_path)) == [f"inputs/{client}/files/{digest}.png" for client in ("alice", "bob")]
    problem(api.post("/v1/files", data=image()), 401)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "The file is empty."),
        (b"<html><body>no</body></html>", "The file is no image of a kind that can be sent"),
        (image()[:-30], "The file is cut short or damaged"),
        (image(kind="TIFF"), "it is TIFF"),
    ],
)
def test_what_is_no_input_is_refused(
    engine: Engine, api: FlaskClient, tmp_path: Path, content: bytes, reason: str
) -> None:
    """In one sentence, and nothing is kept."""
    (fault,) = problem(send(api, content), 422)["faults"]
    assert reason in fault["reason"]
    assert (objects(tmp_path), rows(engine, "SELECT count(*) FROM input_files")) == ({}, [(0,)])


def test_bounds(database_url: str, api: FlaskClient, tmp_path: Path) -> None:
    """Too long, or compressed on the way."""
    problem(api.post("/v1/files", data=image(), headers={**OF_ALICE, "Content-Encoding": "gzip"}), 415)
    settings = {"database_url": database_url, "storage_url": tmp_path.as_uri(), "intake_max_bytes": 100}
    app = create_app(IntakeSettings(**settings))  # type: ignore[arg-type]
    problem(app.test_client().post("/v1/files", data=bytes(101)), 413)
    app.extensions["darkroom"].engine.dispose()


def test_store_that_refuses_is_asked_again(engine: Engine, api: FlaskClient, tmp_path: Path) -> None:
    """The caller comes again; what was not stored is not answer to be there."""
    (tmp_path / "inputs").write_text("in the way")
    refused = send(api, image())
    problem(refused, 503)
    assert refused.headers["Retry-After"]
    digest = hashlib.sha256(image()).hexdigest()
    problem(api.get(f"/v1/files/{digest}", headers=OF_ALICE), 404)
    (tmp_path / "inputs").unlink()
    assert send(api, image()).status_code == 201


def test_batch_keeps_its_files(engine: Engine, api: FlaskClient, tmp_path: Path) -> None:
    """Neither a person nor time deletes what an unfinished batch names; afterwards both do."""
    answer = send(api, image()).get_json()
    address = f"/v1/files/{answer['sha256']}"
    api.environ_base["HTTP_AUTHORIZATION"] = OF_ALICE["Authorization"]
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE input_files SET expires_at = now() + interval '1 min'")
    made = hand_in(api, {"prompt": "A hat", "image_urls": [answer["reference"]]})
    ((days,),) = rows(engine, "SELECT extract(epoch FROM expires_at - now())::integer / 86400 FROM input_files")
    assert days in (29, 30)
    problem(api.delete(address), 409)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE input_files SET expires_at = now() - interval '1 s'")
    assert prune(engine, tmp_path) == 0
    assert objects(tmp_path)
    api.post(f"/v1/batches/{made['batch_id']}/cancel")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE batches SET finished_at = now()")
    assert prune(engine, tmp_path) == 1
    assert (objects(tmp_path), rows(engine, "SELECT count(*) FROM input_files")) == ({}, [(0,)])
    assert send(api, image()).status_code == 201
    assert api.delete(address).status_code == 200
    assert objects(tmp_path) == {}
    problem(api.delete(address), 404)


def prune(engine: Engine, folder: Path) -> int:
    elsewhere = Elsewhere(lambda: Storage(folder.as_uri()), lambda: pytest.fail("nothing is deleted at the provider"))
    return Pruning(engine, RetentionSettings(), elsewhere).take_step(Kept.INPUT_FILES).removed


def test_killed_in_the_middle(engine: Engine, api: FlaskClient, tmp_path: Path) -> None:
    """A row without its object, or an object that is gone from under an expired row: the file is written anew."""
    answer = send(api, image()).get_json()
    for left in ("stored_at = NULL", "expires_at = now() - interval '1 s'"):
        with engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE input_files SET {left}")
        for path in tmp_path.rglob("*.png"):
            path.unlink()
        assert send(api, image()).status_code == 201
        assert objects(tmp_path) == {f"inputs/alice/files/{answer['sha256']}.png": image()}


def test_what_callers_and_operators_see(database_url: str, engine: Engine, tmp_path: Path) -> None:
    """How much is still to be looked at, why a batch was paused, and the input itself, small."""
    app = create_app(IntakeSettings(database_url=database_url, storage_url=tmp_path.as_uri()))
    api = app.test_client()
    answer = api.post("/v1/files", data=image()).get_json()
    made = hand_in(api, {"prompt": "A hat", "image_urls": [answer["reference"]]}, check_inputs="sample")
    address = f"/batches/{made['batch_id']}"
    shown = api.get(f"/v1{address}").get_json()
    assert (shown["inputs"], shown["pause_reason"]) == ({"check": "sample", "number": 1, "waiting": 1}, None)
    assert "waits for its inputs: 1 of 1" in " ".join(api.get(address).text.split())
    small = api.get(f"{address}/edits/0/inputs/0/thumbnail")
    assert (small.status_code, small.mimetype) == (200, "image/webp")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE batches SET paused_at = now(), pause_reason = '3 of 9 were refused'")
    assert api.get(f"/v1{address}").get_json()["pause_reason"] == "3 of 9 were refused"
    assert "It was paused: 3 of 9 were refused." in api.get(address).text
    assert api.post(f"/v1{address}/resume").get_json()["pause_reason"] is None
    app.extensions["darkroom"].engine.dispose()


def test_many_at_once(api: FlaskClient, tmp_path: Path) -> None:
    """The same file from many sides, while somebody deletes it: who is answer that it is there, finds it."""
    contents = [image(colour) for colour in ("red", "green")]
    answers: list[Any] = []

    def run(number: int) -> None:
        client = api.application.test_client()
        content = contents[number % 2]
        answers.append(send(client, content).status_code)
        if number % 3 == 0:
            client.delete(f"/v1/files/{hashlib.sha256(content).hexdigest()}", headers=OF_ALICE)
            answers.append(send(client, content).status_code)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(answers) <= {200, 201}
    for content in contents:
        assert send(api, content).status_code in (200, 201)
    assert sorted(objects(tmp_path).values()) == sorted(contents)
