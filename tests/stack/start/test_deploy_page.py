"""docs/deploy.md: every address of it is one that the settings take."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import redis

from core.settings import StorageSettings, load
from tests.stack.broker.test_broker_url import server, works
from tests.support.command_line import CommandLine
from tests.support.databases import NUMBERS
from tests.support.wire_faults import AUTHORITY, CERTIFICATES
from worker.settings import WorkerSettings

PAGE = (Path(__file__).parents[3] / "docs" / "deploy.md").read_text()
LINES = [line for block in re.findall(r"^```env\n(.*?)^```", PAGE, re.M | re.S) for line in block.splitlines()]
SETTINGS = [line.partition("=")[::2] for line in LINES if line and not line.startswith("#")]


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)
    return str(found)


@pytest.mark.parametrize(("name", "value"), SETTINGS)
def test_every_address_is_taken(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = CERTIFICATES / "server.pem"
    for place, file in {"company.pem": AUTHORITY, "me.pem": server, "me.key": server}.items():
        value = value.replace(f"/etc/ssl/{place}", quote(str(file)) if "://" in value else str(file))
    given = {"DATABASE_URL": "postgresql://h/db", "REDIS_URL": "redis://h/0", name: value}
    for each, text in given.items():
        monkeypatch.setenv(each, text)
    loaded: dict[str, Any] = {key: got for cls in (WorkerSettings, StorageSettings) for key, got in load(cls)}
    assert loaded[name.lower()]


def test_every_kind_of_address_is_there() -> None:
    assert {name for name, _ in SETTINGS} == {
        "DATABASE_URL", "REDIS_URL", "STORAGE_URL", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE",
        "SSL_CERT_FILE",
    }  # fmt: skip


def test_the_rights_suffice(
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    quick_doctor: None,
) -> None:
    """A role with the page's rights hands in a batch; the doctor misses nothing."""
    role = f"worker_{next(NUMBERS)}"
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    grants = block("sql-admin").replace(" worker;", f" {role};").replace("DATABASE darkroom", f"DATABASE {name}")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN")
        connection.execute(grants)
    url = database_url.replace("postgres@", f"{role}@")
    run_cli = CommandLine(monkeypatch, capsys, tmp_path, DATABASE_URL=url, REDIS_URL="redis://127.0.0.1:1/0")
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"prompt": "p", "image_urls": ["https://example.com/a.png"]}\n')
    assert run_cli("submit", manifest).code == 0
    assert run_cli("cancel", "last").code == 0
    found = {line["check"]: line for line in run_cli("doctor", "--json").lines}
    assert found["schema"]["result"] == "ok"
    assert "rights" not in found
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_the_redis_user_suffices() -> None:
    with server() as port:
        with redis.Redis(port=port) as client:
            client.execute_command(*block("redis").split())
        works(f"redis://darkroom:secret@127.0.0.1:{port}/0")
