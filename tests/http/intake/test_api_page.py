"""docs/api.md: what it shows is what happens."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.http.conftest import Away
from tests.support.api_client import NDJSON, edits, intake_served, lines
from tests.support.receiving import rows
from tests.support.servers import closed_port

PAGE = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
API = "http://127.0.0.1:8001"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def api(database_url: str, tmp_path: Path) -> Iterator[str]:
    """A served API with the page's keys."""
    port = closed_port()
    keys = "shop:shop-key-7d41c8,press:press-key-0b93e5"
    with intake_served(database_url, port, DARKROOM_API_KEYS=keys, STORAGE_URL=str(tmp_path / "store")):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page uses curl")
def test_every_command_works(api: str, engine: Engine, tmp_path: Path) -> None:
    """All of them, in their order, in one shell; what they leave behind is what the page says."""
    found = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks("bash"))],
        env={**os.environ, "API": api, "KEY": "shop-key-7d41c8"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert found.returncode == 0, found.stdout + found.stderr
    assert blocks("json")[0].strip() in found.stdout
    assert rows(engine, "SELECT name, client, priority, edit_count FROM batches ORDER BY created_at") == [
        ("catalogue", "shop", 5, 1),
        ("catalogue", "shop", 9, 3),
        ("own input", "shop", 0, 1),
        ("second try", "shop", 0, 3),
    ]
    assert len((tmp_path / "results.jsonl").read_text().split("\n")) == 5


def test_client_works(api: str, engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """The typed client, and what is done with it, twice: the order is one."""
    client, use = blocks("python")
    code = client + use.replace(API, api)
    for _ in range(2):
        exec(compile(code, "docs/api.md", "exec"), {})
    assert capsys.readouterr().out == "None pending []\n" * 2
    assert rows(engine, "SELECT name, client FROM batches") == [("order 7", "shop")]


def test_client_goes_on_where_it_was_cut(
    api: str, engine: Engine, database_away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database goes away while results are read: the typed client has each of them once all the same."""
    page: dict[str, Any] = {}
    exec(compile(blocks("python")[0], "docs/api.md", "exec"), page)
    shop = page["Darkroom"](api, "shop-key-7d41c8")
    body = lines({}, *edits(8_000, prompt="x" * 1900))
    made = shop.post(shop.url, data=body, headers={"Content-Type": NDJSON}, timeout=60).json()
    waits: list[float] = []
    with ExitStack() as away:

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            away.close()

        monkeypatch.setattr(time, "sleep", sleep)
        results = shop.results(made["batch_id"])
        found = [next(results).position]
        away.enter_context(database_away())
        found += [result.position for result in results]
    assert waits
    assert found == list(range(8_000))


def test_every_problem_is_explained() -> None:
    """Each type and each status that the API declares stands on the page."""
    from intake.openapi import MEANINGS
    from intake.problems import Kind

    for kind in Kind.__args__:
        assert f"`{kind}`" in PAGE
    assert {status for status in MEANINGS if status >= 400} == set(map(int, re.findall(r"^\| (\d{3}) \|", PAGE, re.M)))
