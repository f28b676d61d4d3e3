"""The settle lane: cancel the rest of batches that broke a limit of theirs, and finish those whose edits are all final.

Small batches go together, a large one alone: what takes long or fails for one batch is logged and keeps no other from
its end. What is larger than one statement may be goes in chunks, each a transaction, for one turn; the next turn goes
on from what stands in the database.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar
from uuid import UUID

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from http_client.sessions import BODY_TIMEOUT, CONNECT_TIMEOUT
from models.criteria import BatchSize, Broken, broken_batches, limited_batches
from models.due_work import FirstDue, first_finishable_batch
from models.provider import price_per_image
from models.states import Criterion
from models.transitions import (
    EDITS_PER_STATEMENT,
    cancel_batch,
    cancel_chunk,
    cancelled_with_open_edits,
    finishable_batches,
    settle_batches,
)
from provider import platform
from worker.crash_points import crash_point
from worker.lane import Lane
from worker.lane_loop import SLICE_SECONDS, reason
from worker.price_refresh import refresh
from worker.settings import WorkerSettings

log = structlog.get_logger()

BATCHES_AT_ONCE = 100
"""Small batches that are looked at in one transaction."""

LEAST_ROUNDS = 10
"""Chunks of each cancelled batch that one turn does, at least."""

_REACHED: dict[UUID, int] = {}
"""Up to which position the turn before has cancelled a batch: to read past millions of cancelled edits again would cost
each turn more than the one before. Whoever starts anew begins anew, and so does what was left behind."""

Found = TypeVar("Found")


class SettleLane(Lane):
    """Holds batches to their limits and finishes those that can be finished; now and then, reads the price."""

    longest_call = CONNECT_TIMEOUT + platform.TIMEOUT + BODY_TIMEOUT  # the price list

    def take_turn(self, should_continue: Callable[[], bool]) -> int:
        """Returns the number of batches finished."""
        refresh(self.engine, self.dependencies.pricing, self.settings)
        began = time.monotonic()

        def may_continue() -> bool:
            # a cancel of millions takes many turns: between them the others are held to their limits and finished
            return should_continue() and time.monotonic() - began < SLICE_SECONDS

        return settle_due(self.engine, self.settings, may_continue)

    @classmethod
    def find_first_due(cls, connection: Connection, settings: WorkerSettings) -> FirstDue | None:  # noqa: ARG003
        """The next batch that can be finished."""
        return first_finishable_batch(connection)


def settle_due(engine: Engine, settings: WorkerSettings, should_continue: Callable[[], bool] = lambda: True) -> int:
    """Cancel and finish what can be, large batches while `should_continue` says so; returns the batches finished."""
    _hold_to_limits(engine, settings)
    finished = _finish(engine, settings)
    _cancel_the_rest(engine, should_continue)
    return finished


def _hold_to_limits(engine: Engine, settings: WorkerSettings) -> None:
    with engine.begin() as connection:
        price = price_per_image(connection, settings.price_per_image)
        limited = limited_batches(connection)

    def find(connection: Connection, batch_ids: Sequence[UUID]) -> list[Broken]:
        return broken_batches(connection, batch_ids, price=price)

    for batch_id, criterion in _each(engine, limited, find):

        def cancel(connection: Connection, batch_ids: Sequence[UUID], criterion: Criterion = criterion) -> list[int]:
            return [cancel_batch(connection, batch_id, criterion=criterion) for batch_id in batch_ids]

        for edits in _each(engine, [BatchSize(batch_id, EDITS_PER_STATEMENT)], cancel):
            log.warning("batch_broke_its_limit", batch=str(batch_id), criterion=criterion.value, cancelled=edits)


def _finish(engine: Engine, settings: WorkerSettings) -> int:
    def settle(connection: Connection, batch_ids: Sequence[UUID]) -> list[UUID]:
        settled = settle_batches(connection, batch_ids, results_prefix=settings.intake_url or "")
        if settled:
            crash_point("before_settle", settings)
        return settled

    with engine.begin() as connection:
        found = finishable_batches(connection)
    finished = 0
    for batch_id in _each(engine, found, settle):
        finished += 1
        log.info("batch_finished", batch=str(batch_id))
    return finished


def _cancel_the_rest(engine: Engine, should_continue: Callable[[], bool]) -> None:
    """A chunk of each cancelled batch in turn, until all is done or the turn is over."""
    with engine.begin() as connection:
        reached = {batch_id: _REACHED.get(batch_id, -1) for batch_id in cancelled_with_open_edits(connection)}
    rounds = 0
    # whatever the questions before took of the turn, a large cancel makes way
    while reached and (rounds < LEAST_ROUNDS or should_continue()):
        rounds += 1
        for batch_id, after in list(reached.items()):
            if (position := _cancel_chunk(engine, batch_id, after)) is None:
                del reached[batch_id]
            else:
                reached[batch_id] = position
    _REACHED.clear()
    _REACHED.update(reached)


def _cancel_chunk(engine: Engine, batch_id: UUID, after: int) -> int | None:
    def cancel(connection: Connection, batch_ids: Sequence[UUID]) -> list[int | None]:
        return [cancel_chunk(connection, batch_id, after=after) for batch_id in batch_ids]

    return next(_each(engine, [BatchSize(batch_id, EDITS_PER_STATEMENT)], cancel), None)


def _each(
    engine: Engine, batches: Iterable[BatchSize], step: Callable[[Connection, Sequence[UUID]], Sequence[Found]]
) -> Iterator[Found]:
    """Do a step for each batch, small ones in sets; one that fails is logged, and the others go on."""
    waiting = _sets(batches)
    while waiting:
        batch_ids = waiting.pop(0)
        try:
            with engine.begin() as connection:
                found = step(connection, batch_ids)
        except DBAPIError as error:
            if error.connection_invalidated:
                raise  # the database is away, for all of them
            if len(batch_ids) > 1:
                waiting = [[batch_id] for batch_id in batch_ids] + waiting
                continue
            log.error("batch_not_settled", batch=str(batch_ids[0]), reason=reason(error))
            continue
        yield from found


def _sets(batches: Iterable[BatchSize]) -> list[list[UUID]]:
    """The small ones in sets, then the large ones, each alone."""
    batches = list(batches)
    small = [batch_id for batch_id, edits in batches if edits <= EDITS_PER_STATEMENT]
    together = [small[first : first + BATCHES_AT_ONCE] for first in range(0, len(small), BATCHES_AT_ONCE)]
    return together + [[batch_id] for batch_id, edits in batches if edits > EDITS_PER_STATEMENT]
