"""Stored images by their links: the client's own only, whole or in part; and links that the store signs."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
import requests
from flask.testing import FlaskClient
from sqlalchemy import Engine

from intake import stored_images
from models.claims import claim_images
from models.record_reports import record_reports
from models.transitions import ImageFault, StoredImage, record_image_faults, record_stored
from storage.store import Storage
from tests.support.api_client import ALICE, BOB, intake_app, intake_served, problem
from tests.support.factories import POLICY, accept, answer, claim, make_batch, success
from tests.support.servers import closed_port
from tests.support.stored_images import png, stored


@pytest.fixture
def alice(database_url: str, tmp_path: Path) -> Iterator[FlaskClient]:
    keys = f"alice:{ALICE}, bob:{BOB}"
    with intake_app(database_url, storage_url=tmp_path.as_uri(), darkroom_api_keys=keys) as app:
        client = app.test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {ALICE}"
        yield client


def images_of(client: FlaskClient, batch: UUID) -> list[dict]:
    found = client.get(f"/v1/batches/{batch}/results").data.splitlines()
    return [image for line in found for image in json.loads(line)["images"]]


def test_link_leads_to_the_image(engine: Engine, alice: FlaskClient, tmp_path: Path) -> None:
    """As the results have it; type, tag and length are the image's, and it is asked for once."""
    batch, _ = stored(engine, tmp_path, 2, client="alice")
    links = [image["url"] for image in images_of(alice, batch)]
    assert [link.startswith(f"http://localhost/v1/batches/{batch}/images/") for link in links] == [True, True]
    for number, link in enumerate(links):
        answer = alice.get(link)
        assert (answer.status_code, answer.data, answer.mimetype) == (200, png(number), "image/png")
        assert alice.get(link, headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
        head = alice.head(link)
        assert (head.status_code, head.content_length, head.data) == (200, len(png(number)), b"")


def test_nobody_elses(engine: Engine, alice: FlaskClient, tmp_path: Path) -> None:
    """404 for another client, for another batch's image, and for none; 401 without a key."""
    batch, _ = stored(engine, tmp_path, 1, client="alice")
    other, _ = stored(engine, tmp_path, 1, client="alice")
    (image,) = images_of(alice, batch)
    assert alice.get(image["url"], headers={"Authorization": f"Bearer {BOB}"}).status_code == 404
    assert alice.get(image["url"], headers={"Authorization": ""}).status_code == 401
    assert alice.get(f"/v1/batches/{other}/images/{image['id']}").status_code == 404
    assert alice.get(f"/v1/batches/{batch}/images/{2**80}").status_code == 404
    assert alice.get(f"/v1/batches/{batch}/images/x").status_code == 404


@pytest.mark.parametrize(
    ("asked", "status", "span"),
    [
        ("bytes=0-9", 206, (0, 10)),
        ("bytes=10-", 206, (10, None)),
        ("bytes=-7", 206, (-7, None)),
        ("bytes=0-99999", 206, (0, None)),
        ("bytes=99999-", 416, None),
        ("bytes=0-1,3-4", 200, (0, None)),
        ("lines=0-1", 200, (0, None)),
        ("bytes=5-2", 200, (0, None)),
        ("nonsense", 200, (0, None)),
    ],
)
def test_ranges(
    engine: Engine, alice: FlaskClient, tmp_path: Path, asked: str, status: int, span: tuple[int, int | None] | None
) -> None:
    """One range as asked, what lies outside refused, everything else the whole."""
    batch, _ = stored(engine, tmp_path, 1, client="alice")
    (image,) = images_of(alice, batch)
    answer = alice.get(image["url"], headers={"Range": asked})
    assert answer.status_code == status
    if span is None:
        assert answer.headers["Content-Range"] == f"bytes */{image['bytes']}"
    else:
        assert answer.data == png(0)[slice(*span)]
    if status == 206:
        start = png(0).index(answer.data)
        assert answer.headers["Content-Range"] == f"bytes {start}-{start + len(answer.data) - 1}/{len(png(0))}"


def test_range_of_what_is_still_the_same(engine: Engine, alice: FlaskClient, tmp_path: Path) -> None:
    """`If-Range` with the tag of something else brings the whole."""
    batch, _ = stored(engine, tmp_path, 1, client="alice")
    (image,) = images_of(alice, batch)
    tags = (f'"{image["sha256"]}"', '"other"', "Wed, 21 Oct 2015 07:28:00 GMT")
    found = [alice.get(image["url"], headers={"Range": "bytes=0-3", "If-Range": tag}).status_code for tag in tags]
    assert found == [206, 200, 200]


def test_what_the_store_does_not_have(engine: Engine, alice: FlaskClient, tmp_path: Path) -> None:
    """Missing, of another size, deleted in time: each is said, and nothing spoilt is sent as the image."""
    batch, paths = stored(engine, tmp_path, 3, client="alice")
    links = [image["url"] for image in images_of(alice, batch)]
    paths[0].unlink()
    paths[1].write_bytes(png(1) + b"x")
    assert [alice.get(link).status_code for link in links] == [404, 404, 200]
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE images SET deleted_at = now()")
    assert problem(alice.get(links[2]), 410)["detail"] == "The image was deleted: its time was over."
    assert [image["url"] for image in images_of(alice, batch)] == [None] * 3


def test_store_that_is_away(engine: Engine, alice: FlaskClient, tmp_path: Path) -> None:
    """503, to come again; and no more readers than there are places, each given back."""
    batch, _ = stored(engine, tmp_path, 1, client="alice")
    (image,) = images_of(alice, batch)
    assert alice.get(image["url"]).status_code == 200
    moved = tmp_path.rename(tmp_path.with_name("away"))
    assert alice.get(image["url"]).status_code == 503
    moved.rename(tmp_path)
    answers = [alice.get(image["url"], buffered=False) for _ in range(stored_images.READERS)]
    answer = alice.get(image["url"])
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    for each in answers:
        each.close()
    assert alice.get(image["url"]).status_code == 200


def test_as_it_is_served(engine: Engine, database_url: str, tmp_path: Path) -> None:
    """Through the real server: whole and in part, each with its length."""
    batch, _ = stored(engine, tmp_path, 1, client="alice")
    port = closed_port()
    with intake_served(database_url, port, STORAGE_URL=tmp_path.as_uri()), requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {ALICE}"
        line = session.get(f"http://127.0.0.1:{port}/v1/batches/{batch}/results", timeout=60).json()
        url = line["images"][0]["url"]
        assert url.startswith(f"http://127.0.0.1:{port}/v1/batches/{batch}/images/")
        whole = session.get(url, timeout=60)
        assert (whole.content, whole.headers["Content-Length"]) == (png(0), str(len(png(0))))
        part = session.get(url, headers={"Range": "bytes=3-6"}, timeout=60)
        assert (part.status_code, part.content, part.headers["Content-Length"]) == (206, png(0)[3:7], "4")
        assert session.head(url, timeout=60).headers["Content-Length"] == str(len(png(0)))


def test_signed_links(s3: str, engine: Engine, database_url: str, tmp_path: Path) -> None:
    """From a real S3 anybody reads them without a key; the API's own address works too; a new request, a new link."""
    batch, paths = stored(engine, tmp_path / "seen", 2)
    store = Storage(s3)
    for path in paths:
        with path.open("rb") as file:
            store.put(str(path.relative_to(tmp_path / "seen")), file, "image/png")
    with intake_app(database_url, storage_url=s3, link_lifetime=60) as app:
        client = app.test_client()
        images = images_of(client, batch)
        for number, image in enumerate(images):
            answer = requests.get(image["url"], timeout=60)
            assert (answer.content, answer.headers["Content-Type"]) == (png(number), "image/png")
            assert requests.get(image["url"].partition("?")[0], timeout=60).status_code == 403
            part = client.get(f"/v1/batches/{batch}/images/{image['id']}", headers={"Range": "bytes=1-3"})
            assert (part.status_code, part.data) == (206, png(number)[1:4])


def test_partial_edit_lists_what_came(engine: Engine, alice: FlaskClient, tmp_path: Path) -> None:
    """One of its two images could not be had: the edit failed, and the other one is there to be fetched."""
    with engine.begin() as connection:
        batch = make_batch(connection, client="alice")
        (submission,) = claim(connection)
        accept(connection, [submission])
        record_reports(connection, [answer(submission, success(2))], POLICY)
        first, second = claim_images(connection, limit=2, lease=60)
        content, key = png(7), f"{first.name}.png"
        path = tmp_path / key
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        record_stored(connection, [StoredImage(first.id, key, digest, len(content), "image/png", 4, 3)])
        record_image_faults(connection, [ImageFault(second.id, "not_an_image", "it was a page", None)])
    (line,) = alice.get(f"/v1/batches/{batch}/results").data.splitlines()
    edit = json.loads(line)
    assert (edit["state"], [error["type"] for error in edit["errors"]]) == ("failed", ["not_an_image"])
    (image,) = edit["images"]
    assert alice.get(image["url"]).data == content
