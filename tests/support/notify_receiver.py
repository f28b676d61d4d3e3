"""What the tests of the notify lane share: messages that are owed, a lane that delivers them, a look at the rows."""

import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import Connection, Engine
from standardwebhooks import Webhook

from tests.support.factories import make_batch
from tests.support.servers import Received, Wire, serve
from worker.dependencies import Dependencies
from worker.lane import load_lane
from worker.settings import WorkerSettings

SECRET, NEW_SECRET = (f"whsec_{base64.b64encode(bytes([n] * 32)).decode()}" for n in (1, 2))
PAYLOAD = {"type": "batch.finished", "data": {"name": "Hüte – 帽子 \u2028", "cost": 0.1, "edits": 12}}
LOCAL = ("127.0.0.1",)


class Row(NamedTuple):
    """A notification as a person may read it; `due_in` in seconds."""

    attempt: int
    delivered: bool
    due_in: float | None
    last_status: int | None
    last_error: str | None


def owe(
    engine: Engine, url: str, payload: dict[str, Any] = PAYLOAD, count: int = 1, client: str = "local"
) -> list[UUID]:
    """So many messages to a caller, as settling a batch leaves them."""
    with engine.begin() as connection:
        batch_id = make_batch(connection, notify_url="https://example.com/", client=client)
        return [_owe(connection, batch_id, url, payload) for _ in range(count)]


def _owe(connection: Connection, batch_id: UUID, url: str, payload: dict[str, Any]) -> UUID:
    query = """
        INSERT INTO notifications (batch_id, event, url, payload) VALUES (%s, 'batch.finished', %s, %s) RETURNING id
    """
    found: UUID = connection.exec_driver_sql(query, (batch_id, url, Jsonb(payload))).scalar_one()
    return found


def worker_settings(engine: Engine, **changes: Any) -> WorkerSettings:
    url = engine.url.render_as_string(hide_password=False)
    given = {"database_url": url, "redis_url": "redis://127.0.0.1:1/0", "notify_secret": SECRET}
    return WorkerSettings(**{**given, "notify_private_hosts": LOCAL, **changes})


def run(engine: Engine, **changes: Any) -> int:
    """What the task does, until nothing is due; returns the number of tries."""
    dependencies = Dependencies()
    dependencies.engine, dependencies.settings = engine, worker_settings(engine, **changes)
    return load_lane("notify")(dependencies).take_turn(lambda: True)


def stand(engine: Engine) -> list[Row]:
    """Every message, the oldest first."""
    query = """
        SELECT attempt, delivered_at IS NOT NULL, extract(epoch FROM due_at - now())::float8, last_status, last_error
        FROM notifications ORDER BY created_at, id
    """
    with engine.connect() as connection:
        return [Row(*row) for row in connection.exec_driver_sql(query)]


def fall_due(engine: Engine) -> None:
    """Let the time until the next attempt pass."""
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE notifications SET due_at = now() WHERE due_at IS NOT NULL")


@contextmanager
def receiver(*statuses: int, body: bytes = b"", **headers: str) -> Iterator[Wire]:
    """A caller's server that answers with each of these statuses in turn, and then with the last one for ever."""
    left = list(statuses)

    def script(line: Any) -> bool:
        return bool(line.reply(left.pop(0) if len(left) > 1 else left[0], body, **headers))

    with serve(script) as wire:
        yield wire


def verified(request: Received, secret: str = SECRET) -> Any:
    """The message, if the library that receivers use believes it."""
    return Webhook(secret).verify(request.body, dict(request.headers))


def ids(requests: Sequence[Received]) -> list[str]:
    return [request.headers["webhook-id"] for request in requests]


def as_sent(request: Received) -> Any:
    return json.loads(request.body)
