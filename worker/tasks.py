"""The tasks: five to ten lines each, no payload but for the one through which other services hand in batches."""

from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any, BinaryIO

from core.errors import UserError
from intake.celery_batch import create_from_document
from worker import dependencies, price_refresh, unknown_submits
from worker.celery import app
from worker.crash_points import crash_point
from worker.lanes import download, notify, poll, settle, submit

MANIFEST_MAX_BYTES = 2**30
"""Of a manifest in storage; some millions of edits."""


@app.task(name="darkroom.submit")  # type: ignore[untyped-decorator]
def submit_lane() -> None:
    """Submit until nothing may be submitted."""
    submit.run(dependencies.engine(), dependencies.queue(), dependencies.settings(), dependencies.time_slice())


@app.task(name="darkroom.poll")  # type: ignore[untyped-decorator]
def poll_lane() -> None:
    """Ask until nobody is due; then settle what became of submits that nobody heard of."""
    poll.run(
        dependencies.engine(),
        dependencies.queue(),
        dependencies.listing(),
        dependencies.settings(),
        dependencies.time_slice(),
    )
    unknown_submits.run(dependencies.engine(), dependencies.listing(), dependencies.settings())


@app.task(name="darkroom.download")  # type: ignore[untyped-decorator]
def download_lane() -> None:
    """Store until no image is due."""
    download.run(
        dependencies.engine(),
        dependencies.fetcher(),
        dependencies.storage,
        dependencies.settings(),
        dependencies.time_slice(),
    )


@app.task(name="darkroom.settle")  # type: ignore[untyped-decorator]
def settle_lane() -> None:
    """Hold batches to their limits and finish those that can be finished; now and then, read the price."""
    price_refresh.refresh(dependencies.engine(), dependencies.pricing(), dependencies.settings())
    settle.run(dependencies.engine(), dependencies.settings(), dependencies.time_slice())


@app.task(name="darkroom.notify")  # type: ignore[untyped-decorator]
def notify_lane() -> None:
    """Tell callers until nobody is owed a message."""
    notify.run(dependencies.engine(), dependencies.sender(), dependencies.settings(), dependencies.time_slice())


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

    def manifest(key: str) -> AbstractContextManager[BinaryIO]:
        # opened only by who needs it: a store in trouble refuses no batch that holds its edits itself
        return dependencies.storage().get(key, max_bytes=MANIFEST_MAX_BYTES)

    with dependencies.engine().begin() as connection:
        created = create_from_document(connection, document, manifest, message_id=self.request.id)
    crash_point("after_create", dependencies.settings())
    return {**asdict(created), "batch_id": str(created.batch_id)}
