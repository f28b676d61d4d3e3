"""Where the credentials of a store come from: each place that its own tools know, shown on the real store."""

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.errors import SettingsError
from storage import profiles
from storage.store import Storage
from tests.http.storage.conformance import NOT_OVER_NETWORK, case
from tests.http.storage.conftest import Place
from tests.http.storage.test_conformance import read
from tests.support.servers import Peer, serve
from tests.support.stores import ACCESS_KEY, REGION, SECRET_KEY
from tests.support.wire_faults import proxying

ONLY_S3 = {**NOT_OVER_NETWORK, "az": "–"}
OURS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")


def check(place: Place) -> None:
    """An object goes there and back."""
    storage = Storage(place.url)
    storage.put("k", io.BytesIO(b"x"))
    assert read(storage, "k") == b"x"


def forget_keys(place: Place, home: Path) -> None:
    """Nothing is left in the environment but where the store is."""
    for name in OURS:
        place.patch.delenv(name)
    place.patch.setenv("HOME", str(home))
    place.patch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # of boto3: nothing is asked for beyond this machine


def write_profile(home: Path, name: str, *lines: str) -> None:
    (home / ".aws").mkdir(exist_ok=True)
    with (home / ".aws" / "credentials").open("a") as file:
        print(f"[{name}]", *lines, sep="\n", file=file)


KEYS = (f"aws_access_key_id = {ACCESS_KEY}", f"aws_secret_access_key = {SECRET_KEY}", f"region = {REGION}")


@case("credentials and address from the environment", **NOT_OVER_NETWORK)
def test_environment(place: Place) -> None:
    check(place)


@case("credentials from a profile (`AWS_PROFILE`, or the default one)", **ONLY_S3)
def test_profile(place: Place, tmp_path: Path) -> None:
    forget_keys(place, tmp_path)
    write_profile(tmp_path, "default", *KEYS)
    check(place)

    write_profile(tmp_path, "wrong", "aws_access_key_id = a", "aws_secret_access_key = b")
    place.patch.setenv("AWS_PROFILE", "wrong")
    with pytest.raises(Exception, match="does not know AWS_ACCESS_KEY_ID"):
        check(place)
    place.patch.setenv("AWS_PROFILE", "default")
    check(place)


@case("credentials that a program of the profile gives (`credential_process`)", **ONLY_S3)
def test_profile_with_a_program(place: Place, tmp_path: Path) -> None:
    forget_keys(place, tmp_path)
    given = tmp_path / "given.json"
    given.write_text(json.dumps({"Version": 1, "AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY}))
    write_profile(tmp_path, "program", f"credential_process = cat {given}", f"region = {REGION}")
    place.patch.setenv("AWS_PROFILE", "program")
    check(place)


@case("credentials of the machine's own role (instance metadata)", **ONLY_S3)
def test_instance_metadata(place: Place, tmp_path: Path) -> None:
    forget_keys(place, tmp_path)
    expires = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    role = {"Code": "Success", "Type": "AWS-HMAC", "Token": "", "Expiration": expires}
    role |= {"AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY}

    def answer(peer: Peer) -> bool:
        assert peer.request
        if peer.request.method == "PUT":
            return peer.reply(200, b"session-token")
        if peer.request.headers.get("x-aws-ec2-metadata-token") != "session-token":
            return peer.reply(401)
        last = peer.request.target.endswith("/darkroom")
        return peer.reply(
            200, json.dumps({"Code": "Success", "Type": "AWS-HMAC", **role}).encode() if last else b"darkroom"
        )

    with serve(answer) as metadata:
        place.patch.setenv("AWS_METADATA_ENDPOINT", metadata.url)
        place.patch.setenv("AWS_REGION", REGION)
        check(place)
    assert [request.method for request in metadata.received] == ["PUT", "GET", "GET"]


@case("the bucket in the path, or in the host name (`AWS_VIRTUAL_HOSTED_STYLE_REQUEST`)", **ONLY_S3)
def test_virtual_host(place: Place) -> None:
    assert place.server
    port = int(place.server.url.rpartition(":")[2])
    check(place)
    with proxying(images__localhost=port) as proxy:  # no name server here knows the bucket
        place.patch.setenv("HTTP_PROXY", proxy.url)
        place.patch.setenv("AWS_ENDPOINT_URL", f"http://images.localhost:{port}")
        place.patch.setenv("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true")
        check(place)
    assert proxy.targets
    place.patch.delenv("AWS_VIRTUAL_HOSTED_STYLE_REQUEST")
    place.patch.setenv("AWS_ENDPOINT_URL", place.server.url)
    place.patch.delenv("HTTP_PROXY")
    check(place)


@pytest.mark.parametrize(("profile", "said"), [("nobody", "nobody"), ("empty", "holds no credentials")])
def test_profile_that_cannot_be_used(profile: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence that names it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_PROFILE", profile)
    for name in OURS:
        monkeypatch.delenv(name, raising=False)
    write_profile(tmp_path, "empty", f"region = {REGION}")
    with pytest.raises(SettingsError, match=said) as caught:
        Storage("s3://bucket/prefix")
    assert f"AWS_PROFILE={profile}" in str(caught.value)


def test_profile_without_the_package_that_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said with the package's name; a file that is merely there stops nobody, for the machine may have a role."""
    monkeypatch.setattr(profiles, "find_spec", lambda _: None)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in OURS:
        monkeypatch.delenv(name, raising=False)
    write_profile(tmp_path, "default", *KEYS)
    Storage("s3://bucket/prefix")
    monkeypatch.setenv("AWS_PROFILE", "default")
    with pytest.raises(SettingsError, match=r"pip install 'darkroom\[aws\]'"):
        Storage("s3://bucket/prefix")
