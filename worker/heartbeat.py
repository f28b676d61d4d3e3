"""Says that a part is alive, for whoever watches; that it cannot be written down stops nobody."""

import structlog
from sqlalchemy import Engine

from models.database_errors import DATABASE_ERRORS, reason
from models.heartbeats import note_heartbeat

log = structlog.get_logger()


def beat(engine: Engine, name: str, *, worked: bool = False, places: int | None = None) -> None:
    """The tick, or a lane, is alive, and whether it did something; `places` is how many edits may be in flight."""
    try:
        with engine.begin() as connection:
            note_heartbeat(connection, name, worked=worked, places=places)
    except DATABASE_ERRORS as error:
        log.info("heartbeat_not_written", part=name, reason=reason(error))
