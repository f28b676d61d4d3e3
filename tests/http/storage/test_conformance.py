"""What holds for every store alike, shown on real ones: docs/storage.md has the table of these cases."""

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from itertools import count
from textwrap import dedent
from urllib.parse import urlsplit

import boto3
import pytest
import requests

from core import settings
from core.errors import FetchAgain, NotFound, StorageUnavailable, Unusable, UserError
from core.storage_url import read_storage_url
from storage import store as module
from storage.ranges import WINDOW
from storage.store import Storage
from tests.http.storage.conformance import NOT_OVER_NETWORK, ONLY_S3, case
from tests.http.storage.conftest import Place
from tests.support.halting import LARGE, Halting, putting
from tests.support.meddling import failing, resetting, silent
from tests.support.servers import SOON, closed_port
from tests.support.stores import READER, find_azurite

KEYS = ("b/A.b_c-1/0.png", "b/a b/0", "b/ü🦊/0", "b/%2e%20%/0", "b/#?&=+/0", "b/...x/0", "b/~/0", "b/!$'()*,:;@^|<>/0")
NO_KEYS = ("../up", "a/../../up", "/up", "a//b", "a/./b", "a\nb", "", "a\0b", "a\\b", "a/", "x/" * 500 + "x")


def read(storage: Storage, key: str) -> bytes:
    with storage.get(key, max_bytes=2**30) as file:
        return file.read()


def read_range(storage: Storage, key: str, start: int = 0, end: int | None = None) -> bytes:
    with storage.open_range(key, start, end) as found:
        return b"".join(found.pieces)


def test_azurite_is_here() -> None:
    """Where it is not, no case was run against Azure, and this line says so once."""
    if find_azurite() is None:
        pytest.skip("there is no Azurite here, so nothing was run against Azure; `make stores` fetches it with npm")


@case("what is put is there, from the file's beginning, under its key and under its whole URL")
def test_put_and_get(place: Place) -> None:
    file = io.BytesIO(b"abc")
    file.seek(2)

    place.storage.put("batch/id/0.png", file, "image/png")

    assert read(place.storage, "batch/id/0.png") == b"abc"
    assert read(place.storage, f"{place.url}/batch/id/0.png") == b"abc"
    with pytest.raises(UserError, match="has 3 bytes; at most 2"), place.storage.get("batch/id/0.png", max_bytes=2):
        pass


@case("the same key again: the new object, larger or smaller, or empty")
def test_put_again(place: Place) -> None:
    for content in (b"a" * 1000, b"b", b"c" * LARGE, b""):
        place.storage.put("k", io.BytesIO(content))
        assert read(place.storage, "k") == read_range(place.storage, "k") == content
    assert list(place.storage.list_older("", -60)) == ["k"]


@case("what is not there is said to be so, by every way of reading it")
def test_nothing_there(place: Place) -> None:
    place.storage.put("a/b", io.BytesIO(b"x"))
    for key in ("a/c", "a/b/c", "b", "../a/b", ""):
        with pytest.raises(NotFound):
            read(place.storage, key)
        with pytest.raises(NotFound):
            read_range(place.storage, key)


@case("deleted, and deleted again")
def test_delete(place: Place) -> None:
    for key in ("a/b", "a/c"):
        place.storage.put(key, io.BytesIO(b"x"))

    for _ in range(2):
        place.storage.delete("a/b")

    assert list(place.storage.list_older("a", -60)) == ["a/c"]


@case("while an object is still coming, its key shows what was there before; then, at once, all of it")
@pytest.mark.parametrize("before", [None, b"old"])
def test_half_a_put_shows_nothing(before: bytes | None, place: Place) -> None:
    if before is not None:
        place.storage.put("b/k", io.BytesIO(before))
    file = Halting(b"n" * LARGE)
    thread, errors = putting(place.storage, "b/k", file)
    assert file.halted.wait(60)

    shown = read(place.storage, "b/k") if list(place.storage.list_older("b", -60)) else None
    file.should_continue.set()
    thread.join()

    assert shown == before
    assert errors == []
    assert read(place.storage, "b/k") == b"n" * LARGE


