"""The same manifest by every entry point: the command line, HTTP in both its forms, the Celery task with a list
and with a file in the store. What is created is the same, row by row; what is refused is refused for the same reasons.
"""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask.testing import FlaskClient
from kombu.utils import json as broker_json
from sqlalchemy import Engine

from core.errors import UserError
from storage.store import Storage
from tests.support.api_client import intake_app, lines
from tests.support.command_line import CommandLine
from tests.unit.manifests.test_read_manifest import BYTES, EXAMPLES
from worker import tasks

URL = "https://example.com/a.png"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg"
EDIT = {"prompt": "A red hat", "image_urls": [URL], "seed": 7}

GOOD: dict[str, dict[str, Any]] = {
    "plain": EDIT,
    "every field": {
        **EDIT, "custom_id": "a-b_c.1", "image_size": {"width": 1280, "height": 720}, "num_images": 2,
        "max_images": 3, "sync_mode": False, "enable_safety_checker": True, "enhance_prompt_mode": "fast",
    },
    "ten images": {**EDIT, "image_urls": [f"https://example.com/{n}.png?a=1&b=%20" for n in range(10)]},
    "nulls": {**EDIT, "custom_id": None, "image_size": None, "num_images": None, "sync_mode": None},
    "whole floats": {**EDIT, "seed": 7.0, "num_images": 2.0, "image_size": {"width": 1280.0, "height": 720.0}},
    "an exponent": {**EDIT, "seed": 1e3},
    "a named size": {**EDIT, "image_size": "auto_4K"},
    "one side": {**EDIT, "image_size": {"width": 1280}},
    "a small size": {**EDIT, "image_size": {"width": 1024, "height": 512}},
    "the largest size": {**EDIT, "image_size": {"width": 4096, "height": 4096}},
    "any script": {**EDIT, "prompt": "帽子 Été 👒 \u202e\t\n“quoted”, ; |", "custom_id": "1"},
    "blanks around": {**EDIT, "prompt": "  a  "},
    "data URI": {**EDIT, "image_urls": [f"data:image/png;base64,{PIXEL}=="]},
    "without padding": {**EDIT, "image_urls": [f"data:image/png;base64,{PIXEL}"]},
    "with parameters": {**EDIT, "image_urls": [f"data:image/png;charset=utf-8;base64,{PIXEL}=="]},
    "wrapped": {**EDIT, "image_urls": [f"data:image/png;base64,{PIXEL[:60]}\r\n{PIXEL[60:]}=="]},
    "percent signs": {**EDIT, "image_urls": [f"data:image/png;base64,{PIXEL}%3D%3D"]},
    "a line of results": {"state": "failed", "edit": {**EDIT, "custom_id": "again"}, "results": []},
}  # fmt: skip
BAD: dict[str, Any] = {
    "no prompt": {"image_urls": [URL]},
    "null prompt": {**EDIT, "prompt": None},
    "no images": {**EDIT, "image_urls": []},
    "eleven images": {**EDIT, "image_urls": [URL] * 11},
    "text for a list": {**EDIT, "image_urls": URL},
    "joined by a comma": {**EDIT, "image_urls": [f"{URL},{URL}"]},
    "joined by a semicolon": {**EDIT, "image_urls": [f"{URL};{URL}"]},
    "no host": {**EDIT, "image_urls": ["https://"]},
    "another scheme": {**EDIT, "image_urls": ["ftp://example.com/a.png"]},
    "not base64": {**EDIT, "image_urls": ["data:image/png,abc"]},
    "no image": {**EDIT, "image_urls": ["data:text/html;base64,PGh0bWw+"]},
    "cut short": {**EDIT, "image_urls": [f"data:image/png;base64,{PIXEL[:41]}"]},
    "5000x5000": {**EDIT, "image_size": {"width": 5000, "height": 5000}},
    "12000x12000": {**EDIT, "image_size": {"width": 12000, "height": 12000}},
    "100000x10": {**EDIT, "image_size": {"width": 100000, "height": 10}},
    "a half": {**EDIT, "num_images": 1.5},
    "too large a seed": {**EDIT, "seed": 2**63},
    "text for a number": {**EDIT, "num_images": "2"},
    "an unknown field": {**EDIT, "promt": "x"},
    "an odd custom_id": {**EDIT, "custom_id": "a/b"},
    "a number as custom_id": {**EDIT, "custom_id": 5},
    "a zero character": {**EDIT, "prompt": "a\0b"},
    "half a surrogate": {**EDIT, "prompt": "\ud83d"},
    "text": "A red hat",
    "nothing": None,
}

