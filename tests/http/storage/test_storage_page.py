"""docs/storage.md: each store as it is shown there can be opened, and the rights that are said to suffice do."""

import io
import os
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from core.errors import StorageUnavailable
from core.settings import StorageSettings, load
from storage.store import IN_ONE_PUT, Storage
from tests.http.storage.test_conformance import read
from tests.support.google import write_account
from tests.support.stores import BUCKET, ObjectStore, admin_client

PAGE = (Path(__file__).parents[3] / "docs" / "storage.md").read_text()
EXAMPLES = [
    dict(line.split("=", 1) for line in block.splitlines())
    for block in re.findall(r"^```env\n(.*?)^```", PAGE, re.M | re.S)
]


@pytest.fixture
def account(tmp_path: Path) -> Path:
    """A service account's file, with a key that opens nothing."""
    write_account(tmp_path / "account.json")
    return tmp_path / "account.json"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["STORAGE_URL"][:2])
def test_every_store_of_the_page_can_be_opened(
    example: dict[str, str], account: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is missing of what is shown, and nothing of it is refused."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("[darkroom]\naws_access_key_id = a\naws_secret_access_key = b\n")
    for name, value in example.items():
        given = value.replace("/etc/darkroom/account.json", str(account)).replace(
            "/srv/images", str(tmp_path / "images")
        )
        monkeypatch.setenv(name, given)
    Storage(load(StorageSettings).storage_url)


def test_a_link_of_google(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made with the account's own key, without a word to Google; of one object, for a time."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))
    link = urlsplit(Storage("gs://images/darkroom").sign("b/ü 1.png", 600) or "")
    query = parse_qs(link.query)
    assert (link.hostname, link.path) == ("storage.googleapis.com", "/images/darkroom/b/%C3%BC%201.png")
    assert query["X-Goog-Expires"] == ["600"]
    assert query["X-Goog-Credential"][0].startswith("darkroom@project.example/")
    assert len(query["X-Goog-Signature"][0]) == 512


def test_no_link_that_azure_would_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Better none than one that opens nothing."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "shop")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")
    storage = Storage("az://images/darkroom")
    assert storage.sign("b/hat 1/0.png", 60) is None
    assert storage.sign("b/hat-1/0.png", 60)
    assert Storage("az://images/dark room").sign("b/hat-1/0.png", 60) is None


def test_the_example_of_what_speaks_like_s3_works(s3_server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the names of a real one in the place of the page's, and nothing added."""
    (example,) = [found for found in EXAMPLES if found.get("AWS_ENDPOINT_URL", "").startswith("http://")]
    assert set(s3_server.environment) == set(example) - {"STORAGE_URL"}
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    storage = Storage(example["STORAGE_URL"])
    storage.put("k", io.BytesIO(b"x"))
    assert read(storage, "k") == b"x"


def test_the_rights_suffice(s3_server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """For everything that is done in a store, under its prefix alone."""
    (policy,) = re.findall(r"^```json\n(.*?)^```", PAGE, re.M | re.S)
    users = admin_client("iam", s3_server)
    users.create_user(UserName="page")
    users.put_user_policy(UserName="page", PolicyName="page", PolicyDocument=policy)
    made = users.create_access_key(UserName="page")["AccessKey"]
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", made["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", made["SecretAccessKey"])
    storage = Storage(f"s3://{BUCKET}/darkroom")

    for content in (b"x", bytes(IN_ONE_PUT + 1)):
        storage.put("b/0.png", io.BytesIO(content))
        assert read(storage, "b/0.png") == content
    assert list(storage.list_older("b", -60)) == ["b/0.png"]
    storage.delete("b/0.png")
    with pytest.raises(StorageUnavailable, match="these credentials may not"):
        Storage(f"s3://{BUCKET}/other").put("k", io.BytesIO(b"x"))