@case("a put that breaks off changes nothing, and may be tried again")
def test_broken_put_changes_nothing(place: Place) -> None:
    place.storage.put("k", io.BytesIO(b"old"))
    file = Halting(b"n" * LARGE)
    file.breaks = True
    file.should_continue.set()

    thread, errors = putting(place.storage, "k", file)
    thread.join()

    assert len(errors) == 1
    assert read(place.storage, "k") == b"old"
    place.storage.put("k", io.BytesIO(b"whole"))
    assert read(place.storage, "k") == b"whole"


@case("a put that breaks off leaves no parts that would be paid for", **{**ONLY_S3, "az": "gone in a week"})
def test_broken_put_leaves_no_parts(place: Place) -> None:
    client = boto3.client("s3")

    def list_uploads() -> list[object]:
        return client.list_multipart_uploads(Bucket=place.bucket, Prefix=urlsplit(place.url).path[1:]).get(
            "Uploads", []
        )

    file = Halting(b"n" * LARGE)
    file.breaks = True
    thread, errors = putting(place.storage, "k", file)
    assert file.halted.wait(60)
    begun = len(list_uploads())
    file.should_continue.set()
    thread.join()

    assert (begun, len(errors), list_uploads()) == (1, 1, [])
    client.close()


@case("a writer that is killed leaves no part of an object", memory="–")
def test_killed_writer(place: Place) -> None:
    place.storage.put("batch/0.png", io.BytesIO(b"old"))
    script = f"""
        from tests.support.halting import LARGE, Halting, Storage, putting
        file = Halting(b"n" * LARGE)
        putting(Storage({place.url!r}), "batch/0.png", file)
        print(file.halted.wait(60), flush=True)
        file.should_continue.wait()
    """
    command = [sys.executable, "-c", dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = writer.stdout.readline()
        writer.kill()

    assert said == "True\n"
    assert read(place.storage, "batch/0.png") == b"old"
    assert list(place.storage.list_older("batch", -60)) == ["batch/0.png"]


@case("two writers on one key: readers see all of one or all of the other")
def test_reader_never_sees_a_part(place: Place) -> None:
    contents = {b"a" * 3_000_000, b"b" * 2_000_000}
    place.storage.put("k", io.BytesIO(next(iter(contents))))
    stop, seen, strange = threading.Event(), set(), []

    def read_often() -> None:
        while not stop.is_set():
            found = read(place.storage, "k")
            seen.add(found[:1])
            if found not in contents:
                strange.append(len(found))

    def write(content: bytes) -> None:
        deadline = time.monotonic() + 60
        for number in count():
            if number >= 8 and (len(seen) == 2 or time.monotonic() > deadline):
                return
            place.storage.put("k", io.BytesIO(content))

    with ThreadPoolExecutor(3) as threads:
        looking = threads.submit(read_often)
        for writing in [threads.submit(write, content) for content in contents]:
            writing.result()
        stop.set()
        looking.result()

    assert strange == []
    assert seen == {b"a", b"b"}


@case("spaces, accents, emoji, percent signs and punctuation in a key: one key, as it is written")
def test_special_characters(place: Place) -> None:
    for key in KEYS:
        place.storage.put(key, io.BytesIO(key.encode()))

    assert sorted(place.storage.list_older("b", -60)) == sorted(KEYS)
    assert [read(place.storage, key).decode() for key in KEYS] == list(KEYS)
    assert [read_range(place.storage, key).decode() for key in KEYS] == list(KEYS)
    for key in KEYS:
        place.storage.delete(key)
    assert list(place.storage.list_older("b", -60)) == []


@case("a key that would lead elsewhere, or that some store cannot hold, is refused")
def test_refused_keys(place: Place) -> None:
    for key in NO_KEYS:
        with pytest.raises(Unusable) as caught:
            place.storage.put(key, io.BytesIO(b"x"))
        assert (caught.value.type, len(caught.value.message) <= 500) == ("storage_key_refused", True)
    assert list(place.storage.list_older("", -60)) == []


@case("a prefix in STORAGE_URL, with its slash and without", memory="–")
def test_prefix(place: Place) -> None:
    for name, url in {"with": f"{place.url}/deep/", "without": f"{place.url}/deep"}.items():
        Storage(read_storage_url(url)).put(f"a/{name}", io.BytesIO(b"x"))
    Storage(f"{place.url}/deeper").put("a/other", io.BytesIO(b"x"))

    inside = Storage(f"{place.url}/deep")
    assert sorted(inside.list_older("a", -60)) == ["a/with", "a/without"]
    assert read(place.storage, "deep/a/with") == b"x"


@case("sixteen writers at once")
def test_many_at_once(place: Place) -> None:
    def put(number: int) -> None:
        place.storage.put(f"b/{number}/0.png", io.BytesIO(bytes([number]) * 100_000))

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(put, range(16)))

    assert [read(place.storage, f"b/{number}/0.png")[-1] for number in range(16)] == list(range(16))


