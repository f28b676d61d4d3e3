"""Pauses of a lane: what stands still for a trouble that is ours or the provider's, why, and until when.

One row of `lane_pauses` per subject that is paused: ('download', 'storage') while the store refuses, ('submit', an
endpoint) while its model is down. A pause fails no edit and counts no attempt. It ends by itself: once `retry_at` has
come one probe is let through, and its success ends the pause. The provider's account has a row of its own
(`provider_status`, `models/provider.py`), because it stops everything and a person may end it.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from typing import NamedTuple

from sqlalchemy import Connection

from models.statements import Statement

LONGEST_PAUSE = 900.0
"""Seconds between two probes, at most."""


class Pause(NamedTuple):
    """One subject of a lane that stands still."""

    lane: str
    subject: str
    reason: str
    message: str
    paused_at: datetime
    retry_at: datetime
    probes: int


PAUSE_LANE = Statement("""
    INSERT INTO lane_pauses (lane, subject, reason, message, retry_at)
    VALUES (%(lane)s, %(subject)s, %(reason)s, %(message)s, now() + %(retry_after)s * interval '1 s')
    ON CONFLICT (lane, subject) DO UPDATE SET reason = excluded.reason, message = excluded.message
""")


def pause_lane(
    connection: Connection, lane: str, subject: str, *, reason: str, message: str, retry_after: float
) -> None:
    """Pause one subject of a lane for `retry_after` seconds; a pause that stands keeps its clock, and takes the newer
    reason."""
    connection.exec_driver_sql(
        PAUSE_LANE,
        {
            "lane": lane,
            "subject": subject,
            "reason": reason,
            "message": message[:500],
            "retry_after": float(retry_after),
        },
    )


DUE_PROBES = Statement(
    "SELECT subject FROM lane_pauses WHERE lane = %s AND retry_at <= now() ORDER BY retry_at, subject"
)


def due_probes(connection: Connection, lane: str) -> list[str]:
    """Subjects of a lane that may be probed now, the one that waits longest first; claims none."""
    rows = connection.exec_driver_sql(DUE_PROBES, (lane,))
    return list(rows.scalars())


CLAIM_PROBES = Statement("""
    UPDATE lane_pauses
    SET probes = probes + 1,
        retry_at = now() + least(%(after)s::float8 * 2 ^ least(probes + 1, 30), %(longest)s) * interval '1 s'
    WHERE lane = %(lane)s AND retry_at <= now() AND (%(subjects)s::text[] IS NULL OR subject = ANY(%(subjects)s))
    RETURNING subject
""")


def claim_probes(
    connection: Connection,
    lane: str,
    *,
    probe_after: float,
    subjects: Sequence[str] | None = None,
    longest: float = LONGEST_PAUSE,
) -> list[str]:
    """Subjects of a lane (all, or of these) that may be probed now, with one item each.

    Whoever claims a probe puts the next one off, doubling from `probe_after` seconds up to `longest`; so a
    prober that dies costs nothing but the wait.
    """
    rows = connection.exec_driver_sql(
        CLAIM_PROBES,
        {
            "lane": lane,
            "subjects": None if subjects is None else list(subjects),
            "after": float(probe_after),
            "longest": float(longest),
        },
    )
    return [row.subject for row in rows]


class MayClaim(Enum):
    """What of one subject of a lane may be claimed now."""

    ALL = "all"
    ONE = "one"
    """A probe: the pause stands, and its success ends it."""
    NONE = "none"


PROBE_IS_DUE = Statement("SELECT retry_at <= now() AS due FROM lane_pauses WHERE lane = %s AND subject = %s")


def may_claim(
    connection: Connection, lane: str, subject: str, *, probe_after: float, longest: float = LONGEST_PAUSE
) -> MayClaim:
    """Whether a subject is paused; claims the probe where one is due (`claim_probes`)."""
    row = connection.exec_driver_sql(PROBE_IS_DUE, (lane, subject)).first()
    if row is None:
        return MayClaim.ALL
    probes = claim_probes(connection, lane, probe_after=probe_after, longest=longest) if row.due else []
    return MayClaim.ONE if subject in probes else MayClaim.NONE


PROBE_AGAIN = Statement("UPDATE lane_pauses SET retry_at = now() WHERE lane = %s AND subject = %s")


def probe_again(connection: Connection, lane: str, subject: str) -> None:
    """Let the next probe go at once: the last one ended for a reason of its own and told nothing."""
    connection.exec_driver_sql(PROBE_AGAIN, (lane, subject))


RESUME_LANE = Statement("DELETE FROM lane_pauses WHERE lane = %s AND subject = %s RETURNING lane")


def resume_lane(connection: Connection, lane: str, subject: str) -> bool:
    """End a pause; True if there was one."""
    rows = connection.exec_driver_sql(RESUME_LANE, (lane, subject))
    return bool(rows.all())


LIST_PAUSES = Statement(
    "SELECT lane, subject, reason, message, paused_at, retry_at, probes FROM lane_pauses ORDER BY paused_at"
)


def list_pauses(connection: Connection) -> list[Pause]:
    """Every pause that stands, the oldest first."""
    rows = connection.exec_driver_sql(LIST_PAUSES)
    return [Pause(*row) for row in rows]
