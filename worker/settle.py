"""The settle lane: cancel the rest of batches that broke a limit of theirs, and finish those whose edits are all final.

Each batch that broke a limit in a transaction of its own: it may be large, and the others must not wait for it.
"""

import structlog
from sqlalchemy import Engine

from models.criteria import broken_batches
from models.provider import price_per_image
from models.transitions import cancel_batch, settle_batches
from worker.crash import reach
from worker.settings import WorkerSettings

log = structlog.get_logger()


def run(engine: Engine, settings: WorkerSettings) -> int:
    """Cancel and finish what can be; returns the number of batches finished."""
    _hold_to_limits(engine, settings)
    with engine.begin() as connection:
        finished = settle_batches(connection, results_prefix=settings.intake_url or "")
        if finished:
            reach("before_settle", settings)
    for batch_id in finished:
        log.info("batch_finished", batch=str(batch_id))
    return len(finished)


def _hold_to_limits(engine: Engine, settings: WorkerSettings) -> None:
    with engine.begin() as connection:
        broken = broken_batches(connection, price=price_per_image(connection, settings.price_per_image))
    for batch_id, criterion in broken:
        with engine.begin() as connection:
            edits = cancel_batch(connection, batch_id, criterion=criterion)
        log.warning("batch_broke_its_limit", batch=str(batch_id), criterion=criterion.value, cancelled=edits)
