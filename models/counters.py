"""What is kept beside every change of a row, so that nobody who looks has to count: counters per batch, per kind of
error and per effect of a callback, and what a batch with a `max_cost` has committed.

A count over a batch costs more with every edit it has. So the triggers here add each statement's difference in the
same transaction, whichever arrow it was; the view `audit` holds them against the rows.

A batch has as many rows as there were ever transactions that changed it at one time (`counter_statements.py`), and one
again once it is finished (`transitions/fold_counters.py`). No foreign key leads from here to a batch: its check would
wait for whoever holds the batch's row, and they for the edits that we hold.

Triggers are repeatable, like the views: `migrations/env.py` drops them before a migration and creates them after.
"""

from dataclasses import dataclass

from sqlalchemy import Connection

from models import day_counters, moments
from models.counter_statements import (
    ALWAYS,
    SOURCE,
    UNFOLD,
    Addition,
    Counting,
    add_to_counters,
    any_changed,
    has_changed,
    sum_again,
    sum_signed,
)
from models.day_counters import (
    IMAGES_BY_DAY,
    MONEY,
    MONEY_CHANGED,
    SUBMISSIONS_BY_DAY,
    WASTED,
    WASTED_OF_GROUP,
    WASTED_PARTS,
)
from models.statements import fill
from models.states import EditState, Outcome

EDIT_COUNTERS: dict[str, str] = {
    **{str(state): f"(r.state = '{state}')::int" for state in EditState},
    # not so an edit whose input was refused before its first POST: it failed
    "skipped": "(r.state = 'failed' AND r.attempt = 0"
    " AND r.errors -> -1 ->> 'type' IS NOT DISTINCT FROM 'invalid_input')::int",
}
"""What a row `r` of `edits` adds to each counter of its batch."""
SUBMISSION_COUNTERS: dict[str, str] = {
    "submissions": "1",
    "in_flight": "(r.outcome IS NULL)::int",
    "unknown": f"(r.outcome IS NOT DISTINCT FROM '{Outcome.UNKNOWN}')::int",
    "doubled": "r.doubled::int",
    "cost": "coalesce(r.cost, 0)",
    "committed": "r.committed",
    "images_returned": "coalesce(r.images_returned, 0)",
    **{name: amount for name, amount in MONEY.items() if name != "paid"},  # that is `cost`
}
"""The same of `submissions`."""
MONEY_OF_EDIT = {"wasted": WASTED}
"""What a row `r` of `submissions` with its edit `e` adds."""
IMAGE_COUNTERS: dict[str, str] = {
    **{f"images_{state}": f"(r.state = '{state}')::int" for state in ("waiting", "stored", "failed", "discarded")},
    "bytes_stored": "CASE r.state WHEN 'stored' THEN r.stored_bytes ELSE 0 END",
}
"""The same of `images`."""
BATCH_COUNTERS = {**EDIT_COUNTERS, **SUBMISSION_COUNTERS, **MONEY_OF_EDIT, **IMAGE_COUNTERS}
MOMENTS = ("first_stored_at", "last_stored_at", "ended_at")
"""Of a batch's images, and the last end of an edit: what is taken back later does not move them back."""
RATE_OVER = 120
"""Seconds over which an end counts for less and less, by a factor of e, in what a batch does at present."""
FADED = "{ended} * exp(-least(50, greatest(0, extract(epoch FROM {now} - {ended_at}) / {over})))"
"""SQL: what is left of `ended` at `now`. Each row's share fades by itself, so that their sum is the batch's."""

ERROR_TYPE = "coalesce(left(r.errors -> -1 ->> 'type', 200), '')"
"""SQL: the type of an edit's latest error, as far as an index takes it: the provider may name any."""


@dataclass(frozen=True)
class Counted:
    """A table whose changes are counted."""

    columns: str
    """Those that a counter reads."""
    countings: tuple[Counting, ...]
    """What its triggers run."""


