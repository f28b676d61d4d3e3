"""The Celery application: found by `celery -A worker`, configured in code, fed by `tasks.py`.

Celery executes, it never remembers: lane messages carry no payload and expire within seconds, results are
kept only for the one task that answers a caller.
"""

import os
import threading
from typing import Any

import structlog
from celery import Celery, bootsteps
from celery.signals import setup_logging, worker_init, worker_shutting_down

from core.broker_url import parse_broker_url
from core.errors import SettingsError
from core.logs import configure_logs
from core.settings import TracingSettings, load
from core.tracing import start_tracing
from http_client.sessions import BODY_TIMEOUT, CONNECT_TIMEOUT
from models.database import CONNECT_TIMEOUT as DATABASE_TIMEOUT
from models.database import STATEMENT_TIMEOUT
from provider.queue_api import SUBMIT_TIMEOUT
from worker.dependencies import stopping
from worker.lane_loop import RECORD_AGAIN_FOR, SLICE_SECONDS
from worker.lanes import LANES
from worker.settings import BrokerSettings

END_WITHIN = (
    SLICE_SECONDS
    + CONNECT_TIMEOUT
    + SUBMIT_TIMEOUT
    + BODY_TIMEOUT
    + RECORD_AGAIN_FOR
    + DATABASE_TIMEOUT
    + STATEMENT_TIMEOUT / 1000
)
"""Seconds that a broken worker is given to let its lanes end: the longest a paid POST and its recording may take."""

log = structlog.get_logger()

app = Celery("darkroom", include=["worker.tasks"])


class End(bootsteps.StartStopStep):  # type: ignore[misc]  # celery has no types
    """Ends a broken worker for certain, so that the supervisor starts another.

    What Celery calls unrecoverable (kombu trips over itself when Redis goes away while a message is unacknowledged)
    makes it stop, but its pool may be waited for without end: alive, and taking no message.
    """

    def close(self, worker: Any) -> None:
        """The first step of a stop."""
        if worker.exitcode:
            stopping.set()  # a turn may be long, and nobody else says so
            timer = threading.Timer(END_WITHIN, os._exit, (worker.exitcode,))
            timer.daemon = True
            timer.start()


app.steps["worker"].add(End)


# called when the configuration is first needed, so that importing this file reads no environment
@app.add_defaults  # type: ignore[untyped-decorator]  # celery has no types
def _configuration() -> dict[str, Any]:
    return {
        **parse_broker_url(load(BrokerSettings).redis_url).celery_settings(),
        "result_expires": 3600,
        "task_ignore_result": True,
        "accept_content": ["json"],
        "task_routes": {f"darkroom.{lane}": {"queue": lane} for lane in LANES},
        # a lane waits for others most of its time, and runs threads of its own; a child would be 80 MB each
        "worker_pool": "threads",
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {"socket_timeout": 10, "socket_connect_timeout": 5, "health_check_interval": 10},
    }


@setup_logging.connect  # type: ignore[untyped-decorator]  # celery has no types
def _logs(**_: Any) -> None:
    configure_logs()


@worker_init.connect  # type: ignore[untyped-decorator]
def _trace(**_: Any) -> None:
    try:
        provider = start_tracing("darkroom-worker", load(TracingSettings))
    except SettingsError as error:  # Celery would go on after a traceback; every turn of a lane says the same
        log.error("not_traced", reason=str(error))
        return
    if provider is not None:
        from opentelemetry.instrumentation.celery import CeleryInstrumentor

        # a batch that comes as a message goes on in the trace that its headers name
        CeleryInstrumentor().instrument(tracer_provider=provider)  # type: ignore[no-untyped-call]


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _stop_claiming(**_: Any) -> None:
    stopping.set()
