"""The table of the lanes. Each is one file beside this one: lane `submit` is `SubmitLane` of `worker/lanes/submit.py`.

From here follow the Celery queues, routes and tasks, what beat looks for, the worker processes and containers, the
doctor's checks and the tests. It imports no lane, so whoever only wants the names stays light; `worker.lane.load_lanes`
imports the classes.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LaneProcess:
    """How the worker of a lane is run."""

    stop_within: int
    """Seconds in which it may end by itself: longer than a turn, the lane's `longest_call`, and the recording of the
    answer while the database is away (tests/unit/project/test_compose.py counts it). A stop takes so long only where
    all of that happens at one time."""
    turns_at_once: int = 1
    """Turns that one worker runs side by side."""


LANES: dict[str, LaneProcess] = {
    "prepare": LaneProcess(stop_within=510),
    "submit": LaneProcess(stop_within=210),  # one turn at once: claimers take turns anyway
    "poll": LaneProcess(stop_within=430),
    "download": LaneProcess(stop_within=250, turns_at_once=2),
    "settle": LaneProcess(stop_within=190),
    "notify": LaneProcess(stop_within=130),
    "prune": LaneProcess(stop_within=420),
}
"""Name of the lane, its queue and its container -> how its worker is run."""

UPKEEP = ("prepare", "settle", "notify", "prune")
"""Lanes that share one worker where all runs on one machine: they rest most of the time, wait for others the rest of
it, and each keeps threads of its own (`worker/turns.py`), because each may be busy for minutes, as the notify lane is
with a caller who does not answer. What prepare computes it computes outside the interpreter, as it decodes images. The
others compute in it, and would have to take turns."""