Rows = list[tuple[Any, ...]]
EntryPoint = Callable[[list[Any], str], str | None]
"""Hands edits in; gives why it was refused."""


@pytest.fixture
def wired(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The worker's process, in this one; gives the folder of its store."""
    folder = tmp_path / "store"
    folder.mkdir()
    dependencies = SimpleNamespace(engine=engine, storage=Storage(folder.as_uri()), settings=None)
    monkeypatch.setattr(tasks, "dependencies", dependencies)
    monkeypatch.setattr(tasks, "crash_point", lambda *_: None)
    return folder


@pytest.fixture
def http(database_url: str) -> Iterator[FlaskClient]:
    with intake_app(database_url, intake_max_bytes=10_000_000) as app:
        yield app.test_client()


@pytest.fixture
def entry_points(
    http: FlaskClient, wired: Path, run_cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, EntryPoint]:
    def task(document: dict[str, Any], skip: str) -> str | None:
        sent = broker_json.loads(broker_json.dumps({**document, "on_invalid": skip}))
        try:
            tasks.create_batch.apply((sent,)).get()
        except UserError as error:
            return str(error)
        return None

    def stored(edits: list[Any], skip: str) -> str | None:
        (wired / "m.jsonl").write_bytes(lines(*edits))
        return task({"manifest": "m.jsonl"}, skip)

    def command(name: str, content: bytes, skip: str) -> str | None:
        file = tmp_path / name
        file.write_bytes(content)
        said = run_cli("submit", file, "--on-invalid", skip)
        return None if said.code == 0 else said.err

    def posted(body: bytes, kind: str, skip: str) -> str | None:
        answer = http.post(f"/v1/batches?on_invalid={skip}", data=body, content_type=kind)
        return None if answer.status_code == 201 else answer.text

    return {
        "command, lines": lambda edits, skip: command("m.jsonl", lines(*edits), skip),
        "command, list": lambda edits, skip: command("m.json", json.dumps(edits, indent=1).encode(), skip),
        "HTTP, document": lambda edits, skip: posted(json.dumps({"edits": edits}).encode(), "application/json", skip),
        "HTTP, lines": lambda edits, skip: posted(b"{}\n" + lines(*edits), "application/x-ndjson", skip),
        "Celery, list": lambda edits, skip: task({"edits": edits}, skip),
        "Celery, file": stored,
    }


def rows_of_newest(engine: Engine) -> Rows:
    """What was created last, to the reasons of what failed; without the numbers of lines, which differ by form."""
    query = """
        SELECT position, custom_id, state, arguments::text, CASE WHEN state = 'failed' THEN 0 ELSE seed END,
               errors -> -1 ->> 'type', errors -> -1 ->> 'message'
        FROM edits WHERE batch_id = (SELECT id FROM batches ORDER BY created_at DESC LIMIT 1) ORDER BY position
    """
    with engine.connect() as connection:
        found = connection.exec_driver_sql(query).all()
    return [(*row[:6], re.sub(r"\bline \d+: ", "", row[6] or "")) for row in found]


PATHS_TOO = " is neither a URL (http, https), a data URI of an image, nor a path"
"""What the command line says, which takes files of its machine."""
HOSTILE: dict[str, Any] = {
    "not a number": {**EDIT, "seed": float("nan")},
    "without end": {**EDIT, "image_size": {"width": float("inf"), "height": 512}},
    "400 digits": {**EDIT, "seed": 10**400},
    "101 fields": {**EDIT, **dict.fromkeys(map(str, range(101)), 1)},
    "70 levels": {**EDIT, "prompt": json.loads("[" * 70 + "]" * 70)},
    "900 levels": {**EDIT, "image_size": json.loads('{"a":' * 900 + "1" + "}" * 900)},
}
"""JSON that some programs write and others cannot read."""


def test_the_same_edits_come_of_it(entry_points: dict[str, EntryPoint], engine: Engine) -> None:
    """Row by row: the good ones in the same words, the faulty ones for the same reasons."""
    samples = {**GOOD, **BAD}
    created = {}
    for name, hand_in in entry_points.items():
        assert hand_in(list(samples.values()), "skip") is None
        created[name] = rows_of_newest(engine)
    expected = created.pop("Celery, list")
    assert [row[2] for row in expected] == ["pending"] * len(GOOD) + ["failed"] * len(BAD)
    for entry_point, rows in created.items():
        for sample, row, wanted in zip(samples, rows, expected, strict=True):
            reason = row[-1].replace(PATHS_TOO, " is neither a URL (http, https) nor a data URI of an image")
            assert (entry_point, sample, *row[:-1], reason) == (entry_point, sample, *wanted)


@pytest.mark.parametrize("sample", BAD)
def test_the_same_is_refused(sample: str, entry_points: dict[str, EntryPoint], engine: Engine) -> None:
    """And then nothing is written, by any entry point."""
    reasons = [hand_in([EDIT, BAD[sample]], "fail") for hand_in in entry_points.values()]
    assert all(reasons)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM batches").scalar() == 0
        hand_in = entry_points["Celery, list"]
        assert hand_in([BAD[sample]], "skip") is None
    ((*_, wanted),) = rows_of_newest(engine)
    words = (wanted.partition(": ")[2] or wanted).partition(";")[0][:38]
    for reason in reasons:
        assert words in str(reason)


def test_several_edits_in_the_place_of_one(entry_points: dict[str, EntryPoint], engine: Engine) -> None:
    """In a list of edits it is one that is none; on a line it may stand for all, so nothing is taken, `skip` or not."""
    for entry_point, hand_in in entry_points.items():
        reason = str(hand_in([EDIT, [EDIT, EDIT]], "skip"))
        listed = entry_point in ("HTTP, document", "Celery, list")
        assert ("None" if listed else "holds several edits") in reason, entry_point
        if listed:
            assert rows_of_newest(engine)[1][-1] == "is not a JSON object"


@pytest.mark.parametrize("sample", HOSTILE)
def test_hostile_json_is_refused_everywhere(sample: str, entry_points: dict[str, EntryPoint], engine: Engine) -> None:
    """With a reason; nothing breaks."""
    for entry_point, hand_in in entry_points.items():
        assert hand_in([HOSTILE[sample]], "fail"), entry_point
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM batches").scalar() == 0
    for entry_point in ("command, lines", "HTTP, lines", "Celery, list", "Celery, file"):
        assert entry_points[entry_point]([EDIT, HOSTILE[sample], EDIT], "skip") is None, entry_point
        assert [row[2] for row in rows_of_newest(engine)] == ["pending", "failed", "pending"], entry_point


def test_what_only_a_broker_can_carry(entry_points: dict[str, EntryPoint], engine: Engine) -> None:
    """Celery's JSON brings a date back as a date."""
    dated = {**EDIT, "prompt": datetime(2026, 1, 1, tzinfo=UTC)}
    assert "not JSON" in str(entry_points["Celery, list"]([dated], "fail"))
    assert entry_points["Celery, list"]([EDIT, dated], "skip") is None
    assert [row[2] for row in rows_of_newest(engine)] == ["pending", "failed"]


@pytest.mark.parametrize("form", BYTES)
def test_a_file_is_the_same_on_disk_and_in_the_store(
    form: str, wired: Path, run_cli: CommandLine, engine: Engine, tmp_path: Path
) -> None:
    """Every example of the page, in every encoding of it."""
    for number, (ending, text) in enumerate(EXAMPLES):
        name = f"m{number}.{ending}"
        for folder in (tmp_path, wired):
            (folder / name).write_bytes(BYTES[form](text))
        assert run_cli("submit", tmp_path / name).code == 0
        by_command = rows_of_newest(engine)
        tasks.create_batch.apply(({"manifest": name},)).get()
        without_seeds = [[(*row[:4], *row[5:]) for row in rows] for rows in (by_command, rows_of_newest(engine))]
        assert len(by_command) == 2
        assert without_seeds[0] == without_seeds[1]


@pytest.mark.parametrize("form", [form for form in BYTES if form != "UTF-8"])
def test_a_body_is_json_in_utf_8(form: str, http: FlaskClient, engine: Engine) -> None:
    """Marks and line ends are harmless; of what is encoded in another way the reason is told, and nothing is taken."""
    body = BYTES[form](json.dumps({}) + "\n" + json.dumps(EDIT) + "\n" + json.dumps(EDIT) + "\n")
    answer = http.post("/v1/batches", data=body, content_type="application/x-ndjson")
    if form in ("UTF-8 with a byte order mark", "CR LF at the ends of lines"):
        assert answer.status_code == 201, answer.text
        assert len(rows_of_newest(engine)) == 2
        return
    assert answer.status_code == 400
    if form.startswith("CR "):
        assert "line feed" in answer.get_json()["detail"]
        return
    assert "UTF-8" in answer.get_json()["detail"]


@pytest.mark.parametrize("kind", ["text/csv", "application/gzip", "text/plain", "application/json; charset=utf-16"])
def test_a_body_of_another_kind_is_refused(kind: str, http: FlaskClient) -> None:
    answer = http.post("/v1/batches", data=b"prompt,image_urls\n", content_type=kind)
    assert answer.status_code in (400, 415)
    assert "JSON" in answer.get_json()["detail"] or "json" in answer.get_json()["detail"]
