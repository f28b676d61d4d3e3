"""What is kept beside every change of a row, so that nobody who looks has to count: counters per batch, per kind of
error and per effect of a callback, and what a batch with a `max_cost` has committed.

A count over a batch costs more with every edit it has. So the triggers here add each statement's difference in the
same transaction, whichever arrow it was; the view `audit` holds them against the rows.

A counter has several rows, and its value is their sum. A transaction takes any row that nobody holds, and adds one
where all are held: writers never wait for each other here, and so never for each other in a ring. A batch has as many
rows as there were ever transactions that changed it at one time. No foreign key leads from here to a batch: its check
would wait for whoever holds the batch's row, and they for the edits that we hold.

Triggers are repeatable, like the views: `migrations/env.py` drops them before a migration and creates them after.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from models.statements import fill
from models.states import EditState, Outcome

EDIT_COUNTERS: dict[str, str] = {
    **{str(state): f"(r.state = '{state}')::int" for state in EditState},
    "skipped": "(r.state = 'failed' AND r.attempt = 0)::int",
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
}
"""The same of `submissions`."""
IMAGE_COUNTERS: dict[str, str] = {
    **{f"images_{state}": f"(r.state = '{state}')::int" for state in ("waiting", "stored", "failed", "discarded")},
    "bytes_stored": "CASE r.state WHEN 'stored' THEN r.stored_bytes ELSE 0 END",
}
"""The same of `images`."""
BATCH_COUNTERS = {**EDIT_COUNTERS, **SUBMISSION_COUNTERS, **IMAGE_COUNTERS}
MOMENTS = ("first_stored_at", "last_stored_at")
"""Of a batch's images: an image that is discarded later does not move them back."""

ERROR_TYPE = "coalesce(left(r.errors -> -1 ->> 'type', 200), '')"
"""SQL: the type of an edit's latest error, as far as an index takes it: the provider may name any."""


@dataclass(frozen=True)
class Counted:
    """A table whose changes are counted."""

    columns: str
    """Those that a counter reads."""
    statements: tuple[str, ...]
    """What its triggers run; `{source}` is what the statement changed, with a `sign`."""


def _added(counters: Mapping[str, str]) -> str:
    return ", ".join(f"sum(r.sign * {amount}) AS {name}" for name, amount in counters.items())


def _summed(counters: Iterable[str]) -> str:
    return ", ".join(f"sum(d.{name}) AS {name}" for name in counters)


def _any(counters: Iterable[str]) -> str:
    return " OR ".join(f"d.{name} <> 0" for name in counters)


# `k` is a row of the counters, `c` what is to be added; `id` is NULL where every row is held
_RECORD = """
    chosen AS MATERIALIZED (
        SELECT c.*, k.id FROM change c LEFT JOIN LATERAL (
            SELECT k.id FROM {table} k WHERE {same} ORDER BY k.id LIMIT 1 FOR UPDATE SKIP LOCKED
        ) k ON true
    ), added AS (
        UPDATE {table} k SET {sets} FROM chosen c WHERE k.id = c.id
    )
    INSERT INTO {table} ({columns}) SELECT {columns} FROM chosen WHERE id IS NULL
"""


def _sql_add_to_counters(table: str, keys: Sequence[str], counters: Iterable[str], **others: str) -> str:
    """SQL: add the rows of `change` to that table's counters, for each of them to a row that nobody holds.

    `others`: columns that are no sums, with what becomes of them.
    """
    sets = [f"{name} = k.{name} + c.{name}" for name in counters]
    return fill(
        _RECORD,
        table=table,
        same=" AND ".join(f"k.{key} = c.{key}" for key in keys),
        sets=", ".join([*sets, *(f"{name} = {value}" for name, value in others.items())]),
        columns=", ".join([*keys, *counters, *others]),
    )