_ENDED_LATELY = fill(
    "CASE WHEN c.ended_at IS NULL THEN k.ended_lately ELSE c.ended_lately + {faded} END",
    faded=fill(FADED, ended="k.ended_lately", ended_at="k.ended_at", now="c.ended_at", over=str(RATE_OVER)),
)
# a faulty line that was skipped was never tried, and says nothing of how fast the others are
EDITS = Addition(
    "batch_counters",
    ("batch_id",),
    tuple(EDIT_COUNTERS),
    fill(
        """
        SELECT d.*, CASE WHEN d.stored + d.failed + d.cancelled > 0 THEN now() END AS ended_at,
               greatest(0, d.stored + d.failed - d.skipped)::float8 AS ended_lately
        FROM (SELECT r.batch_id, {added} FROM {source} r GROUP BY r.batch_id) d WHERE {any}
        """,
        added=sum_signed(EDIT_COUNTERS),
        any=any_changed(EDIT_COUNTERS),
        source=SOURCE,
    ),
    {"ended_at": "greatest(k.ended_at, c.ended_at)", "ended_lately": _ENDED_LATELY},
    UNFOLD,
)
ERRORS = Addition(
    "error_counters",
    ("batch_id", "type"),
    ("edits", "failed"),
    fill(
        """
        SELECT * FROM (
            SELECT r.batch_id, {type} AS type, sum(r.sign) AS edits,
                   sum(r.sign * (r.state = 'failed')::int) AS failed,
                   max(left(r.errors -> -1 ->> 'message', 500)) FILTER (WHERE r.sign = 1) AS example
            FROM {source} r WHERE r.state <> 'stored' AND r.errors <> '[]' GROUP BY r.batch_id, {type}
        ) d WHERE {any}
        """,
        type=ERROR_TYPE,
        any=any_changed(("edits", "failed")),
        source=SOURCE,
    ),
    {"example": "coalesce(c.example, k.example)"},
)
SUBMISSIONS = Addition(
    "batch_counters",
    ("batch_id",),
    (*SUBMISSION_COUNTERS, *MONEY_OF_EDIT),
    fill(
        """
        SELECT e.batch_id, {summed}, {wasted}
        FROM (SELECT r.edit_id, {added} FROM {source} r GROUP BY r.edit_id) d
        JOIN edits e ON e.id = d.edit_id WHERE {any} GROUP BY e.batch_id
        """,
        summed=sum_again(SUBMISSION_COUNTERS),
        wasted=WASTED_OF_GROUP,
        added=sum_signed({**SUBMISSION_COUNTERS, **WASTED_PARTS}),
        any=any_changed((*SUBMISSION_COUNTERS, *WASTED_PARTS)),
        source=SOURCE,
    ),
    also=UNFOLD,
)
# the rows of `spending` are locked in order of batch: a claim holds one that it has read (models/claims.py)
_SPEND = """
    limited AS MATERIALIZED (
        SELECT s.batch_id, c.committed FROM spending s JOIN batch_counters_change c USING (batch_id)
        WHERE c.committed <> 0 ORDER BY s.batch_id FOR UPDATE OF s
    ), spent AS (
        UPDATE spending s SET committed = s.committed + l.committed FROM limited l WHERE s.batch_id = l.batch_id
    )
"""
IMAGES = Addition(
    "batch_counters",
    ("batch_id",),
    tuple(IMAGE_COUNTERS),
    fill(
        """
        SELECT e.batch_id, {summed},
               min(d.first_stored_at) AS first_stored_at, max(d.last_stored_at) AS last_stored_at
        FROM (
            SELECT r.submission_id, {added},
                   min(r.stored_at) FILTER (WHERE r.sign = 1 AND r.state = 'stored') AS first_stored_at,
                   max(r.stored_at) FILTER (WHERE r.sign = 1 AND r.state = 'stored') AS last_stored_at
            FROM {source} r GROUP BY r.submission_id
        ) d JOIN submissions s ON s.id = d.submission_id JOIN edits e ON e.id = s.edit_id
        WHERE {any} GROUP BY e.batch_id
        """,
        summed=sum_again(IMAGE_COUNTERS),
        added=sum_signed(IMAGE_COUNTERS),
        any=any_changed(IMAGE_COUNTERS),
        source=SOURCE,
    ),
    {
        "first_stored_at": "least(k.first_stored_at, c.first_stored_at)",
        "last_stored_at": "greatest(k.last_stored_at, c.last_stored_at)",
    },
    UNFOLD,
)
CALLBACKS = Addition(
    "callback_counters",
    ("hour", "effect"),
    ("callbacks",),
    fill(
        """
        SELECT * FROM (
            SELECT {hour} AS hour, r.effect, sum(r.sign) AS callbacks FROM {source} r GROUP BY 1, 2
        ) d WHERE {any}
        """,
        hour=fill(moments.HOUR, at="r.received_at"),
        any=any_changed(("callbacks",)),
        source=SOURCE,
    ),
)
_ERRONEOUS = "{row}.errors <> '[]'"
_GOT = "o.{time} IS NULL AND n.{time} IS NOT NULL"
_ANSWERED = " OR ".join(fill(_GOT, time=time) for time in ("accepted_at", "completed_at"))
_OF_EDITS = (
    Counting(add_to_counters(EDITS, moments.EDITS_BY_MINUTE), after_update=None),
    Counting(add_to_counters(EDITS), after_insert=None, after_update=has_changed("state", "attempt")),
    Counting(
        add_to_counters(ERRORS),
        after_insert=fill(_ERRONEOUS, row="n"),
        after_update=f"{fill(_ERRONEOUS, row='n')} OR {fill(_ERRONEOUS, row='o')}",
    ),
    day_counters.OF_EDITS,
    Counting(add_to_counters(moments.EDITS_BY_HOUR), "n.finished_at IS NOT NULL", after_update=None),
    Counting(
        add_to_counters(moments.EDITS_BY_MINUTE, moments.EDITS_BY_HOUR),
        after_insert=None,
        after_update=fill(_GOT, time="finished_at"),
    ),
)
_MOMENTS_OF_SUBMISSIONS = (moments.SUBMISSIONS_BY_MINUTE, moments.SUBMISSIONS_BY_HOUR)
_OF_SUBMISSIONS = (
    Counting(
        add_to_counters(SUBMISSIONS, SUBMISSIONS_BY_DAY, *_MOMENTS_OF_SUBMISSIONS, beside=_SPEND), after_update=None
    ),
    Counting(
        add_to_counters(SUBMISSIONS, SUBMISSIONS_BY_DAY, beside=_SPEND),
        after_insert=None,
        after_update=f"{MONEY_CHANGED} OR {has_changed('images_returned')}",
    ),
    Counting(add_to_counters(*_MOMENTS_OF_SUBMISSIONS), after_insert=None, after_update=_ANSWERED),
)
_OF_IMAGES = (
    Counting(add_to_counters(IMAGES), after_update=has_changed("state", "stored_bytes")),
    Counting(
        add_to_counters(IMAGES_BY_DAY, moments.IMAGES_BY_MINUTE, moments.IMAGES_BY_HOUR),
        after_insert="n.stored_at IS NOT NULL",
        after_update="coalesce(n.stored_at, o.stored_at) IS NOT NULL",
    ),
)
COUNTED = {
    "edits": Counted("id, batch_id, state, attempt, errors, created_at, finished_at", _OF_EDITS),
    "submissions": Counted(
        "id, edit_id, attempt, outcome, error_type, learned_by, doubled, may_be_charged, reserved, cost, committed, "
        "images_returned, posted_at, accepted_at, completed_at",
        _OF_SUBMISSIONS,
    ),
    "images": Counted("submission_id, state, stored_bytes, stored_at", _OF_IMAGES),
    "callbacks": Counted("effect, received_at", (Counting(add_to_counters(CALLBACKS)),)),
}
CHANGES = {
    "insert": (
        "NEW TABLE AS new_rows",
        "(SELECT 1 AS sign, {columns} FROM new_rows)",
        "new_rows n",
    ),
    "update": (
        "NEW TABLE AS new_rows OLD TABLE AS old_rows",
        "(SELECT 1 AS sign, {columns} FROM new_rows UNION ALL SELECT -1, {columns} FROM old_rows)",
        "new_rows n FULL JOIN old_rows o USING (id)",
    ),
}
"""What a trigger is told; what it counts: the rows as they are, and with the sign -1 as they were before; and in what
it looks for the changes that are worth it. FULL, though each row has its twin: such a join is never made by reading the
one for each row of the other, as a plan would have it that was made, and is kept, for a statement that changed one."""
_FUNCTION = """
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE worth boolean[]; BEGIN {look} {statements} RETURN NULL; END $$
"""
_LOOK = "SELECT ARRAY[{conditions}] INTO worth FROM {rows};"
_IF = "IF worth[{number}] THEN {statement}; END IF;"
_TRIGGER = """
CREATE TRIGGER {name} AFTER {change} ON {table} REFERENCING {rows} FOR EACH STATEMENT EXECUTE FUNCTION {name}()
"""


