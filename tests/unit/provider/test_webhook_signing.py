"""What counts as a secret, and that a wrong one is refused in a sentence which does not show it."""

import base64

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from core.errors import SettingsError
from core.settings import load
from worker.settings import WorkerSettings
from worker.webhook_signing import Signer, new_secret, read_secrets

PLACES = {"database_url": "postgresql://db/darkroom", "redis_url": "redis://broker/0"}
SOUND = "whsec_" + base64.b64encode(b"s" * 24).decode()


@pytest.mark.parametrize(
    "text",
    [
        "hunter2",
        "whsec_hunter2",
        "whsec_",
        f"{SOUND},hunter2",
        f"{SOUND} {SOUND}",
        SOUND.removeprefix("whsec_"),
        SOUND.replace("c", "!"),
        "whsec_" + base64.b64encode(b"s" * 23).decode(),
        "whsec_" + base64.b64encode(b"s" * 65).decode(),
        "whsec_ключ",
        ",",
        f"shop:{SOUND},press:{SOUND}",
        f"{SOUND},press:{SOUND}",
        "shop:hunter2",
        f"{SOUND}:shop",
    ],
)
def test_malformed_secret_is_refused(text: str) -> None:
    """At the start, by name, and not a letter of it is shown."""
    with pytest.raises(SettingsError) as caught:
        load(WorkerSettings, **PLACES, notify_secret=text)
    assert str(caught.value).startswith("NOTIFY_SECRET is wrong (")
    assert not any(part in str(caught.value) for part in ("hunter2", SOUND[6:], "ключ"))


@pytest.mark.parametrize("text", [SOUND, SOUND.rstrip("="), f" {SOUND} ,NEW\n", "NEW"])
def test_sound_secrets(text: str) -> None:
    """Alone or in a list, with or without padding; what is signed with one is believed by who knows it."""
    text = text.replace("NEW", new_secret())
    headers = Signer(read_secrets(text)).headers("id", "{}", "local")
    for secret in text.split(","):
        assert Webhook(secret.strip()).verify("{}", headers) == {}


def test_a_secret_of_ones_own() -> None:
    """A client that has one gets no signature that anybody else can make; everyone else shares the plain one."""
    shop, press = new_secret(), new_secret()
    signer = Signer(read_secrets(f"shop:{shop},press:{press},{SOUND},press:{new_secret()}"))
    assert signer.clients is None
    assert Webhook(shop).verify("{}", signer.headers("id", "{}", "shop")) == {}
    assert Webhook(SOUND).verify("{}", signer.headers("id", "{}", "another")) == {}
    assert len(signer.headers("id", "{}", "press")["webhook-signature"].split()) == 2
    for stranger in (press, SOUND):
        with pytest.raises(WebhookVerificationError):
            Webhook(stranger).verify("{}", signer.headers("id", "{}", "shop"))
    assert Signer(read_secrets(f"shop:{shop}")).clients == {"shop"}


def test_secret_from_a_file(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NOTIFY_SECRET_FILE names a file that holds it."""
    (tmp_path / "secret").write_text(f"{SOUND}\n")
    monkeypatch.setenv("NOTIFY_SECRET_FILE", str(tmp_path / "secret"))
    assert load(WorkerSettings, **PLACES).notify_secrets == {"": (b"s" * 24,)}
