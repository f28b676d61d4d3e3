"""The prune lane at work: it audits, removes what the settings say and nothing else, and comes again by itself."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from core.errors import StorageUnavailable
from models import stored_images
from models.due_work import RETENTION_DUE
from models.states import Kept
from storage.store import Storage
from tests.support.finished_batches import age, finished
from tests.support.notify_receiver import worker_settings
from tests.support.receiving import deliveries, rows
from tests.support.servers import serve
from tests.support.stored_images import stored
from worker import deletion, retention
from worker.dependencies import Dependencies
from worker.lanes.prune import PruneLane

pytestmark = pytest.mark.usefixtures("balanced")

NOTHING_GOES = dict.fromkeys(
    ("keep_callback_bodies", "keep_batches", "keep_uploads", "keep_quarantine", "keep_moments"), "forever"
)


def run_lane(engine: Engine, tmp_path: Path, **settings: Any) -> int:
    """What the task does, with everything due; kept for ever is what is not said otherwise."""
    fall_due(engine, *Kept)
    dependencies = Dependencies()
    given = {**NOTHING_GOES, "storage_url": tmp_path.as_uri(), **settings}
    dependencies.engine, dependencies.settings = engine, worker_settings(engine, **given)
    return PruneLane(dependencies).take_turn(lambda: True)


def fall_due(engine: Engine, *kinds: Kept) -> None:
    """Let the time come to look at these."""
    query = """
        INSERT INTO retention (kind, due_at) SELECT unnest(%s::text[]), now() - interval '1 s'
        ON CONFLICT (kind) DO UPDATE SET due_at = excluded.due_at
    """
    with engine.begin() as connection:
        connection.exec_driver_sql(query, ([kind.value for kind in kinds],))


def due(engine: Engine) -> bool:
    return bool(rows(engine, RETENTION_DUE)[0][0])


def quarantined(tmp_path: Path, *ages: float) -> list[Path]:
    """Refused files, so many seconds old."""
    paths = []
    for number, seconds in enumerate(ages):
        path = tmp_path / "quarantine" / "batch" / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no image")
        os.utime(path, (time.time() - seconds,) * 2)
        paths.append(path)
    return paths


def test_a_whole_cycle(engine: Engine, tmp_path: Path) -> None:
    """A batch that finished is audited, and once its time has come it goes; its images in storage stay."""
    batch = finished(engine, 4)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE batches SET audited_at = NULL")
    image = tmp_path / str(batch) / "0" / "0.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"image")
    assert run_lane(engine, tmp_path) == 1
    assert rows(engine, "SELECT audited_at IS NULL, audit_difference FROM batches") == [(False, None)]
    assert not due(engine)

    assert run_lane(engine, tmp_path, keep_callback_bodies=3600) == 4
    assert deliveries(engine) == []
    assert rows(engine, "SELECT count(*) FROM edits") == [(4,)]
    assert run_lane(engine, tmp_path, keep_batches=3600) == 4
    assert rows(engine, "SELECT count(*) FROM edits") == [(0,)]
    assert run_lane(engine, tmp_path, keep_batches=3600) == 0
    assert image.read_bytes() == b"image"
    seen = (
        "SELECT kind, removed::int, removed_at IS NOT NULL, due_at > now() FROM retention WHERE removed > 0 ORDER BY 1"
    )
    assert rows(engine, seen) == [("batches", 4, True, True), ("callback_bodies", 4, True, True)]


def test_nothing_goes_unless_somebody_says_so(engine: Engine, tmp_path: Path) -> None:
    """With the settings as they are batches, images and refused files stay for ever."""
    finished(engine, 4)
    age(engine)
    (file,) = quarantined(tmp_path, 10**8)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE batches SET finished_at = finished_at - interval '9 years'")
    assert run_lane(engine, tmp_path, keep_batches=None, keep_quarantine=None) == 0
    assert rows(engine, "SELECT count(*) FROM edits") == [(4,)]
    assert file.exists()


def test_refused_files_go(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are old enough, all of them, and no other file."""
    monkeypatch.setattr(deletion, "FILES_AT_ONCE", 3)
    old, young = quarantined(tmp_path, *[7200] * 7, 10), tmp_path / "batch" / "0.png"
    young.parent.mkdir()
    young.write_bytes(b"image")
    os.utime(young, (0, 0))
    assert run_lane(engine, tmp_path, keep_quarantine=3600) == 7
    assert [path.exists() for path in old] == [False] * 7 + [True]
    assert young.exists()