@case("more than 8 MB: whole, with type and metadata; in parts, where it goes over the network")
def test_large_object(place: Place) -> None:
    content = os.urandom(LARGE)

    place.storage.put("k", io.BytesIO(content), "image/png", {"batch": "b"})

    assert read(place.storage, "k") == read_range(place.storage, "k") == content
    with place.storage.open_range("k") as found:
        kept = (found.content_type, dict(found.metadata))
    assert kept == ((None, {}) if place.scheme == "file" else ("image/png", {"batch": "b"}))


@case("content type, batch, edit and sha256 are kept with the object, whatever is in them", file="nowhere to keep them")
def test_metadata(place: Place) -> None:
    metadata = {"batch": "0190", "edit": "ü 100% 🦊\n", "sha256": "00ff"}

    place.storage.put("k", io.BytesIO(b"x"), "image/webp", metadata)

    with place.storage.open_range("k") as found:
        assert (found.content_type, found.metadata) == ("image/webp", metadata)


@case("a part of an object, in bounded memory")
def test_ranges(place: Place) -> None:
    content = os.urandom(WINDOW * 2 + 100)
    place.storage.put("k", io.BytesIO(content))

    for start, end in ((0, 1), (10, 20), (WINDOW - 1, WINDOW + 1), (5, None), (len(content) - 1, 10**9)):
        with place.storage.open_range("k", start, end) as found:
            pieces = list(found.pieces)
        assert b"".join(pieces) == content[start:end]
        assert (found.size, found.start, found.end) == (len(content), start, min(end or 10**9, len(content)))
        assert max(map(len, pieces)) <= WINDOW
    with pytest.raises(UserError, match="does not reach to byte"):
        read_range(place.storage, "k", len(content))


@case("an object that is replaced while it is read gives no mixture of the two")
def test_replaced_while_read(place: Place) -> None:
    place.storage.put("k", io.BytesIO(b"a" * (WINDOW + 10)))

    with place.storage.open_range("k") as found:
        came = [next(found.pieces)]
        place.storage.put("k", io.BytesIO(b"b" * (WINDOW + 10)))
        with suppress(FetchAgain):  # a folder gives the old one to its end
            came.extend(found.pieces)

    assert set(b"".join(came)) == {ord("a")}


@case("more objects than one answer lists (1000)")
def test_long_listing(place: Place) -> None:
    keys = [f"many/{number}" for number in range(1010)]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda key: place.storage.put(key, io.BytesIO(b"x")), keys))

    assert sorted(place.storage.list_older("many", -60)) == sorted(keys)
    assert list(place.storage.list_older("many", 60)) == []


@case(
    "a link opens this object to anybody, over plain HTTP, and to nobody once it has expired",
    **NOT_OVER_NETWORK,
    gs="not opened",
)
def test_links(place: Place) -> None:
    for key in ("b/0.png", "b/1.png"):
        place.storage.put(key, io.BytesIO(b"abcdef"), "image/png")

    link, short = place.storage.sign("b/0.png", 60), place.storage.sign("b/0.png", 1)
    assert link
    assert short
    session = requests.Session()
    whole = session.get(link, timeout=60)
    part = session.get(link, headers={"Range": "bytes=2-3"}, timeout=60)
    assert (whole.status_code, whole.content, whole.headers["Content-Type"]) == (200, b"abcdef", "image/png")
    assert (part.status_code, part.content) == (206, b"cd")
    assert session.get(link.replace("b/0.png", "b/1.png"), timeout=60).status_code == 403
    assert session.get(link.partition("?")[0], timeout=60).status_code in (403, 404)
    time.sleep(2.1)
    assert session.get(short, timeout=60).status_code == 403


@case("a link to a key with special characters", **NOT_OVER_NETWORK, gs="made", az="no link")
def test_links_to_odd_keys(place: Place) -> None:
    for key in KEYS:
        place.storage.put(key, io.BytesIO(key.encode()))
        link = place.storage.sign(key, 60)
        assert link
        assert requests.Session().get(link, timeout=60).content.decode() == key


