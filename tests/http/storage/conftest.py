"""The stores of the conformance suite, each with a prefix of its own for every test."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from storage.store import Storage
from tests.http.storage.conformance import GIVEN
from tests.support.databases import NUMBERS
from tests.support.google import running_google, write_account
from tests.support.meddling import Fault, meddling
from tests.support.servers import Wire
from tests.support.stores import BUCKET, ObjectStore, running_azure

ENDPOINTS = {"s3": "AWS_ENDPOINT_URL", "az": "AZURE_STORAGE_ENDPOINT"}
SERVERS = {"s3": "s3_server", "gs": "google_server", "az": "azure_server"}
SECRETS = {"s3": "AWS_SECRET_ACCESS_KEY", "az": "AZURE_STORAGE_ACCOUNT_KEY"}
WRONG_SECRET = "d3Jvbmc="


@dataclass
class Place:
    """A store as a STORAGE_URL names it, and the environment that leads to it."""

    url: str
    patch: pytest.MonkeyPatch
    started: ObjectStore | None = None
    opened: Storage | None = None

    @property
    def scheme(self) -> str:
        return urlsplit(self.url).scheme

    @property
    def bucket(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def server(self) -> ObjectStore:
        """The process that is the store, where it is one of ours."""
        if self.started is None:
            pytest.skip("the store that was given is led to by nobody but its owner")
        return self.started

    @property
    def storage(self) -> Storage:
        """The same store every time: what is in memory is gone with it."""
        self.opened = self.opened or Storage(self.url)
        return self.opened

    def at(self, endpoint: str) -> Storage:
        """The same store, said to be at another address."""
        if self.scheme == "gs":
            account = write_account(self.server.folder / "other.json", gcs_base_url=endpoint)
            self.patch.setenv("GOOGLE_SERVICE_ACCOUNT", account)
        else:
            self.patch.setenv(ENDPOINTS[self.scheme], endpoint)
        return Storage(self.url)

    @contextmanager
    def meddled(self, faults: Sequence[Fault | None]) -> Iterator[tuple[Storage, Wire]]:
        """The same store, whose first requests meet these faults."""
        with meddling(self.server.url, faults) as wire:
            yield self.at(f"{wire.url}{urlsplit(self.server.url).path}"), wire

    def with_wrong_secret(self) -> Storage:
        """The same store, spoken to with a secret that is none."""
        if self.scheme == "gs":
            file = self.server.folder / "wrong.json"
            account = write_account(file, gcs_base_url=self.server.url, client_email="stranger@project.example")
            self.patch.setenv("GOOGLE_SERVICE_ACCOUNT", account)
        else:
            assert self.server
            self.patch.setenv(SECRETS[self.scheme], WRONG_SECRET)
        return Storage(self.url)


@pytest.fixture(scope="session")
def azure_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A running Azurite."""
    with running_azure(tmp_path_factory.mktemp("azure")) as store:
        yield store


@pytest.fixture(scope="session")
def google_server(s3_server: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """The same S3, spoken to as Google's."""
    with running_google(s3_server, tmp_path_factory.mktemp("google")) as store:
        yield store


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A store with nothing in it yet."""
    place = _find(request, tmp_path, monkeypatch)
    yield place
    if request.param == "given":  # it is somebody's
        for key in Storage(place.url).list_older("", -60):
            Storage(place.url).delete(key)


def _find(request: pytest.FixtureRequest, folder: Path, patch: pytest.MonkeyPatch) -> Place:
    if request.param == "file":
        return Place((folder / "store").as_uri(), patch)
    if request.param == "memory":
        return Place("memory://", patch)
    if request.param == "given":
        return Place(f"{GIVEN}/test-{uuid4()}", patch)
    server = request.getfixturevalue(SERVERS[request.param])
    for name, value in server.environment.items():
        patch.setenv(name, value)
    return Place(f"{request.param}://{BUCKET}/test-{next(NUMBERS)}", patch, server)
