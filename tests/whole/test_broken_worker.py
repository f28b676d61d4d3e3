"""A worker whose consumer broke for good while a task of it is stuck: it must end, to be started again."""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

from tests.support.running_stack import broker_process
from tests.whole.conftest import wait_for

BROKEN = """
    import pathlib, sys, time
    from celery.worker.consumer import Consumer
    import worker.celery

    def trip(*_):  # what kombu does by itself, once in a while
        raise AttributeError("'NoneType' object has no attribute 'hostname'")

    def stuck():
        pathlib.Path(sys.argv[1]).touch()
        time.sleep(600)

    Consumer.on_connection_error_after_connected = trip
    worker.celery.END_WITHIN = 2.0
    worker.celery.app.task(name="stuck")(stuck)
    worker.celery.app.send_task("stuck", queue="tick")
    worker.celery.app.worker_main(["worker", "-Q", "tick", "-c", "1", "--without-gossip", "--without-mingle"])
"""


def test_broken_worker_ends(tmp_path: Path, clean_environment: None) -> None:
    """Redis dies, Celery calls it unrecoverable, and its stop waits for a task that never ends: not for ever."""
    begun = tmp_path / "begun"
    with broker_process() as (url, broker):
        variables = {**os.environ, "REDIS_URL": url}
        command = [sys.executable, "-c", dedent(BROKEN), str(begun)]
        with subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as worker:
            try:
                wait_for(begun.exists, "the worker does not begin")
                broker.kill()
                assert worker.wait(60) == 1
            finally:
                broker.kill()
                worker.kill()
