"""The processes below this one: adopt those that lose their parent, and leave none behind at the end.

Only `darkroom up` and `darkroom demo` use this; both have no other children than their stack.
"""

import os
import sys
import time

from cli.stack.parent_death_signal import PR_SET_CHILD_SUBREAPER, process_control
from core.errors import UserError

GONE_WITHIN = 5.0
"""Seconds for killed processes to disappear."""


def require_process_list() -> None:
    """Find out now, and not while stopping, whether we can see what runs below us.

    Raises:
        UserError: we cannot.
    """
    try:
        import psutil  # type: ignore[import-untyped]  # comes with the extra `local`; it has no types

        psutil.Process().children()
    except Exception:
        raise UserError("The list of processes cannot be read; on Linux, /proc must be mounted.") from None


def adopt_orphans() -> None:
    """From now on a process below us whose parent dies becomes our child, not that of the system."""
    process_control()(PR_SET_CHILD_SUBREAPER, 1)


def reap() -> None:
    """Reap adopted processes that have ended, so that they do not stay as zombies."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def end_all() -> None:
    """Kill whatever still runs below us."""
    # comes with the extra `local`, like everything that could run below us
    import psutil

    myself = psutil.Process()
    deadline = time.monotonic() + GONE_WITHIN
    while living := myself.children(recursive=True):
        for process in living:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(living, timeout=1)
        reap()
        if time.monotonic() > deadline:
            print(f"still there: {[process.pid for process in living]}", file=sys.stderr)
            return
