"""The prepare lane: look at inputs before money is spent, and bring objects of the store to the provider.

Inputs are rows: each is fetched under the guards of a download, judged by its bytes, and ready or refused. Then the
edits that waited for it may be submitted, or fail unpaid (`models/transitions/held_edits.py`).

Trouble of the store, of the provider's storage or of the account refuses no input and uses up none of its tries: the
objects pause, with the reason in `lane_pauses`, and one is let through now and then. Web URLs are looked at meanwhile.
"""

import time
from collections.abc import Callable, Sequence

import structlog
from sqlalchemy import Connection

from http_client.fetch import READ_TIMEOUT, WHOLE_TIMEOUT
from models.due_work import FirstDue, first_due
from models.input_claims import DueInput, Kind, claim_inputs, read_long_input, renew_inputs
from models.pauses import MayClaim, may_claim, pause_lane, probe_again, resume_lane
from models.traces import TRACES_OF_INPUTS
from models.transitions.held_edits import batches_to_go_on, let_edits_go
from models.transitions.inputs import (
    InputFault,
    ReadyInput,
    record_input_faults,
    record_ready_inputs,
    release_inputs,
)
from provider.cdn import LONGEST_TRY
from worker.dependencies import Dependencies
from worker.host_limits import HostSlots
from worker.input_check import DeliveryTrouble, Result, check_input
from worker.lane import CallingLane, CallResult
from worker.settings import WorkerSettings

log = structlog.get_logger()

LANE, SUBJECT = "prepare", "objects"
"""What stands in `lane_pauses` while no object of the store can be delivered."""
WIDTH = 16
"""Inputs looked at at one time; a quarter of the places stays for other hosts, whatever one of them does."""
FIRST_PROBE, LAST_PROBES = 10.0, 120.0
"""Seconds until paused objects are tried again: the first time, and later on at most."""
BATCHES_AT_ONCE = 20
GO_ON_FOR = 5.0
"""Seconds for which edits are let go at one time; then inputs are looked at again."""


def probe_delay(settings: WorkerSettings) -> float:
    """Seconds until a delivery that has just failed is probed; shrinks with the account's own clock."""
    return min(FIRST_PROBE, settings.provider_retry_after)


class PrepareLane(CallingLane[DueInput, Result]):
    """Looks at inputs until none is due, and lets edits go whose inputs were looked at."""

    traces = TRACES_OF_INPUTS
    longest_call = WHOLE_TIMEOUT + READ_TIMEOUT + LONGEST_TRY
    width = WIDTH

    def __init__(self, dependencies: Dependencies) -> None:
        super().__init__(dependencies)
        self.lease = self.settings.claim_lease
        self._places = HostSlots(WIDTH * 3 // 4)
        self._probes: set[int] = set()

    def take_turn(self, should_continue: Callable[[], bool]) -> int:
        """Returns the number of inputs that were looked at, and of steps in which edits were let go."""
        done = self._let_edits_go()
        return done + super().take_turn(should_continue)

    def claim(self, free: int) -> Sequence[DueInput]:
        """Inputs whose hosts may be asked, and objects while they can be delivered."""
        closed = sorted({*self._places.full(), *self.dependencies.input_fetcher.waits.waiting()})
        limit = min(free, self._places.count_free(closed))
        with self.engine.begin() as connection:
            probes: list[DueInput] = []
            with connection.begin_nested() as savepoint:
                may = may_deliver(connection, self.settings)
                if may is MayClaim.ONE:
                    probes = claim_inputs(connection, limit=1, lease=self.lease, kinds={Kind.OBJECT})
                    if not probes:
                        savepoint.rollback()  # a probe without an object is none, and costs no wait
            kinds = set(Kind) if may is MayClaim.ALL else {Kind.WEB}
            others = claim_inputs(connection, limit=limit - len(probes), lease=self.lease, not_from=closed, kinds=kinds)
        self._probes |= {due.id for due in probes}
        for due in (*probes, *others):
            self._places.begin(due.host or "")
        return [*probes, *others]

    def perform(self, due: DueInput) -> Result:
        """Look at one input."""
        try:
            if due.text is not None:
                return check_input(self.dependencies, due, due.text)
            with self.engine.begin() as connection:
                text = read_long_input(connection, due.id)
            return check_input(self.dependencies, due, text)
        finally:
            self._places.end(due.host or "")

    def record(self, results: Sequence[Result]) -> None:
        """What was found, and which edits may go for it."""
        with self.engine.begin() as connection:
            record_results(connection, results, probes=self._probes, retry_after=probe_delay(self.settings))
        self._probes -= {result.id for result in results}
        self._let_edits_go()

    def _let_edits_go(self) -> int:
        """Step by step; a batch of very many does not keep the others waiting."""
        began, steps = time.monotonic(), 0
        while time.monotonic() - began < GO_ON_FOR:
            with self.engine.begin() as connection:
                batches = batches_to_go_on(connection, limit=BATCHES_AT_ONCE)
            if not batches:
                break
            for batch_id in batches:
                with self.engine.begin() as connection:
                    let_edits_go(connection, batch_id)
                steps += 1
        return steps

    def describe(self, result: Result) -> CallResult:
        """Ready, or what was wrong with the input or with its delivery."""
        return CallResult("ready", False) if isinstance(result, ReadyInput) else CallResult(result.type, True)

    def renew(self, due: Sequence[DueInput]) -> None:
        """Nobody else looks at these meanwhile."""
        with self.engine.begin() as connection:
            renew_inputs(connection, [one.id for one in due], lease=self.lease)

    @classmethod
    def find_first_due(cls, connection: Connection, settings: WorkerSettings) -> FirstDue | None:
        """The next input."""
        with connection.begin_nested() as claim:
            kinds = {Kind.WEB} if may_deliver(connection, settings) is MayClaim.NONE else set(Kind)
            rows = claim_inputs(connection, limit=1, lease=1, kinds=kinds)
            claim.rollback()
        return first_due(connection, "inputs", [row.id for row in rows])


def may_deliver(connection: Connection, settings: WorkerSettings) -> MayClaim:
    """Whether objects of the store can be delivered, as far as is known."""
    return may_claim(connection, LANE, SUBJECT, probe_after=probe_delay(settings), longest=LAST_PROBES)


def record_results(
    connection: Connection, results: Sequence[Result], *, probes: set[int] | frozenset[int], retry_after: float
) -> None:
    """One transaction for a set of inputs; `probes` are the ids of those that probed a pause."""
    ready = [result for result in results if isinstance(result, ReadyInput)]
    faults = [result for result in results if isinstance(result, InputFault)]
    troubles = [result for result in results if isinstance(result, DeliveryTrouble)]
    if ready:
        record_ready_inputs(connection, ready)
    if faults:
        record_input_faults(connection, faults)
    if any(result.id in probes for result in ready):
        if resume_lane(connection, LANE, SUBJECT):
            log.warning("inputs_resumed")
    elif any(result.id in probes for result in faults):
        probe_again(connection, LANE, SUBJECT)
    if troubles:
        last = troubles[-1]
        release_inputs(connection, [trouble.id for trouble in troubles], delay=retry_after)
        pause_lane(connection, LANE, SUBJECT, reason=last.type, message=last.message, retry_after=retry_after)
        log.error("inputs_paused", reason=last.type, message=last.message, inputs=len(troubles))
