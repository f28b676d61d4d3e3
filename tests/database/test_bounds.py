"""What a claim takes at the most, in bytes and of one host; and a claim that is given back as it was."""

import base64
import json
import os
from io import BytesIO

import pytest
from sqlalchemy import Connection, Engine

from http_client.host_backoff import HostBackoff
from intake.batches import BatchHeader, create
from intake.manifest import read_jsonl
from models.claims import claim_edits, claim_images, fit_edits
from models.pauses import MayClaim, list_pauses, may_claim, pause_lane, probe_again
from models.record_reports import record_reports
from models.transitions import StoredImage, release_images
from tests.support.factories import POLICY, PRICE, answer, claim, fall_due, make_batch, make_submitted, success
from worker import download_claims
from worker.beat_scheduler import lanes_due
from worker.lanes.download import record_results
from worker.settings import WorkerSettings

KILO = 1000


def inputs(connection: Connection, *contents: bytes) -> list[int]:
    """Edits that hold these inputs, as ids in their order."""
    uris = [f"data:image/png;base64,{base64.b64encode(content).decode()}" for content in contents]
    lines = [json.dumps({"prompt": "x", "image_urls": [uri]}).encode() for uri in uris]
    create(connection, BatchHeader(), read_jsonl(BytesIO(b"\n".join(lines))))
    return claim_edits(connection, limit=100, window=100, probe_after=60, price=PRICE)


@pytest.mark.parametrize("content", [os.urandom(900 * KILO), bytes(900 * KILO)], ids=["noise", "compressible"])
def test_edits_fit(content: bytes, engine: Engine) -> None:
    """As many as fit, measured as they are sent, not as they are stored; one always."""
    with engine.begin() as connection:
        ids = inputs(connection, *[content] * 6)
        assert fit_edits(connection, ids, max_bytes=1300 * KILO) == ids[:2]
        assert fit_edits(connection, ids, max_bytes=1) == ids[:1]
        assert fit_edits(connection, ids, max_bytes=10**9) == ids


def test_small_edits_all_fit(engine: Engine) -> None:
    """Ordinary edits are as many as before."""
    with engine.begin() as connection:
        make_batch(connection, 100)
        ids = claim_edits(connection, limit=100, window=100, probe_after=60, price=PRICE)
        assert fit_edits(connection, ids, max_bytes=2**20) == ids


def waiting(connection: Connection, *urls: str) -> None:
    """An image behind each of these URLs, the first one to expire first."""
    (submission,) = make_submitted(connection)
    record_reports(connection, [answer(submission, success(len(urls)))], POLICY)
    for index, url in enumerate(urls):
        connection.exec_driver_sql(
            "UPDATE images SET url = %s, expires_at = now() + %s * interval '1 minute' WHERE index = %s",
            (url, index + 1, index),
        )


def test_images_within_bytes(engine: Engine) -> None:
    """With `sync_mode` the image stands in its URL: few at one time, the nearest expiry first, one always."""
    with engine.begin() as connection:
        uris = [f"data:image/png;base64,{n}" + "A" * 90 * KILO for n in range(4)]
        waiting(connection, *uris)
        assert [due.url for due in claim_images(connection, limit=10, lease=60, max_bytes=1)] == uris[:1]
        assert {due.url for due in claim_images(connection, limit=10, lease=60, max_bytes=100 * KILO)} == {*uris[1:3]}
        assert {due.url for due in claim_images(connection, limit=10, lease=60)} == {*uris[3:]}


def test_data_uris_of_the_lane_are_few_at_one_time(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many places are free: what is under way and what is claimed beside it stay within the bound together."""
    monkeypatch.setattr(download_claims, "URL_BYTES", 150 * KILO)
    settings = WorkerSettings(database_url=database_url, redis_url="redis://127.0.0.1:1/0")
    with engine.begin() as connection:
        waiting(connection, *[f"data:image/png;base64,{n}" + "A" * 90 * KILO for n in range(5)])
    claims = download_claims.ImageClaims(engine, HostBackoff(), settings)
    first = claims.claim(10)
    assert len(first) == 2
    assert claims.claim(10) == []
    claims.end(first[0])
    assert len(claims.claim(10)) == 1


def test_images_not_from_some_hosts(engine: Engine) -> None:
    """A host that has its places, or asked to wait, is passed over; everybody else's images are claimed."""
    with engine.begin() as connection:
        slow = [f"https://Slow.example:444/{n}?x=https://b.example/" for n in range(3)]
        waiting(connection, *slow, "https://b.example/1", "data:,x")
        others = claim_images(connection, limit=10, lease=60, not_from=["slow.example:444"])
        assert {due.host for due in others} == {"b.example", ""}
        assert {due.url for due in claim_images(connection, limit=10, lease=60)} == {*slow}


def test_image_that_is_put_back(engine: Engine) -> None:
    """It stands as before its claim, and is due again later; a claim that lapsed takes nothing from the next."""
    with engine.begin() as connection:
        waiting(connection, "https://a.example/1")
        (first,) = claim_images(connection, limit=1, lease=60)
        release_images(connection, [(first.id, first.attempt)], delay=5)
        state = "SELECT state, attempt, due_at > now() + interval '4 s', errors FROM images"
        assert connection.exec_driver_sql(state).one() == ("waiting", 0, True, [])
        fall_due(connection)
        (lapsed,) = claim_images(connection, limit=1, lease=60)
        fall_due(connection)
        (second,) = claim_images(connection, limit=1, lease=60)
        release_images(connection, [(lapsed.id, lapsed.attempt)], delay=5)
        assert connection.exec_driver_sql("SELECT attempt FROM images").scalar() == second.attempt == 2


def test_paused_lane_is_not_due(engine: Engine) -> None:
    """The tick starts no downloads while the store refuses, and starts them for each probe."""
    with engine.begin() as connection:
        waiting(connection, "https://a.example/1")
        assert lanes_due(connection)["download"]
        pause_lane(connection, "download", "storage", reason="disk_full", message="full", retry_after=60)
        assert not lanes_due(connection)["download"]
        assert may_claim(connection, "download", "storage", probe_after=10) is MayClaim.NONE
        probe_again(connection, "download", "storage")
        assert lanes_due(connection)["download"]
        assert may_claim(connection, "download", "storage", probe_after=10) is MayClaim.ONE
        assert may_claim(connection, "download", "storage", probe_after=10) is MayClaim.NONE
        assert may_claim(connection, "submit", "storage", probe_after=10) is MayClaim.ALL


def test_only_a_probe_ends_a_pause(engine: Engine) -> None:
    """A small image that was under way may fit on a full disk where the others do not."""
    with engine.begin() as connection:
        waiting(connection, "https://a.example/1", "https://a.example/2")
        small, probe = claim_images(connection, limit=2, lease=60)
        pause_lane(connection, "download", "storage", reason="disk_full", message="full", retry_after=60)
        for due, probes in ((small, set()), (probe, {probe.id})):
            assert [pause.reason for pause in list_pauses(connection)] == ["disk_full"]
            stored = StoredImage(due.id, due.name, "ab", 1, "image/png", 1, 1)
            record_results(connection, [stored], probes=probes, retry_after=60)
        assert list_pauses(connection) == []


def test_claim_follows_nothing_else(engine: Engine) -> None:
    """An image's pause stops no submitting."""
    with engine.begin() as connection:
        pause_lane(connection, "download", "storage", reason="disk_full", message="full", retry_after=60)
        make_batch(connection, 2)
        assert len(claim(connection)) == 2
