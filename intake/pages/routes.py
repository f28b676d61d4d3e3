"""What people look at: the batches, one batch, one edit, and the system."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from flask import Response, request
from sqlalchemy import Connection, RowMapping

from core.errors import NotFound
from intake.cursors import read_cursor, write_cursor
from intake.pages.actions import offered_actions
from intake.pages.context import find_batch, page, read, render, viewer
from intake.pages.plots import draw_curve, draw_minutes, measure_stages, pick_positions
from models.pauses import list_pauses
from models.progress_health import find_stalled
from models.queries.batches import ERRORS_BY_TYPE, LAST_NOTIFICATION, UNANSWERED_BY_REASON
from models.queries.edits import TIMELINE_OF_EDIT
from models.queries.health import ACCOUNTS, OVERDUE_BY_STATE
from models.queries.overview import IN_FLIGHT, LANES, LATENCY_LATELY
from models.queries.page import (
    BATCH_LIST,
    CALLBACKS_OF_EDIT,
    EDIT,
    EDITS_OF_BATCH,
    IMAGES_OF_EDIT,
    LAST_LOOKED,
    MINUTES_OF_AN_HOUR,
    MONEY_BY_CLIENT,
    MONEY_OF_BATCH,
    SAMPLE_OF_BATCH,
    SUBMISSIONS_OF_EDIT,
)
from models.statements import Statement
from models.states import EditState
from models.views.progress import INPUTS_COUNTED

BATCHES, EDITS, ERRORS, EVENTS = 25, 24, 20, 500
"""Rows of a page."""
LOOKED_BATCHES = LOOKED_EDITS = 20_000
"""Rows that are looked through for one page of some state, name or client; then it ends, and the next goes on."""
STATES = ("running", "paused", "finished", "cancelled")


@page.get("/")
def batches() -> Response:
    """The batches, newest first."""
    return render("batches.html", states=STATES, **read(_batches))


def _batches(connection: Connection) -> dict[str, Any]:
    before, batch_id = read_cursor(request.args.get("cursor"))
    state = request.args.get("state")
    parameters = {
        "client": viewer().sees,
        "state": state if state in STATES else None,
        "name": request.args.get("name", "")[:200].replace("\0", "") or None,
        "before": before,
        "batch": batch_id,
        "limit": BATCHES + 1,
        "looked": LOOKED_BATCHES,
    }
    rows = connection.exec_driver_sql(BATCH_LIST, parameters).mappings().all()
    shown = rows[:BATCHES]
    ends: Sequence[Any] = [(row["created_at"], row["batch_id"]) for row in rows[BATCHES - 1 :]]
    if len(rows) <= BATCHES:
        ends = connection.exec_driver_sql(LAST_LOOKED, parameters).all()
    return {"batches": shown, "wanted": parameters, "next_cursor": write_cursor(*ends[0]) if len(ends) > 1 else None}


@page.get("/batches/<uuid:batch_id>")
def batch(batch_id: UUID) -> Response:
    """One batch: how far it is, what went wrong, how fast it goes, what it costs, and its images."""
    found = read(lambda connection: _batch(connection, batch_id))
    return render("batch.html", edit_states=list(EditState), inputs_counted=INPUTS_COUNTED, **found)


def _batch(connection: Connection, batch_id: UUID) -> dict[str, Any]:
    row = find_batch(connection, batch_id)
    positions = pick_positions(row["edits"])
    sample = connection.exec_driver_sql(SAMPLE_OF_BATCH, {"batch": batch_id, "positions": positions}).all()
    found = _edits(connection, batch_id, row["edits"])
    return {
        **found,
        "batch": row,
        "money": connection.exec_driver_sql(MONEY_OF_BATCH, (batch_id,)).mappings().one(),
        "errors": connection.exec_driver_sql(ERRORS_BY_TYPE, (batch_id, ERRORS)).mappings().all(),
        "unanswered": connection.exec_driver_sql(UNANSWERED_BY_REASON, (batch_id, ERRORS)).mappings().all(),
        "notification": connection.exec_driver_sql(LAST_NOTIFICATION, (batch_id,)).mappings().first(),
        "curve": draw_curve(sample, row["edits"], datetime.now(UTC)),
        "stages": measure_stages(sample),
        "sampled": len(sample),
        "actions": offered_actions(dict(row)),
    }


def _edits(connection: Connection, batch_id: UUID, edits: int) -> dict[str, Any]:
    """One page of its edits, of one state or one type of error where the address asks for it."""
    number, state = request.args.get("after", ""), request.args.get("state")
    after = int(number) if number.isdecimal() and len(number) < 10 else -1
    parameters: dict[str, Any] = {
        "batch": batch_id,
        "after": after,
        "state": state if state in set(EditState) else None,
        "error_type": request.args.get("error", "").replace("\0", "") or None,
        "until": after + LOOKED_EDITS,
        "limit": EDITS + 1,
    }
    rows = connection.exec_driver_sql(EDITS_OF_BATCH, parameters).mappings().all()
    looked_to = rows[EDITS - 1]["position"] if len(rows) > EDITS else parameters["until"]
    next_after = looked_to if looked_to < edits - 1 else None
    return {"edits": rows[:EDITS], "wanted": parameters, "looked": LOOKED_EDITS, "next_after": next_after}


@page.get("/batches/<uuid:batch_id>/edits/<int:position>")
def edit(batch_id: UUID, position: int) -> Response:
    """One edit: what was parameters, what came, and everything that happened in between."""
    return render("edit.html", **read(lambda connection: _edit(connection, batch_id, position)))


def _edit(connection: Connection, batch_id: UUID, position: int) -> dict[str, Any]:
    row = find_batch(connection, batch_id)
    found = None
    if position < row["edits"]:
        found = connection.exec_driver_sql(EDIT, (batch_id, position)).mappings().first()
    if found is None:
        raise NotFound(f"Batch {batch_id} has no edit {position}.")
    parts = {"submissions": SUBMISSIONS_OF_EDIT, "callbacks": CALLBACKS_OF_EDIT, "images": IMAGES_OF_EDIT}
    rows = {name: connection.exec_driver_sql(part, (found["id"],)).mappings().all() for name, part in parts.items()}
    rows["timeline"] = connection.exec_driver_sql(TIMELINE_OF_EDIT, (found["id"], EVENTS)).mappings().all()
    return {"batch": row, "edit": found, **rows}


@page.get("/system")
def system() -> Response:
    """Whether all is well, as far as the database knows."""
    return render("system.html", **read(_system))


def _system(connection: Connection) -> dict[str, Any]:
    def ask(question: Statement, *values: object) -> Sequence[RowMapping]:
        return connection.exec_driver_sql(question, values or None).mappings().all()

    accounts = ask(ACCOUNTS)
    return {
        "lanes": ask(LANES),
        "in_flight": ask(IN_FLIGHT),
        "latency": ask(LATENCY_LATELY, 2),
        "costs": ask(MONEY_BY_CLIENT),
        "accounts": accounts,
        "unexplained": [account for account in accounts if account["difference"]],
        "overdue": ask(OVERDUE_BY_STATE),
        "pauses": list_pauses(connection),
        "stalled": find_stalled(connection),
        "minutes": draw_minutes(ask(MINUTES_OF_AN_HOUR)),
    }