def drop_triggers(connection: Connection) -> None:
    """Drop them, so that the tables beneath may change."""
    functions = [f"count_{table}_{change}" for table in COUNTED for change in CHANGES]
    for function in (*functions, "note_spending"):  # the last is of the releases before 0008
        connection.exec_driver_sql(f"DROP FUNCTION IF EXISTS {function} CASCADE")


def create_triggers(connection: Connection) -> None:
    """Create them as declared here."""
    for table, counted in COUNTED.items():
        for change, (rows, source, looked_at) in CHANGES.items():
            name = f"count_{table}_{change}"
            body = _write_body(counted, change, fill(source, columns=counted.columns), looked_at)
            connection.exec_driver_sql(fill(_FUNCTION, name=name, **body))
            connection.exec_driver_sql(fill(_TRIGGER, name=name, change=change, table=table, rows=rows))


def _write_body(counted: Counted, change: str, source: str, looked_at: str) -> dict[str, str]:
    """What the function of a trigger says: one look at all conditions, and then the statements that are worth it."""
    conditions: list[str] = []
    statements = []
    for counting in counted.countings:
        condition = counting.after_insert if change == "insert" else counting.after_update
        if condition is None:
            continue
        statement = fill(counting.statement, source=source, since="now()")
        if condition == ALWAYS:
            statements.append(f"{statement};")
        else:
            conditions.append(f"bool_or({condition})")
            statements.append(fill(_IF, number=str(len(conditions)), statement=statement))
    look = fill(_LOOK, conditions=", ".join(conditions), rows=looked_at) if conditions else ""
    return {"look": look, "statements": " ".join(statements)}
