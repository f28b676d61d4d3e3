"""The prune lane: audit each batch that has finished, and remove what has been kept long enough.

Off the way of everything else: its steps are small, wait for no lock longer than a second, and are tried again later
where somebody else holds what they want. What is due stands in `retention`, a row for each kind of thing.
"""

import time
from collections.abc import Callable

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from models.audits import AUDIT_TIMEOUT, FinishedBatch, audit_batch, record_audit, unaudited_batches
from models.database_errors import sqlstate
from models.due_work import FirstDue, first_due_retention
from models.retention import Step, claim_kind, record_step
from models.states import Kept
from worker.deletion import Elsewhere
from worker.lane import Lane
from worker.lane_loop import SLICE_SECONDS, reason
from worker.retention import LOCKED, Pruning
from worker.settings import WorkerSettings

log = structlog.get_logger()

AUDITS_AT_ONCE = 50
"""Batches that one turn audits."""
CHANGED_MEANWHILE, TOOK_TOO_LONG = "40001", "57014"


class PruneLane(Lane):
    """Audits finished batches, and keeps what is over only as long as the settings say."""

    longest_call = AUDIT_TIMEOUT

    def take_turn(self, should_continue: Callable[[], bool]) -> int:
        """Returns how many batches were audited, and rows, bodies and files removed."""
        began = time.monotonic()

        def may_continue() -> bool:
            return should_continue() and time.monotonic() - began < SLICE_SECONDS

        done = self._audit(may_continue)
        while True:  # once at least, however much there is to be audited
            with self.engine.begin() as connection:
                kind = claim_kind(connection)
            if kind is None:
                return done
            done += self._prune(kind, may_continue)
            if not may_continue():
                return done

    @classmethod
    def find_first_due(cls, connection: Connection, settings: WorkerSettings) -> FirstDue | None:  # noqa: ARG003
        """The kind of thing that is due to be looked at."""
        return first_due_retention(connection)

    def _audit(self, may_continue: Callable[[], bool]) -> int:
        with self.engine.begin() as connection:
            batches = unaudited_batches(connection, AUDITS_AT_ONCE)
        audited = 0
        for batch in batches:
            if not may_continue():
                break
            self._audit_one(batch)
            audited += 1
        return audited

    def _audit_one(self, batch: FinishedBatch) -> None:
        serial = self.engine.connect().execution_options(isolation_level="REPEATABLE READ")
        try:
            with serial as connection, connection.begin():
                difference = audit_batch(connection, batch)
        except DBAPIError as error:
            if sqlstate(error) == CHANGED_MEANWHILE:
                return  # it is due again
            if sqlstate(error) != TOOK_TOO_LONG:
                raise
            difference = "not audited: it took longer than five minutes"
            with self.engine.begin() as connection:
                record_audit(connection, batch, difference)
        if difference:
            log.error("batch_differs_from_its_rows", batch=str(batch.batch_id), difference=difference)

    def _prune(self, kind: Kept, may_continue: Callable[[], bool]) -> int:
        dependencies = self.dependencies
        elsewhere = Elsewhere(lambda: dependencies.storage, lambda: dependencies.platform)
        pruning = Pruning(self.engine, self.settings, elsewhere)
        removed, step = 0, Step(0, more=True)
        while step.more:
            try:
                step = pruning.take_step(kind)
            except DBAPIError as error:
                if sqlstate(error) not in LOCKED:
                    raise
                log.info("not_pruned_yet", kind=kind.value, reason=reason(error))
                step = Step(0, more=False)
            removed += step.removed
            with self.engine.begin() as connection:
                record_step(connection, kind, step, again_in=pruning.look_again_in(kind))
            if not may_continue():
                break
        if removed:
            log.info("pruned", kind=kind.value, removed=removed)
        return removed
