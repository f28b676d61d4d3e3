"""Named points at which a worker can be told to die, so that tests kill real processes where it hurts.

Off unless `DARKROOM_CRASH_AT` says `point:file`, or several of these. The process kills itself with SIGKILL when it
reaches a point, once: the file is made first, and whoever finds it there goes on.
"""

import os
import signal
from pathlib import Path

from worker.settings import WorkerSettings

POINTS = (
    "after_claim",
    "after_post",
    "before_record",
    "after_record",
    "in_download",
    "before_settle",
    "after_notify",
    "after_create",
)


def crash_point(point: str, settings: WorkerSettings) -> None:
    """Die here if this is the point."""
    if settings.darkroom_crash_at is None:
        return
    chosen = dict(entry.split(":", 1) for entry in settings.darkroom_crash_at.split(","))
    flag = chosen.get(point)
    if flag is None:
        return
    try:
        Path(flag).touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
