"""Where images go, as people write it, and what an object store's client says in their words."""

import json
import os
from io import BytesIO
from pathlib import Path

import pytest

from core.errors import DownloadError, SettingsError, StorageUnavailable
from core.settings import StorageSettings, load
from storage.store import Storage
from tests.http.http_client.test_network import secure
from tests.support.servers import serve
from tests.support.wire_faults import AUTHORITY, proxying

KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "eu-west-1"}


def storage_url(patch: pytest.MonkeyPatch, given: str) -> str:
    patch.setenv("STORAGE_URL", given)
    return load(StorageSettings).storage_url


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ("./images", "images"),
        ("images", "images"),
        ("a #b%20c?", "a #b%20c?"),
        ("~/pix", "home/pix"),
        ("file://localhost{}/x", "x"),
        ("file://{}/x/", "x"),
        ("{}/x y", "x y"),
    ],
)
def test_a_folder_in_any_usual_form(given: str, folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    url = storage_url(monkeypatch, given.format(tmp_path))
    Storage(url).put("k", BytesIO(b"x"))
    assert (tmp_path / folder / "k").read_bytes() == b"x"
    assert storage_url(monkeypatch, url) == url


@pytest.mark.parametrize(
    ("given", "form"),
    [
        ("file://./images", "write ./images"),
        ("file://~/pix", "write ~/pix"),
        ("file://../pix", "write ../pix"),
        ("file://images/x", "file:///images/x"),
        ("file:/images", "file://"),
        ("S3://bucket", "s3://"),
        ("s3:bucket", "s3://"),
        ("s3://", "bucket"),
        ("s3://key:secret@bucket/x", "bucket"),
        ("s3://bucket?region=x", "[?]"),
        ("https://bucket.s3.amazonaws.com", "s3://"),
        ("https://minio.example:9000/bucket", "AWS_ENDPOINT_URL"),
        ("https://acc.r2.cloudflarestorage.com/bucket", "AWS_ENDPOINT_URL"),
        ("https://s3.wasabisys.com/bucket", "AWS_ENDPOINT_URL"),
        ("https://nyc3.digitaloceanspaces.com/bucket", "AWS_ENDPOINT_URL"),
        ("b2://bucket", "AWS_ENDPOINT_URL"),
        ("s3a://bucket/x", "write s3://bucket/prefix[)]"),
        ("https://shop.blob.core.windows.net/c", "az://"),
        ("abfss://c@shop.dfs.core.windows.net/x", "az://"),
        ("https://storage.googleapis.com/b", "gs://"),
        ("gcs://b/x", "gs://"),
        ("$HOME/pix", "the path itself"),
        ("\\\\server\\share", "the path itself"),
        ("C:\\images", "path of a folder"),
        ("'/srv/pix'", "quotes"),
        ("memory://", "for tests of one process"),
        ("/", "no folder"),
        ("file:///", "no folder"),
        ("~nobody-of-that-name/x", "not known here"),
    ],
)
def test_what_would_be_another_place_is_refused(given: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=form):
        storage_url(monkeypatch, given)


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_")):
            monkeypatch.delenv(name)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("credentials")
def test_an_endpoint_over_http_and_over_an_own_authority(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more need be said than AWS_ENDPOINT_URL; nobody but the proxy knows store.example."""
    with serve(lambda line: line.reply(200, etag='"x"')) as wire:
        for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
            monkeypatch.setenv(name, wire.url)
            Storage("s3://bucket/p").put("k", BytesIO(b"x"))
            monkeypatch.delenv(name)
        assert [request.target.partition("?")[0] for request in wire.received] == ["/bucket/p/k"] * 2
    with secure(lambda line: line.reply(200, etag='"x"')) as there, proxying(store__example=there.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "https://store.example")
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(AUTHORITY))
        Storage("s3://bucket/p").put("k", BytesIO(b"x"))
        assert set(proxy.targets) == {"CONNECT store.example:443"}
        assert there.received[0].headers["host"].startswith("store.example")


def refusal(url: str) -> str:
    with pytest.raises((DownloadError, SettingsError)) as refused:
        Storage(url).put("k", BytesIO(b"x"))
    said = str(refused.value)
    assert "Debug source" not in said
    assert "\n" not in said
    return said


@pytest.mark.usefixtures("credentials")
def test_errors_say_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "AZURE_STORAGE_ACCOUNT_NAME" in refusal("az://c/p")
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", "/no/such.json")
    assert "GOOGLE_APPLICATION_CREDENTIALS" in refusal("gs://b/p")
    for code, status, named in (
        ("SignatureDoesNotMatch", 403, "AWS_SECRET_ACCESS_KEY"),
        ("AccessDenied", 403, "rights"),
        ("NoSuchBucket", 404, "no such bucket"),
        ("PermanentRedirect", 400, "AWS_REGION"),
    ):
        body = f"<Error><Code>{code}</Code></Error>".encode()
        with serve(lambda line, status=status, body=body: line.reply(status, body)) as wire:
            monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
            assert named in refusal("s3://bucket/p")


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", "minio", "ftp://h"])
def test_an_endpoint_that_is_no_address(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    assert "AWS_ENDPOINT_URL is wrong" in refusal("s3://bucket/p")


@pytest.mark.usefixtures("credentials")
def test_an_untrusted_certificate_of_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_RETRIES", "0")
    with secure(lambda line: line.reply(200)) as there:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{there.port}")
        said = refusal("s3://bucket/p")
    assert "SSL_CERT_FILE" in said


AZURE = {"AZURE_STORAGE_ACCOUNT_NAME": "shop", "AZURE_STORAGE_ACCOUNT_KEY": "c2VjcmV0"}


def xml(code: str) -> bytes:
    return f"<Error><Code>{code}</Code></Error>".encode()


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize(
    ("status", "code", "reason", "named"),
    [
        (404, "ContainerNotFound", "bucket_missing", "no such container"),
        (403, "AuthenticationFailed", "credentials_refused", "AZURE_STORAGE_ACCOUNT_KEY does not fit"),
        (403, "AuthorizationPermissionMismatch", "credentials_refused", "the container's rights"),
    ],
)
def test_what_azure_refuses(status: int, code: str, reason: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over http, which the endpoint says and nothing else needs to."""
    with serve(lambda line: line.reply(status, xml(code))) as wire:
        set_all(monkeypatch, **AZURE, AZURE_STORAGE_ENDPOINT=f"{wire.url}/shop")
        check_trouble("az://images/p", reason, named)
        assert wire.received[0].target.startswith("/shop/images/p/k")


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize(
    ("status", "code", "reason", "named"),
    [
        (404, "NoSuchBucket", "bucket_missing", "no such bucket"),
        (403, "AccessDenied", "credentials_refused", "the bucket's rights"),
    ],
)
def test_what_google_refuses(
    status: int, code: str, reason: str, named: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with serve(lambda line: line.reply(status, xml(code))) as wire:
        set_all(monkeypatch, GOOGLE_SERVICE_ACCOUNT=service_account(tmp_path, wire.url))
        check_trouble("gs://images/p", reason, named)


@pytest.mark.usefixtures("credentials")
def test_a_store_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody listens, or no network knows the name: what to set is named in that store's own words."""
    set_all(monkeypatch, **AZURE, AZURE_STORAGE_ENDPOINT="http://127.0.0.1:1/shop")
    check_trouble("az://c/p", "unreachable", "nobody listens there: see AZURE_STORAGE_ACCOUNT_NAME, or AZURE_STORAGE")
    set_all(monkeypatch, AZURE_STORAGE_ENDPOINT="https://shop.invalid")
    check_trouble("az://c/p", "unreachable", "its name is not known: see AZURE_STORAGE_ACCOUNT_NAME")
    set_all(monkeypatch, AZURE_STORAGE_ENDPOINT="nowhere")
    assert "no URL: see AZURE_STORAGE_ACCOUNT_NAME, or AZURE_STORAGE_ENDPOINT" in refusal("az://c/p")
    set_all(monkeypatch, GOOGLE_SERVICE_ACCOUNT=service_account(tmp_path, "http://127.0.0.1:1"))
    check_trouble("gs://b/p", "unreachable", "nobody listens there: see this machine's network, or HTTPS_PROXY")
    set_all(monkeypatch, GOOGLE_SERVICE_ACCOUNT=service_account(tmp_path, "https://store.invalid"))
    check_trouble("gs://b/p", "unreachable", "its name is not known: see this machine's network")
    set_all(monkeypatch, AWS_ENDPOINT_URL="https://store.invalid")
    check_trouble("s3://b/p", "unreachable", "its name is not known: see AWS_ENDPOINT_URL")


@pytest.mark.usefixtures("credentials")
def test_no_credentials_use_up_no_try(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine's own role is asked for, and there is none; the store itself was never asked."""
    with serve(lambda line: line.reply(403, b"no role")) as wire:
        set_all(monkeypatch, AZURE_STORAGE_ACCOUNT_NAME="shop", AZURE_MSI_ENDPOINT=f"{wire.url}/token")
        check_trouble("az://c/p", "credentials_refused", "no credentials: set AZURE_STORAGE_ACCOUNT_KEY, or AZURE")
        assert wire.received


def set_all(patch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        patch.setenv(name, value)


def check_trouble(url: str, reason: str, named: str) -> None:
    """It pauses the lane, and uses up no try; the sentence says what to set."""
    with pytest.raises(StorageUnavailable) as refused:
        Storage(url).put("k", BytesIO(b"x"))
    assert (refused.value.type, named in str(refused.value)) == (reason, True), str(refused.value)
    assert "\n" not in str(refused.value)


def service_account(folder: Path, base_url: str) -> str:
    """A file as the emulators of Google's store take it."""
    file = folder / "account.json"
    fields = {"gcs_base_url": base_url, "disable_oauth": True, "client_email": "", "private_key": ""}
    file.write_text(json.dumps({**fields, "private_key_id": ""}))
    return str(file)
