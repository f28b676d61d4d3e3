"""The download lane against the emulator: a bad file is fetched again, and never stored, nor paid for a second time."""

import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import Engine

from storage import local_folder
from tests.http.conftest import Away
from tests.support.lane_runner import (
    LONG,
    Emulator,
    all_are,
    assert_stored_as_made,
    lane_runner,
    make_edits,
    stand,
    wait_for,
)
from tests.support.receiving import rows
from worker.lanes import download

pytestmark = pytest.mark.usefixtures("balanced")


def errors(engine: Engine) -> list[tuple]:
    return rows(engine, "SELECT type FROM edit_errors ORDER BY edit_id, at")


@pytest.mark.parametrize(
    "kind",
    ["cdn_404", "cdn_403", "cdn_truncated", "cdn_cut", "cdn_html", "cdn_corrupt", "cdn_redirect", "cdn_wrong_type"],
)
def test_bad_file_is_fetched_again(kind: str, engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """A file that is bad once is stored whole the next time, or at once where nothing was wrong with its bytes."""
    make_edits(engine, [f"{n} [[fault:{kind}*1]]" for n in range(2)])
    with lane_runner(engine, emulator, tmp_path) as worker:
        worker.work_until(all_are(engine, stored=2))

    assert [row["charges"] for row in emulator.rows] == [1, 1]
    harmless = kind in ("cdn_cut", "cdn_redirect", "cdn_wrong_type")
    assert rows(engine, "SELECT DISTINCT attempt, jsonb_array_length(errors) FROM images") == [
        (1, 0) if harmless else (2, 1)
    ]
    assert_stored_as_made(engine, emulator, tmp_path)
    assert not (tmp_path / "quarantine").exists()


def test_names_that_the_store_takes_for_one(
    engine: Engine, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Hat` and `hat` of one batch are two images in two files, as their rows say, where case is folded."""
    monkeypatch.setattr(local_folder, "folds_case", lambda _: True)
    make_edits(engine, ["a hat", "another hat"])
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE edits SET custom_id = CASE position WHEN 0 THEN 'Hat' ELSE 'hat' END")
    with lane_runner(engine, emulator, tmp_path) as worker:
        worker.work_until(all_are(engine, stored=2))

    assert len({key.casefold() for (key,) in rows(engine, "SELECT storage_key FROM images")}) == 2
    assert_stored_as_made(engine, emulator, tmp_path)


@pytest.mark.parametrize(
    ("kind", "type_", "kept"),
    [
        ("cdn_corrupt", "undecodable", True),
        ("cdn_html", "not_an_image", True),
        ("wrong_size", "size_mismatch", True),
        ("wrong_dimensions", "dimension_mismatch", True),
        ("cdn_404", "http_404", False),
    ],
)
def test_bad_file_is_given_up_in_the_end(
    kind: str,
    type_: str,
    kept: bool,
    engine: Engine,
    emulator: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file that stays bad fails its image after FETCHES tries; what came is quarantined, nothing is paid again."""
    monkeypatch.setattr(download, "FETCHES", 3)
    batch_id = make_edits(engine, [f"a [[fault:{kind}]]", "good"])
    with lane_runner(engine, emulator, tmp_path) as worker:
        worker.work_until(all_are(engine, stored=1, failed=1))

    assert [row["charges"] for row in emulator.rows] == [1, 1]
    assert rows(engine, "SELECT attempt, jsonb_array_length(errors) FROM images WHERE state = 'failed'") == [(3, 3)]
    assert errors(engine) == [(type_,)]
    assert (tmp_path / "quarantine" / str(batch_id) / "0" / "0").is_file() is kept
    assert [path.name for path in (tmp_path / str(batch_id)).iterdir()] == ["1"]
    assert_stored_as_made(engine, emulator, tmp_path)


@pytest.mark.parametrize("url", ["http://evil.example/x.png", "https://[bad", "http://10.0.0.1\\@127.0.0.1/", "x"])
def test_address_that_is_never_fetched(url: str, engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """An image behind an address that is not allowed fails at once, and holds no other image up."""
    make_edits(engine, ["a", "good"])
    with lane_runner(engine, emulator, tmp_path) as worker:
        worker.work_until(all_are(engine, ready=2), lanes=("submit",))
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE images SET url = %s WHERE id = (SELECT min(id) FROM images)", (url,))
        worker.work_until(all_are(engine, stored=1, failed=1), lanes=("download",))

    assert errors(engine) == [("host_refused",)]
    assert rows(engine, "SELECT attempt FROM images WHERE state = 'failed'") == [(1,)]


def test_storage_that_does_not_take_it(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """While the store refuses, images wait; once it takes them they are stored."""
    batch_id = make_edits(engine, ["a"])
    in_the_way = tmp_path / str(batch_id)
    in_the_way.write_text("a file where a folder should be")
    with lane_runner(engine, emulator, tmp_path) as worker:
        worker.work_until(lambda: rows(engine, "SELECT 1 FROM images WHERE jsonb_array_length(errors) = 2"))
        assert stand(engine) == {"ready": 1}
        in_the_way.unlink()
        worker.work_until(all_are(engine, stored=1))

    assert rows(engine, "SELECT DISTINCT error ->> 'type' FROM images, jsonb_array_elements(errors) error") == [
        ("storage_error",)
    ]
    assert_stored_as_made(engine, emulator, tmp_path)


def test_images_outlive_the_database(engine: Engine, emulator: Emulator, tmp_path: Path, database_away: Away) -> None:
    """The same for what was fetched meanwhile."""
    make_edits(engine, [f"{n} [[fault:cdn_slow@0.5]]" for n in range(4)])
    with lane_runner(engine, emulator, tmp_path) as worker:
        worker.work_until(all_are(engine, ready=4), lanes=("submit",))

        def outage() -> None:
            wait_for(lambda: rows(engine, "SELECT count(*) FROM images WHERE attempt = 1") == [(4,)])
            with database_away():
                time.sleep(0.8)

        thread = threading.Thread(target=outage)
        thread.start()
        worker.work_until(lambda: not thread.is_alive() and all_are(engine, stored=4)(), lanes=("download",))
        thread.join(LONG)

    assert rows(engine, "SELECT DISTINCT attempt FROM images") == [(1,)]
    assert_stored_as_made(engine, emulator, tmp_path)
