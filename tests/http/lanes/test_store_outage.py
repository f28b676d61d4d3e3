"""A real S3 that goes away, and one that refuses us: no image is lost, none is stored wrong, and it ends by itself."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Engine

from storage.store import Storage
from tests.http.lanes.test_download_pause import download, reasons
from tests.support.lane_runner import Emulator, LaneRunner, all_are, lane_runner, make_edits, stand
from tests.support.receiving import rows
from tests.support.stores import BUCKET, ObjectStore, admin_client

pytestmark = pytest.mark.usefixtures("balanced")
WHERE = [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]
ALL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": WHERE}]}
IMAGES = """
    SELECT s.request_id, i.index, i.sha256, i.storage_key, e.batch_id, e.position
    FROM images i JOIN submissions s ON s.id = i.submission_id JOIN edits e ON e.id = s.edit_id
"""


@contextmanager
def ready(engine: Engine, emulator: Emulator, tmp_path: Path, url: str, edits: int) -> Iterator[LaneRunner]:
    """Results that wait to be stored in S3."""
    make_edits(engine, [f"edit {n}" for n in range(edits)])
    with lane_runner(engine, emulator, tmp_path, storage_url=url, download_threads=4) as worker:
        worker.work_until(all_are(engine, ready=edits), lanes=("submit",))
        yield worker


def assert_stored_in(url: str, engine: Engine, emulator: Emulator) -> None:
    """Every image is, byte for byte, the one that was made for its request, and says whose it is."""
    made = {row["request_id"]: row["sha256"] for row in emulator.rows}
    storage = Storage(url)
    for request_id, index, digest, key, batch, position in rows(engine, IMAGES):
        with storage.open_range(key) as found:
            content = b"".join(found.pieces)
        assert hashlib.sha256(content).hexdigest() == digest == made[request_id][index]
        assert found.content_type == "image/png"
        assert found.metadata == {"batch": str(batch), "edit": str(position), "sha256": digest}


def test_store_that_is_gone_for_a_while(
    engine: Engine, emulator: Emulator, tmp_path: Path, s3: str, s3_server: ObjectStore
) -> None:
    """It dies while images are being put there: they wait with all their tries, and all are stored once it is back."""
    with ready(engine, emulator, tmp_path, s3, 30) as worker:
        download(worker, lambda: stand(engine).get("stored", 0) >= 5)
        s3_server.stop()
        try:
            download(worker, lambda: rows(engine, "SELECT 1 FROM lane_pauses WHERE probes > 1"))
            assert reasons(engine) == [("download", "storage", "unreachable")]
            assert "AWS_ENDPOINT_URL" in rows(engine, "SELECT message FROM lane_pauses")[0][0]
            assert set(stand(engine)) <= {"ready", "stored"}
            assert rows(engine, "SELECT count(*) FROM images WHERE errors <> '[]'") == [(0,)]
        finally:
            s3_server.start()
        download(worker, all_are(engine, stored=30))

    assert reasons(engine) == []
    assert rows(engine, "SELECT DISTINCT attempt, errors FROM images") == [(1, [])]
    assert [row["charges"] for row in emulator.rows] == [1] * 30
    assert_stored_in(s3, engine, emulator)


def test_credentials_that_are_refused_for_a_while(
    engine: Engine, emulator: Emulator, tmp_path: Path, s3: str, s3_server: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason stands in SQL, with what to set; once they are good again the same workers go on."""
    users = admin_client("iam", s3_server)
    users.create_user(UserName="lane")
    users.put_user_policy(UserName="lane", PolicyName="all", PolicyDocument=json.dumps(ALL))
    made = users.create_access_key(UserName="lane")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", made["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", made["SecretAccessKey"])
    change_key = partial(users.update_access_key, UserName="lane", AccessKeyId=made["AccessKeyId"])
    with ready(engine, emulator, tmp_path, s3, 6) as worker:
        change_key(Status="Inactive")
        download(worker, lambda: rows(engine, "SELECT 1 FROM lane_pauses WHERE probes > 1"))
        assert_waiting(engine, "credentials_refused", "AWS_ACCESS_KEY_ID", images=6)
        change_key(Status="Active")
        download(worker, all_are(engine, stored=6))

    assert reasons(engine) == []
    assert_stored_in(s3, engine, emulator)


def test_bucket_that_is_made_later(
    engine: Engine, emulator: Emulator, tmp_path: Path, s3: str, s3_server: ObjectStore
) -> None:
    """Nobody has to tell the workers."""
    url = s3.replace(BUCKET, "later")
    with ready(engine, emulator, tmp_path, url, 3) as worker:
        download(worker, lambda: reasons(engine))
        assert_waiting(engine, "bucket_missing", "STORAGE_URL", images=3)
        admin_client("s3", s3_server).create_bucket(Bucket="later")
        download(worker, all_are(engine, stored=3))

    assert_stored_in(url, engine, emulator)


def assert_waiting(engine: Engine, reason: str, named: str, *, images: int) -> None:
    """With all their tries; the lane says why, and what to set."""
    assert reasons(engine) == [("download", "storage", reason)]
    assert named in rows(engine, "SELECT message FROM lane_pauses")[0][0]
    assert stand(engine) == {"ready": images}
    assert rows(engine, "SELECT DISTINCT attempt, errors FROM images") == [(0, [])]