@pytest.mark.parametrize("place", ["file", "memory"], indirect=True)
def test_no_links(place: Place) -> None:
    """A folder has none to give."""
    place.storage.put("k", io.BytesIO(b"x"))
    assert place.storage.sign("k", 60) is None


EVERY_CALL: tuple[Callable[[Storage], object], ...] = (
    lambda storage: storage.put("k", io.BytesIO(b"x")),
    lambda storage: storage.put("k", io.BytesIO(bytes(LARGE))),
    lambda storage: read(storage, "k"),
    lambda storage: read_range(storage, "k"),
    lambda storage: list(storage.list_older("k", -60)),
    lambda storage: storage.delete("k"),
)


def refusals(storage: Storage, *calls: Callable[[Storage], object]) -> list[str]:
    """The reasons for which everything is refused; each would pause a lane, and none names an object."""
    found = []
    for call in calls or EVERY_CALL:
        with pytest.raises(StorageUnavailable) as caught:
            call(storage)
        assert len(caught.value.message) <= 500
        assert "\n" not in caught.value.message
        found.append(caught.value.type)
    return found


@case("wrong credentials: everything waits, with that reason", **NOT_OVER_NETWORK)
def test_wrong_credentials(place: Place) -> None:
    place.storage.put("k", io.BytesIO(b"x"))
    assert set(refusals(place.with_wrong_secret())) == {"credentials_refused"}


@case("a missing bucket: everything waits, and no object is said to be gone", **NOT_OVER_NETWORK)
def test_missing_bucket(place: Place) -> None:
    storage = Storage(place.url.replace(place.bucket, f"{place.bucket}-missing", 1))
    assert set(refusals(storage, *EVERY_CALL[:-1])) == {"bucket_missing"}


@case("a server that is not there: everything waits", **NOT_OVER_NETWORK)
def test_server_that_is_not_there(place: Place) -> None:
    port = urlsplit(place.server.url).port
    endpoint = place.server.url.replace(f":{port}", f":{closed_port()}")
    place.patch.setattr(module, "RETRIES", {**module.RETRIES, "max_retries": 0})
    assert set(refusals(place.at(endpoint))) == {"unreachable"}


@case("a server that fails or cuts the line now and then: asked again, nobody notices", **NOT_OVER_NETWORK)
def test_server_that_fails_now_and_then(place: Place) -> None:
    faults = [failing(500), None, failing(503), None, resetting, None, resetting, None]
    with place.meddled(faults) as (storage, wire):
        storage.put("a", io.BytesIO(b"x"))
        storage.put("b", io.BytesIO(b"y"))
        assert read(storage, "a") == b"x"
        assert read_range(storage, "b") == b"y"

    assert len(wire.received) == len(faults)


@case("a server that fails for good: everything waits", **NOT_OVER_NETWORK)
def test_server_that_fails(place: Place) -> None:
    place.patch.setattr(module, "RETRIES", {**module.RETRIES, "max_retries": 0})
    for fault in (failing(500), failing(503), resetting):
        with place.meddled([fault] * 10) as (storage, _):
            assert set(refusals(storage, EVERY_CALL[0], EVERY_CALL[2])) == {"unreachable"}


@case("a server that does not answer is given up in time, and everything waits", **NOT_OVER_NETWORK)
def test_silent_server(place: Place) -> None:
    place.patch.setattr(module, "RETRIES", {**module.RETRIES, "max_retries": 0})
    place.patch.setattr(settings, "REQUEST_TIMEOUT", timedelta(seconds=0.5))
    began = time.monotonic()
    with place.meddled([silent] * 10) as (storage, _):
        assert set(refusals(storage, EVERY_CALL[0], EVERY_CALL[3])) == {"unreachable"}
    assert time.monotonic() - began < SOON


@case("credentials that may read and not write: said so", **ONLY_S3)
def test_credentials_that_may_only_read(place: Place) -> None:
    assert place.server
    place.storage.put("k", io.BytesIO(b"x"))
    for name, value in zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), READER, strict=True):
        place.patch.setenv(name, value)

    reader = Storage(place.url)

    assert set(refusals(reader, EVERY_CALL[0], EVERY_CALL[1])) == {"credentials_refused"}
    assert read(reader, "k") == b"x"