# in a second step filled by `_function`, with what the statement changed
_SOURCE = "{source}"
EDITS = fill(
    """
    WITH change AS MATERIALIZED (
        SELECT * FROM (SELECT r.batch_id, {added} FROM {source} r GROUP BY r.batch_id) d WHERE {any}
    ), {record}
    """,
    added=_added(EDIT_COUNTERS),
    any=_any(EDIT_COUNTERS),
    record=_sql_add_to_counters("batch_counters", ("batch_id",), EDIT_COUNTERS),
    source=_SOURCE,
)
ERRORS = fill(
    """
    WITH change AS MATERIALIZED (
        SELECT * FROM (
            SELECT r.batch_id, {type} AS type, sum(r.sign) AS edits,
                   sum(r.sign * (r.state = 'failed')::int) AS failed,
                   max(left(r.errors -> -1 ->> 'message', 500)) FILTER (WHERE r.sign = 1) AS example
            FROM {source} r WHERE r.state <> 'stored' AND r.errors <> '[]' GROUP BY r.batch_id, {type}
        ) d WHERE {any}
    ), {record}
    """,
    type=ERROR_TYPE,
    any=_any(("edits", "failed")),
    record=_sql_add_to_counters(
        "error_counters", ("batch_id", "type"), ("edits", "failed"), example="coalesce(c.example, k.example)"
    ),
    source=_SOURCE,
)
# the rows of `spending` are locked in order of batch: a claim holds one that it has read (models/claims.py)
SUBMISSIONS = fill(
    """
    WITH change AS MATERIALIZED (
        SELECT e.batch_id, {summed}
        FROM (SELECT r.edit_id, {added} FROM {source} r GROUP BY r.edit_id) d
        JOIN edits e ON e.id = d.edit_id WHERE {any} GROUP BY e.batch_id
    ), limited AS MATERIALIZED (
        SELECT s.batch_id, c.committed FROM spending s JOIN change c USING (batch_id)
        WHERE c.committed <> 0 ORDER BY s.batch_id FOR UPDATE OF s
    ), spent AS (
        UPDATE spending s SET committed = s.committed + l.committed FROM limited l WHERE s.batch_id = l.batch_id
    ), {record}
    """,
    summed=_summed(SUBMISSION_COUNTERS),
    added=_added(SUBMISSION_COUNTERS),
    any=_any(SUBMISSION_COUNTERS),
    record=_sql_add_to_counters("batch_counters", ("batch_id",), SUBMISSION_COUNTERS),
    source=_SOURCE,
)
IMAGES = fill(
    """
    WITH change AS MATERIALIZED (
        SELECT e.batch_id, {summed},
               min(d.first_stored_at) AS first_stored_at, max(d.last_stored_at) AS last_stored_at
        FROM (
            SELECT r.submission_id, {added},
                   min(r.stored_at) FILTER (WHERE r.sign = 1 AND r.state = 'stored') AS first_stored_at,
                   max(r.stored_at) FILTER (WHERE r.sign = 1 AND r.state = 'stored') AS last_stored_at
            FROM {source} r GROUP BY r.submission_id
        ) d JOIN submissions s ON s.id = d.submission_id JOIN edits e ON e.id = s.edit_id
        WHERE {any} GROUP BY e.batch_id
    ), {record}
    """,
    summed=_summed(IMAGE_COUNTERS),
    added=_added(IMAGE_COUNTERS),
    any=_any(IMAGE_COUNTERS),
    record=_sql_add_to_counters(
        "batch_counters",
        ("batch_id",),
        IMAGE_COUNTERS,
        first_stored_at="least(k.first_stored_at, c.first_stored_at)",
        last_stored_at="greatest(k.last_stored_at, c.last_stored_at)",
    ),
    source=_SOURCE,
)
CALLBACKS = fill(
    """
    WITH change AS MATERIALIZED (
        SELECT * FROM (SELECT r.effect, sum(r.sign) AS callbacks FROM {source} r GROUP BY r.effect) d WHERE {any}
    ), {record}
    """,
    any=_any(("callbacks",)),
    record=_sql_add_to_counters("callback_counters", ("effect",), ("callbacks",)),
    source=_SOURCE,
)
COUNTED = {
    "edits": Counted("batch_id, state, attempt, errors", (EDITS, ERRORS)),
    "submissions": Counted("edit_id, outcome, doubled, cost, committed, images_returned", (SUBMISSIONS,)),
    "images": Counted("submission_id, state, stored_bytes, stored_at", (IMAGES,)),
    "callbacks": Counted("effect", (CALLBACKS,)),
}
CHANGES = {
    "insert": ("NEW TABLE AS new_rows", "(SELECT 1 AS sign, {columns} FROM new_rows)"),
    "update": (
        "NEW TABLE AS new_rows OLD TABLE AS old_rows",
        "(SELECT 1 AS sign, {columns} FROM new_rows UNION ALL SELECT -1, {columns} FROM old_rows)",
    ),
}
"""What a trigger is told, and what it counts: the rows as they are, and with the sign -1 as they were before."""
_FUNCTION = """
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {statements} RETURN NULL; END $$
"""
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
        for change, (rows, source) in CHANGES.items():
            name, changed = f"count_{table}_{change}", fill(source, columns=counted.columns)
            statements = "".join(f"{fill(statement, source=changed)};" for statement in counted.statements)
            connection.exec_driver_sql(fill(_FUNCTION, name=name, statements=statements))
            connection.exec_driver_sql(fill(_TRIGGER, name=name, change=change, table=table, rows=rows))
