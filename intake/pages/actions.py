"""What can be done with a batch on the page: first a question that says what it means, then the deed."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from uuid import UUID

from flask import redirect, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from intake import batch_actions
from intake.pages.context import context, find_batch, page, read, render

Batch = Mapping[str, Any]


class Action(NamedTuple):
    """One of them."""

    title: str
    explain: Callable[[Batch], str]
    """What will happen, in a sentence or two."""
    fits: Callable[[Batch], bool]
    """Whether it makes sense as the batch stands."""
    act: Callable[[Connection, UUID], object]
    careful: bool = False
    """Whether it cannot be undone, or costs."""


def _open(batch: Batch) -> bool:
    return batch["finished_at"] is None and batch["cancelled_at"] is None


def _retriable(batch: Batch) -> int:
    """Failed edits, but for the faulty lines that were skipped: these stay failed."""
    return int(batch["failed"] - batch["skipped"])


ACTIONS: dict[str, Action] = {
    "pause": Action(
        "Pause",
        lambda batch: (
            f"None of its {batch['pending']:,} pending edits is submitted until it is resumed. "
            "What is in flight finishes."
        ),
        lambda batch: _open(batch) and batch["paused_at"] is None,
        batch_actions.pause,
    ),
    "resume": Action(
        "Resume",
        lambda batch: f"Its {batch['pending']:,} pending edits are submitted again, each for money.",
        lambda batch: _open(batch) and batch["paused_at"] is not None,
        batch_actions.resume,
    ),
    "cancel": Action(
        "Cancel the batch",
        lambda batch: (
            f"Its {batch['pending']:,} pending edits end as cancelled, for good. What is in flight may still "
            "finish, and then is paid for and stored."
        ),
        _open,
        batch_actions.cancel,
        careful=True,
    ),
    "retry": Action(
        "Retry what failed",
        lambda batch: (
            f"Its {_retriable(batch):,} failed edits are tried again. Each is a new paid attempt, unless its "
            "images are paid for already; then they are only fetched."
        ),
        lambda batch: _retriable(batch) > 0 and batch["cancelled_at"] is None and batch["pruned_at"] is None,
        lambda connection, batch_id: batch_actions.retry(connection, batch_id),
        careful=True,
    ),
}


def offered_actions(batch: Batch) -> dict[str, Action]:
    """Those that make sense as the batch stands."""
    return {name: action for name, action in ACTIONS.items() if action.fits(batch)}


@page.get("/batches/<uuid:batch_id>/<any(pause, resume, cancel, retry):name>")
def ask(batch_id: UUID, name: str) -> ResponseReturnValue:
    """Ask whether it shall be done."""
    found = read(lambda connection: {"batch": find_batch(connection, batch_id)})
    return render("confirm.html", name=name, action=ACTIONS[name], **found)


@page.post("/batches/<uuid:batch_id>/<any(pause, resume, cancel, retry):name>")
def act(batch_id: UUID, name: str) -> ResponseReturnValue:
    """Do it."""
    with context().engine.begin() as connection:
        find_batch(connection, batch_id)
        ACTIONS[name].act(connection, batch_id)
    return redirect(url_for("page.batch", batch_id=batch_id), 303)
