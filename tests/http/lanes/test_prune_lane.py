"""The prune lane at work: it audits, removes what the settings say and nothing else, and comes again by itself."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from core.errors import StorageUnavailable
from models.due_work import RETENTION_DUE
from models.states import Kept
from storage.store import Storage
from tests.support.finished_batches import age, finished
from tests.support.notify_receiver import worker_settings
from tests.support.receiving import deliveries, rows
from worker import retention
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
    monkeypatch.setattr(retention, "FILES_AT_ONCE", 3)
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
    finished(engine, 600)
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
