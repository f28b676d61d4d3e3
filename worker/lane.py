"""What a lane is: `Lane` for any, `CallingLane` for those whose work is calls to others (not `settle`, not `prune`)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pkgutil import resolve_name
from typing import ClassVar, Generic, NamedTuple, Protocol, TypeVar

from sqlalchemy import Connection

from core.tracing import is_tracing
from models.due_work import FirstDue
from models.statements import Statement
from worker.dependencies import Dependencies
from worker.lane_loop import LONGEST_TURN, Reply, run_turn
from worker.lanes import LANES
from worker.settings import WorkerSettings


class Lane(ABC):
    """One kind of work. An object of it lives for one turn, and is used by one thread, but for `perform`."""

    longest_call: ClassVar[float]
    """Seconds that one call takes at the most, where the peer is as slow as it may be."""

    def __init__(self, dependencies: Dependencies) -> None:
        self.dependencies = dependencies
        self.engine, self.settings = dependencies.engine, dependencies.settings

    @abstractmethod
    def take_turn(self, should_continue: Callable[[], bool]) -> int:
        """Work until nothing is due, the turn is over, or `should_continue` says stop; returns how much was done."""

    @classmethod
    @abstractmethod
    def find_first_due(cls, connection: Connection, settings: WorkerSettings) -> FirstDue | None:
        """What the lane would take next, for the doctor; may claim, for the caller rolls back."""


class Claimed(Protocol):
    """A row that a lane has claimed."""

    @property
    def id(self) -> object:
        """That of the row."""


Item = TypeVar("Item", bound=Claimed)


class CallResult(NamedTuple):
    """What came of a call, as its span says it (docs/tracing.md)."""

    outcome: str
    failed: bool
    request_id: str | None = None


class CallingLane(Lane, Generic[Item, Reply]):
    """A lane that claims rows, makes one call for each, many side by side, and records the replies in sets."""

    traces: ClassVar[Statement]
    """The traces of claimed rows, by their ids (`models/traces.py`)."""
    width: int
    """Calls under way at one time, at most."""
    lease: float = float("inf")
    """Seconds for which a claim holds."""
    longest_turn: float = LONGEST_TURN
    """Seconds."""

    @abstractmethod
    def claim(self, free: int) -> Sequence[Item]:
        """Take at most so many due rows."""

    @abstractmethod
    def perform(self, item: Item) -> Reply:
        """Make the call of one of them; runs in a thread, and should turn every failure into a reply of its own."""

    @abstractmethod
    def record(self, replies: Sequence[Reply]) -> None:
        """Write a set of replies; tried again while the database is away."""

    @abstractmethod
    def describe(self, reply: Reply) -> CallResult:
        """What a span says of a reply."""

    def renew(self, items: Sequence[Item]) -> None:
        """Keep the claim on items whose calls are still under way."""

    def has_backlog(self) -> bool:
        """Whether to wait for more although nothing was claimed (the window is full, say)."""
        return False

    def take_turn(self, should_continue: Callable[[], bool]) -> int:
        """Call until nothing is due; returns the number of calls made."""
        if not is_tracing():
            return run_turn(self, should_continue)
        from worker.traced_calls import TracedCalls  # imports OpenTelemetry, which may not be installed

        return run_turn(TracedCalls(self), should_continue)


def load_lane(name: str) -> type[Lane]:
    """The class of one lane."""
    lane: type[Lane] = resolve_name(f"worker.lanes.{name}:{name.capitalize()}Lane")
    return lane


def load_lanes() -> dict[str, type[Lane]]:
    """Every lane's class, by name."""
    return {name: load_lane(name) for name in LANES}