def test_a_store_in_trouble_is_told(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason stands in `lane_pauses`, the rest is pruned all the same, and it ends by itself."""
    quarantined(tmp_path, 7200)
    finished(engine, 2)

    def refuse(*_: object) -> None:
        raise StorageUnavailable("unreachable", "the store does not answer")

    with monkeypatch.context() as trouble:
        trouble.setattr(Storage, "delete", refuse)
        assert run_lane(engine, tmp_path, keep_quarantine=3600, keep_batches=3600) == 2
    assert rows(engine, "SELECT lane, subject, reason FROM lane_pauses") == [("prune", "storage", "unreachable")]
    assert run_lane(engine, tmp_path, keep_quarantine=3600) == 1
    assert rows(engine, "SELECT lane FROM lane_pauses") == []


def test_a_store_that_cannot_be_opened_is_told(engine: Engine, tmp_path: Path) -> None:
    """It stops no other kind, either: what is to go of the database goes."""
    finished(engine, 2)
    (tmp_path / "a file").write_text("")
    elsewhere = (tmp_path / "a file").as_uri()
    assert run_lane(engine, tmp_path, keep_quarantine=3600, keep_batches=3600, storage_url=elsewhere) == 2
    assert rows(engine, "SELECT lane, subject, reason FROM lane_pauses") == [("prune", "storage", "cannot_be_opened")]


def test_it_waits_for_nobody(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody holds is left for a later turn, and the other kinds go on."""
    monkeypatch.setattr(retention, "LOCK_WAIT", "50ms")
    finished(engine, 2)
    with engine.begin() as connection:
        connection.exec_driver_sql("SELECT FROM edits FOR UPDATE")
        assert run_lane(engine, tmp_path, keep_batches=3600, keep_callback_bodies=3600) == 2
    assert run_lane(engine, tmp_path, keep_batches=3600) == 2


def test_a_stop_is_heard(engine: Engine, tmp_path: Path) -> None:
    """A worker that is seen to stop ends after the step it is at; the rest is due at once."""
    finished(engine, 20)
    dependencies = Dependencies()
    given = {**NOTHING_GOES, "storage_url": tmp_path.as_uri(), "keep_batches": 3600}
    dependencies.engine, dependencies.settings = engine, worker_settings(engine, **given)
    fall_due(engine, Kept.BATCHES)
    assert PruneLane(dependencies).take_turn(lambda: False) == 0
    assert rows(engine, "SELECT pruned_at IS NULL FROM batches") == [(False,)]
    assert due(engine)


@pytest.mark.parametrize("wrong", ["0", "-1", "soon", "inf"])
def test_a_wrong_duration(engine: Engine, wrong: str) -> None:
    """Not a time after which everything goes at once."""
    with pytest.raises(ValueError, match="keep_batches"):
        worker_settings(engine, keep_batches=wrong)


def test_images_whose_time_is_over(engine: Engine, tmp_path: Path) -> None:
    """Those of a batch are deleted, and its rows say so; those of one that wants them longer stay."""
    short, paths = stored(engine, tmp_path, 3)
    _, longer = stored(engine, tmp_path, 2, output_expires_after=36000)
    assert run_lane(engine, tmp_path, keep_images=3600) == 3
    assert [path.exists() for path in (*paths, *longer)] == [False] * 3 + [True] * 2
    seen = """
        SELECT b.images_deleted, b.bytes_deleted > 0, b.images_deleted_at >= b.finished_at,
               count(*) FILTER (WHERE i.deleted_at IS NOT NULL)
        FROM batches b JOIN edits e ON e.batch_id = b.id JOIN submissions s ON s.edit_id = e.id
        JOIN images i ON i.submission_id = s.id GROUP BY b.id ORDER BY 1
    """
    assert rows(engine, seen) == [(0, False, None, 0), (3, True, True, 3)]
    assert run_lane(engine, tmp_path, keep_images=3600) == 0
    assert rows(engine, "SELECT id FROM batches WHERE images_deleted_at IS NOT NULL") == [(short,)]


def test_a_batch_says_how_long_its_images_stay(engine: Engine, tmp_path: Path) -> None:
    """Whatever the setting; what is kept for ever otherwise is kept."""
    _, short = stored(engine, tmp_path, 2, output_expires_after=3600)
    _, other = stored(engine, tmp_path, 2)
    assert run_lane(engine, tmp_path) == 2
    assert [path.exists() for path in (*short, *other)] == [False, False, True, True]


def test_rows_stay_until_their_images_are_gone(engine: Engine, tmp_path: Path) -> None:
    """Without them nobody would find the images; a store that refuses holds the rows, too."""
    _, paths = stored(engine, tmp_path, 2)
    assert run_lane(engine, tmp_path, keep_images=10**6, keep_batches=3600) == 0
    assert run_lane(engine, tmp_path, keep_images=3600, keep_batches=3600) == 2
    assert run_lane(engine, tmp_path, keep_images=3600, keep_batches=3600) == 2
    assert rows(engine, "SELECT count(*) FROM edits") == [(0,)]
    assert not any(path.exists() for path in paths)


def test_killed_between_row_and_object(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No row says `stored` of what is gone; the next turn deletes what was left, and counts it once."""
    _, paths = stored(engine, tmp_path, 3)

    def die(_: Storage, key: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as trouble:
        trouble.setattr(Storage, "delete", die)
        with pytest.raises(KeyboardInterrupt):
            run_lane(engine, tmp_path, keep_images=3600)
    assert rows(engine, "SELECT count(*) FROM images WHERE deleted_at IS NULL") == [(0,)]
    assert all(path.exists() for path in paths)
    assert run_lane(engine, tmp_path, keep_images=3600) == 3
    assert not any(path.exists() for path in paths)
    assert rows(engine, "SELECT images_deleted FROM batches") == [(3,)]


def test_images_in_steps(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch larger than a step; and once more when it has finished again, its newer images alone."""
    monkeypatch.setattr(stored_images, "EDITS_AT_ONCE", 2)
    _, paths = stored(engine, tmp_path, 5)
    assert run_lane(engine, tmp_path, keep_images=3600) == 5
    assert not any(path.exists() for path in paths)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE batches SET finished_at = now(), audited_at = now()")
        connection.exec_driver_sql("UPDATE images SET deleted_at = NULL WHERE id = (SELECT max(id) FROM images)")
    assert run_lane(engine, tmp_path, keep_images=0.001) == 1
    assert rows(engine, "SELECT images_deleted FROM batches") == [(6,)]


def test_requests_at_the_provider(engine: Engine, tmp_path: Path) -> None:
    """Each request of the batch is deleted there, with the key, once; what it does not know any more is gone too."""
    stored(engine, tmp_path, 3)
    ids = {row[0] for row in rows(engine, "SELECT request_id FROM submissions")}
    with serve(
        lambda peer: peer.reply(404 if peer.request.target.endswith(f"{min(ids)}/payloads") else 200, b"{}")
    ) as api:
        given = {"fal_keep_requests": 3600, "fal_api_url": api.url, "fal_key": "a:b"}
        assert run_lane(engine, tmp_path, **given) == 3
        assert run_lane(engine, tmp_path, **given) == 0
    assert {(request.method, request.target) for request in api.received} == {
        ("DELETE", f"/v1/models/requests/{id_}/payloads") for id_ in ids
    }
    assert len(api.received) == 3
    assert {request.headers["authorization"] for request in api.received} == {"Key a:b"}


@pytest.mark.parametrize(("status", "reason"), [(403, "key_refused"), (500, "unreachable")])
def test_key_that_may_delete_nothing(engine: Engine, tmp_path: Path, status: int, reason: str) -> None:
    """The reason stands in `lane_pauses`; when it may, it goes on where it was, and only then do the rows go."""
    stored(engine, tmp_path, 3)
    with serve(lambda peer: peer.reply(status)) as api:
        given = {"fal_keep_requests": 3600, "fal_api_url": api.url, "fal_key": "a:b", "keep_batches": 3600}
        assert run_lane(engine, tmp_path, **given) == 0
    assert rows(engine, "SELECT lane, subject, reason FROM lane_pauses") == [("prune", "provider", reason)]
    with serve(lambda peer: peer.reply(200, b"{}")) as api:
        given["fal_api_url"] = api.url
        assert run_lane(engine, tmp_path, **given) == 3
        assert run_lane(engine, tmp_path, **given) == 3
    assert rows(engine, "SELECT count(*) FROM lane_pauses") == [(0,)]
