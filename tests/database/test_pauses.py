"""Pauses of a lane: a reason that people read, one probe at a time, an end by itself."""

from datetime import timedelta

from sqlalchemy import Connection, Engine

from models.pauses import LONGEST_PAUSE, claim_probes, list_pauses, pause_lane, resume_lane


def pause_storage(connection: Connection, *, reason: str = "disk_full", retry_after: float = 0.0) -> None:
    pause_lane(connection, "download", "storage", reason=reason, message="No space left.", retry_after=retry_after)


def test_a_pause_keeps_its_clock_and_takes_the_newer_reason(engine: Engine) -> None:
    """Every failing item pauses again: that must put the probe off no further."""
    with engine.begin() as connection:
        pause_storage(connection, retry_after=60)
    with engine.begin() as connection:
        before = list_pauses(connection)[0]
        pause_storage(connection, reason="refused", retry_after=600)
        after = list_pauses(connection)[0]
    assert (after.reason, after.paused_at, after.retry_at) == ("refused", before.paused_at, before.retry_at)


def test_one_probe_at_a_time_and_each_later_than_the_last(engine: Engine) -> None:
    """Two claimers get one probe between them; the wait doubles, up to a bound."""
    waits = []
    for _ in range(8):
        with engine.begin() as connection:
            pause_storage(connection)
            assert claim_probes(connection, "download", probe_after=60) == ["storage"]
            assert claim_probes(connection, "download", probe_after=60) == []
            (pause,) = list_pauses(connection)
            now = connection.exec_driver_sql("SELECT now()").scalar_one()
            waits.append((pause.retry_at - now).total_seconds())
            connection.exec_driver_sql("UPDATE lane_pauses SET retry_at = now() - interval '1 s'")
    assert waits[:3] == [120.0, 240.0, 480.0]
    assert max(waits) == LONGEST_PAUSE
    assert pause.probes == 8


def test_pauses_are_each_others_strangers(engine: Engine) -> None:
    """A probe of one lane, or the end of one subject's pause, says nothing about another."""
    with engine.begin() as connection:
        pause_storage(connection)
        pause_lane(connection, "submit", "a/model", reason="incident", message="down", retry_after=0)
        pause_lane(connection, "submit", "another/model", reason="incident", message="down", retry_after=3600)
        assert claim_probes(connection, "submit", probe_after=1) == ["a/model"]
        assert resume_lane(connection, "submit", "a/model")
        assert not resume_lane(connection, "submit", "a/model")
        assert [(pause.lane, pause.subject) for pause in list_pauses(connection)] == [
            ("download", "storage"),
            ("submit", "another/model"),
        ]
        assert list_pauses(connection)[0].retry_at - list_pauses(connection)[0].paused_at == timedelta(0)
