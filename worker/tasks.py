"""The Celery tasks: one for each lane, without a payload, and the one through which other services hand in batches."""

from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any, BinaryIO

from core.errors import DownloadError, UserError
from worker.celery import app
from worker.crash_points import crash_point
from worker.dependencies import Dependencies, may_continue
from worker.heartbeat import beat
from worker.lane import load_lane
from worker.lanes import LANES, UPKEEP
from worker.turns import Turns

MANIFEST_MAX_BYTES = 2**30
"""Of a manifest in storage; some millions of edits."""


dependencies = Dependencies()


def add_lane(name: str) -> None:
    """Make a turn of a lane the task `darkroom.NAME`; `worker/celery.py` routes it to the lane's queue.

    Only a worker that serves a lane imports it, at its first turn: Pillow and the store's client are large.
    """
    turns = Turns(LANES[name].turns_at_once) if name in UPKEEP else None

    @app.task(name=f"darkroom.{name}")  # type: ignore[untyped-decorator]  # celery has no types
    def run_turn() -> None:
        if turns:
            turns.run(take_turn)
        else:
            take_turn()

    def take_turn() -> None:
        if not may_continue():  # a turn that waited, perhaps for minutes
            return
        places = dependencies.settings.max_in_flight if name == "submit" else None
        beat(dependencies.engine, name, places=places)
        done = load_lane(name)(dependencies).take_turn(may_continue)
        beat(dependencies.engine, name, worked=done > 0)


for _name in LANES:
    add_lane(_name)


@app.task(  # type: ignore[untyped-decorator]
    name="darkroom.create_batch",
    bind=True,
    acks_late=True,
    reject_on_worker_lost=True,
    ignore_result=False,
    throws=(UserError,),
)
def create_batch(self: Any, document: dict[str, Any]) -> dict[str, Any]:
    """Another service's batch.

    The broker delivers the message again until it is acknowledged: when the worker dies after its commit, or after the
    visibility timeout. Without an `idempotency_key` the task's id is the key, so that each answers the same batch.

    Takes `{"name": …, "idempotency_key": …, "edits": [{"prompt": …, "image_urls": […]}, …]}`, or `manifest` in the
    place of `edits`: the key or URL of a JSONL or CSV file in the store. Answers `{"batch_id": …, "edits": N,
    "skipped": N, "existing": …, "warnings": […]}`; what is wrong with it is raised as one error that names every line.
    """
    from intake.celery_batch import create_from_document  # as a lane is: only where batches come in

    def manifest(key: str) -> AbstractContextManager[BinaryIO]:
        # opened only by who needs it: a store in trouble refuses no batch that holds its edits itself
        return dependencies.storage.get(key, max_bytes=MANIFEST_MAX_BYTES)

    try:
        with dependencies.engine.begin() as connection:
            created = create_from_document(connection, document, manifest, message_id=self.request.id)
    except DownloadError as error:
        raise UserError(f"The manifest cannot be read: {error.message}") from None
    crash_point("after_create", dependencies.settings)
    return {**asdict(created), "batch_id": str(created.batch_id)}
