"""The settle lane: finish batches whose edits are all final, in a transaction of its own."""

import structlog
from sqlalchemy import Engine

from models.transitions import settle_batches
from worker.crash import reach
from worker.settings import WorkerSettings

log = structlog.get_logger()


def run(engine: Engine, settings: WorkerSettings) -> int:
    """Finish what can be finished; returns the number of batches."""
    reach("before_settle", settings)
    with engine.begin() as connection:
        finished = settle_batches(connection)
    for batch_id in finished:
        log.info("batch_finished", batch=str(batch_id))
    return len(finished)
