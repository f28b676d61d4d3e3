"""What happened to an edit or a batch and stands in no other row: written down by triggers, whoever changed it.

The first life of an edit, from `pending` on, can be read from its times and those of its submission. So an arrow is
written down only if it leads back (another attempt, a retry, a late result) or follows one that did. An edit that
simply gets stored has no event at all.

Triggers are repeatable, like the views: `migrations/env.py` drops them before a migration and creates them after.
"""

from sqlalchemy import Connection

from models.statements import fill
from models.states import EDIT_ARROWS, FINAL, EditState

LATE = {(EditState.PENDING, EditState.SUBMITTED), (EditState.PENDING, EditState.READY)}
ONWARD = {
    (was, state)
    for was, state in EDIT_ARROWS
    if state is not EditState.PENDING and was not in FINAL and (was, state) not in LATE
}
"""Arrows of a first life."""

# A join to all events there are would be planned as a pass over them: one look for each row that moved. FULL, and
# OFFSET so that it stays so, because a plan is kept: one made for a statement that moved a single edit would read all
# old rows for each new one, for 700 ms in a set of 2 000.
NOTE_ARROWS = fill(
    """
CREATE FUNCTION note_arrows() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO edit_events (edit_id, was, state, final_since, attempt, program)
    SELECT m.id, m.was, m.state, m.final_since, m.attempt, current_setting('application_name')
    FROM (
        SELECT id, o.state AS was, n.state, o.finished_at AS final_since, n.attempt
        FROM old_rows o FULL JOIN new_rows n USING (id) OFFSET 0
    ) m
    WHERE m.state <> m.was AND (
        (m.was, m.state) NOT IN ({onward})
        OR (SELECT true FROM edit_events v WHERE v.edit_id = m.id LIMIT 1))
    ORDER BY m.id;
    RETURN NULL;
END $$;
CREATE TRIGGER note_arrows AFTER UPDATE ON edits REFERENCING NEW TABLE AS new_rows OLD TABLE AS old_rows
FOR EACH STATEMENT EXECUTE FUNCTION note_arrows()
""",
    onward=", ".join(f"('{was}', '{state}')" for was, state in sorted(ONWARD)),
)
NOTE_BATCH_CHANGES = """
CREATE FUNCTION note_batch_changes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO batch_events (batch_id, what, program)
    SELECT NEW.id, v.what, current_setting('application_name')
    FROM (VALUES
        ('paused', OLD.paused_at IS NULL AND NEW.paused_at IS NOT NULL),
        ('resumed', OLD.paused_at IS NOT NULL AND NEW.paused_at IS NULL),
        ('cancelled', OLD.cancelled_at IS NULL AND NEW.cancelled_at IS NOT NULL),
        ('finished', OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL),
        ('reopened', OLD.finished_at IS NOT NULL AND NEW.finished_at IS NULL)) v (what, happened)
    WHERE v.happened;
    RETURN NULL;
END $$;
CREATE TRIGGER note_batch_changes AFTER UPDATE ON batches FOR EACH ROW
WHEN (OLD.paused_at IS DISTINCT FROM NEW.paused_at OR OLD.cancelled_at IS DISTINCT FROM NEW.cancelled_at
      OR OLD.finished_at IS DISTINCT FROM NEW.finished_at)
EXECUTE FUNCTION note_batch_changes()
"""


def drop_event_triggers(connection: Connection) -> None:
    """Drop them, so that the tables beneath may change."""
    for function in ("note_arrows", "note_batch_changes"):
        connection.exec_driver_sql(f"DROP FUNCTION IF EXISTS {function} CASCADE")


def create_event_triggers(connection: Connection) -> None:
    """Create them as declared here."""
    for statement in (NOTE_ARROWS, NOTE_BATCH_CHANGES):
        connection.exec_driver_sql(statement)
