"""Which settings a stack runs with, and what of them is shown."""

import json
import os
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from cli.main import main
from cli.settings import EMULATOR_KEY, MASK, CLISettings, effective, load_with_database, stack_variables
from cli.stack.embedded import free_port
from cli.stack.home import Home
from cli.stack.start import plan
from core.errors import SettingsError, UserError
from core.settings import load

EMULATOR = "http://127.0.0.1:8002"
PLACES = {"database_url": "postgresql://postgres@/darkroom?host=/run/pg", "redis_url": "redis://127.0.0.1:6400/0"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "home"))
    home = load(CLISettings).home
    home.create()
    return home


def free_ports() -> dict[str, str]:
    """So that a stack which runs on this machine is no fault of a test."""
    return {"RECEIVER_PORT": str(free_port()), "INTAKE_PORT": str(free_port())}


def variables(emulator_url: str | None) -> dict[str, str]:
    return stack_variables(load(CLISettings), **PLACES, emulator_url=emulator_url)


def test_real_provider_needs_a_key() -> None:
    """Without a key and without the emulator nothing starts, and the sentence names both ways out."""
    with pytest.raises(SettingsError, match=r"FAL_KEY.*--emulator"):
        variables(None)


def test_strangers_need_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything starts: off loopback the intake API wants keys, and a key is shown to nobody."""
    for name, value in {**PLACES, **free_ports(), "BIND_HOST": "0.0.0.0", "FAL_KEY": "a:b"}.items():
        monkeypatch.setenv(name.upper(), value)
    with pytest.raises(SettingsError, match=r"DARKROOM_API_KEYS is not set.*0\.0\.0\.0"):
        plan(load(CLISettings), None)
    monkeypatch.setenv("DARKROOM_API_KEYS", "shop:twelve-chars")
    prepared = plan(load(CLISettings), None)
    assert [part.name for part in prepared.processes if part.name == "intake"] == ["intake"]
    assert prepared.variables["DARKROOM_API_KEYS"] == "shop:twelve-chars"
    assert effective()["DARKROOM_API_KEYS"] == MASK


def test_emulator_takes_all_four_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the emulator no address of the real provider is left, whatever is set; other settings stay."""
    monkeypatch.setenv("FAL_QUEUE_URL", "https://queue.fal.run")
    monkeypatch.setenv("MAX_IN_FLIGHT", "7")
    made = variables(EMULATOR)
    assert {made[f"FAL_{place}_URL"] for place in ("QUEUE", "REST", "CDN", "API")} == {EMULATOR}
    assert made["FAL_JWKS_URL"] == f"{EMULATOR}/.well-known/jwks.json"
    assert (made["FAL_KEY"], made["FAL_MEDIA_HOSTS"], made["MAX_IN_FLIGHT"]) == (EMULATOR_KEY, "127.0.0.1", "7")
    assert made["PUBLIC_URL"] == "http://127.0.0.1:8000"


def test_key_file_is_handed_on_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key in a file stays in its file; its path is made absolute for processes that run elsewhere."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_text("id:secret\n")
    monkeypatch.setenv("FAL_KEY_FILE", "key")
    made = variables(None)
    assert made["FAL_KEY_FILE"] == str(tmp_path / "key")
    assert "FAL_KEY" not in made


def test_notify_secret_is_made_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stack that is told none makes one for its home, for this user's eyes only, and keeps it from start to start."""
    made = variables(EMULATOR)
    kept = home.folder / "notify.secret"
    assert made["NOTIFY_SECRET_FILE"] == str(kept)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    secret = kept.read_text()
    assert Webhook(secret.strip()).sign("id", datetime.now(UTC), "{}")
    assert variables(EMULATOR) == made
    assert kept.read_text() == secret
    assert secret.strip() not in made.values()
    for name, value in {**made, "FAL_KEY": "id:key"}.items():
        monkeypatch.setenv(name, value)
    assert effective()["NOTIFY_SECRET"] == MASK


@pytest.mark.parametrize("name", ["NOTIFY_SECRET", "NOTIFY_SECRET_FILE"])
def test_given_notify_secret_is_used(name: str, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one is set none is made."""
    monkeypatch.setenv(name, "/run/secrets/notify")
    made = variables(EMULATOR)
    assert {key: value for key, value in made.items() if "NOTIFY" in key} == {name: "/run/secrets/notify"}
    assert not (home.folder / "notify.secret").exists()


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key and no password is shown; a URL without a password is shown whole."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hunter2@db/darkroom")
    monkeypatch.setenv("REDIS_URL", "redis://:hunter3@broker:6379/0")
    monkeypatch.setenv("FAL_KEY", "id:hunter4")
    shown = effective()
    assert shown["FAL_KEY"] == MASK
    assert shown["DATABASE_URL"] == f"postgresql://me:{MASK}@db/darkroom"
    assert "hunter" not in json.dumps(shown)
    monkeypatch.setenv("DATABASE_URL", PLACES["database_url"])
    assert effective()["DATABASE_URL"] == PLACES["database_url"]


def test_other_terminals_find_the_running_stack(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the home is held its settings are found, by this user only; what is set explicitly wins."""
    monkeypatch.setenv("MAX_IN_FLIGHT", "3")
    with home.hold():
        home.publish({"DATABASE_URL": PLACES["database_url"], "MAX_IN_FLIGHT": "9", "FAL_KEY": "a:b=c"})
        assert stat.S_IMODE((home.folder / "stack.env").stat().st_mode) == 0o600
        load_with_database()
        assert os.environ["DATABASE_URL"] == PLACES["database_url"]
        assert (os.environ["MAX_IN_FLIGHT"], os.environ["FAL_KEY"]) == ("3", "a:b=c")
    assert home.read_published() == {}


def test_what_a_killed_stack_told_is_not_believed(home: Home) -> None:
    """A file that no running stack stands behind is no stack."""
    (home.folder / "stack.env").write_text("DATABASE_URL=postgresql://gone/darkroom\n")
    with pytest.raises(SettingsError, match="darkroom up"):
        load_with_database()


def test_home_is_held_once(home: Home) -> None:
    """A second stack in the same home is refused in a sentence."""
    with home.hold(), pytest.raises(UserError, match="already runs"), home.hold():
        pass


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("env",), "darkroom: No stack runs in {home} and DATABASE_URL is not set; start one with `darkroom up`."),
        (("status", "last"), "darkroom: No stack runs in {home} and DATABASE_URL is not set"),
        (("up",), "darkroom: FAL_KEY is not set; set it, or add --emulator"),
        (("status",), "Usage: darkroom status"),
        (("submit", "nowhere.jsonl"), "Usage: darkroom submit"),
    ],
)
def test_errors_are_one_sentence(
    arguments: tuple[str, ...],
    sentence: str,
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What a person can fix is said on standard error, without a traceback, with exit code 2."""
    monkeypatch.setattr(sys, "argv", ["darkroom", *arguments])
    for name, value in free_ports().items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr()
    assert (stop.value.code, said.out) == (2, "")
    assert said.err.startswith(sentence.format(home=home.folder))
