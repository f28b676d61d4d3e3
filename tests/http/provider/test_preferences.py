"""Preferences at work: the provider does as it is told, and who notes images counts with it."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine

from core.errors import SettingsError
from core.settings import load
from fal_emulator.options import Options
from fal_emulator.tests.emulator_process import FAST, RunningEmulator
from models.claims import claim_images
from models.record_reports import record_reports
from models.verdict import DeclaredImage, Kind, Verdict
from provider.listing import Listing
from provider.preferences import Preferences
from provider.queue_api import QueueAPI
from provider.settings import ProviderSettings
from tests.support.factories import POLICY, answer, make_submitted, success
from tests.support.lane_runner import Emulator, all_are, lane_runner, make_edits, wait_for
from tests.support.queueing import ARGUMENTS, ENDPOINT, KEY
from tests.support.receiving import rows

DOT = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def submit(url: str, **wishes: object) -> str:
    """One request with these preferences."""
    queue = QueueAPI(url, KEY, start_timeout=600, preferences=Preferences(**wishes))
    return queue.submit(ENDPOINT, ARGUMENTS | {"image_urls": [DOT]}, webhook_url=None)


def outcome(url: str, request_id: str) -> Verdict:
    """What became of it, once it has ended."""
    queue = QueueAPI(url, KEY, start_timeout=600)
    wait_for(lambda: queue.status(ENDPOINT, request_id).completed)
    return queue.result(ENDPOINT, request_id, failed=True)


def test_low_priority_waits(emulator: Emulator) -> None:
    """A request of low priority lets a later one of normal priority go first."""
    emulator.mark(concurrency=0)
    low, normal = submit(emulator.url, priority="low"), submit(emulator.url)
    queue = QueueAPI(emulator.url, KEY, start_timeout=600)
    assert [queue.status(ENDPOINT, request_id).queue_position for request_id in (normal, low)] == [0, 1]
    for request_id in (low, normal):
        queue.cancel(ENDPOINT, request_id)


@pytest.mark.parametrize(("no_retry", "kind"), [(False, Kind.SUCCEEDED), (True, Kind.FAILED)])
def test_no_retry_is_one_run(emulator: Emulator, no_retry: bool, kind: Kind) -> None:
    """A fault of the provider's machines is run again by it, or is the outcome."""
    emulator.faults(internal_retry=1)
    assert outcome(emulator.url, submit(emulator.url, no_retry=no_retry)).kind is kind


@pytest.mark.parametrize("store_io", [True, False])
def test_history_is_kept_or_not(emulator: Emulator, store_io: bool) -> None:
    """Without it the listing names the request, but neither what was asked nor what came."""
    request_id = submit(emulator.url, store_io=store_io)
    outcome(emulator.url, request_id)
    listing = Listing(emulator.url, KEY)
    pages = listing.pages(ENDPOINT, LONG_AGO, datetime.now(UTC))
    (found,) = [item for page in pages for item in page.items if item.request_id == request_id]
    assert (found.identity is not None, found.certain) == (store_io, store_io)
    verdict = listing.one(ENDPOINT, request_id)
    assert (verdict is not None and verdict.kind is Kind.SUCCEEDED) == store_io


def test_provider_does_as_it_is_told(tmp_path: Path) -> None:
    """An image whose life was asked to be short is gone after it; one without a wish stays."""
    emulator = RunningEmulator(Options(state_dir=tmp_path, time_scale=3600, **FAST))
    try:
        short = outcome(emulator.url, submit(emulator.url, output_expires_after=3600.0))
        long = outcome(emulator.url, submit(emulator.url))
        wait_for(lambda: emulator.get(short.images[0].url).status_code == 404)
        assert emulator.get(long.images[0].url).status_code == 200
    finally:
        emulator.stop()


def test_settings_reach_the_provider_and_the_rows(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Through the lanes: asked for with the submit, and each image's row knows when its file goes."""
    with lane_runner(
        engine, emulator, tmp_path, without_callbacks=True, fal_output_expires_after=7200, fal_store_io=False
    ) as machine:
        make_edits(engine, ["a"])
        machine.work_until(all_are(engine, stored=1))
    ((left,),) = rows(engine, "SELECT extract(epoch FROM expires_at - created_at)::int FROM images")
    ((request_id,),) = rows(engine, "SELECT request_id FROM submissions")
    assert left == 7200
    assert Listing(emulator.url, KEY).one(ENDPOINT, request_id) is None


def test_nearest_expiry_is_fetched_first(engine: Engine) -> None:
    """An image that goes soon is fetched before one that stays; what lies inside the answer never goes."""
    inside = Verdict(Kind.SUCCEEDED, (DeclaredImage("data:image/png;base64,AAAA"),))
    soon = POLICY.model_copy(update={"fal_output_expires_after": 600.0})
    with engine.begin() as connection:
        stays, first, data = make_submitted(connection, 3)
        record_reports(connection, [answer(stays, success())], POLICY)
        record_reports(connection, [answer(data, inside)], soon)
        record_reports(connection, [answer(first, success())], soon)
        (due,) = claim_images(connection, limit=1, lease=60)
        found = connection.exec_driver_sql(
            "SELECT submission_id, expires_at IS NOT NULL FROM images WHERE id = %s", (due.id,)
        ).one()
        assert tuple(found) == (first.id, True)
        assert connection.exec_driver_sql("SELECT count(*) FROM images WHERE expires_at IS NULL").scalar() == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [("FAL_QUEUE_PRIORITY", "high"), ("FAL_NO_RETRY", "maybe"), ("FAL_OUTPUT_EXPIRES_AFTER", "0")],
)
def test_wrong_preference_is_told(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A value that the provider would refuse with every submit is refused at the start, by its name."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        load(ProviderSettings)
