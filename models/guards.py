"""What the database itself refuses, whatever the program does: a second POST while the first is in flight.

A unique index over the open submissions of an edit would forbid a legal history: a submission that was given up, and
whose request shows itself while the next one is in flight, is open again. But a submission is written down before its
POST, so it is the writing down that is guarded. The trigger looks while the edit's row is locked by the statement that
writes, with a snapshot of its own: it also sees what was committed while that statement waited for the lock.

Triggers are repeatable, like the views: `migrations/env.py` drops them before a migration and creates them after.
"""

from sqlalchemy import Connection

_FUNCTION = """
CREATE FUNCTION refuse_second_post() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM submissions WHERE edit_id = NEW.edit_id AND outcome IS NULL) THEN
        RAISE EXCEPTION USING MESSAGE = 'a submission of edit ' || NEW.edit_id || ' is in flight',
            ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$
"""
_TRIGGER = """
CREATE TRIGGER submissions_one_post BEFORE INSERT ON submissions
FOR EACH ROW WHEN (NEW.outcome IS NULL) EXECUTE FUNCTION refuse_second_post()
"""


def drop_guards(connection: Connection) -> None:
    """Drop them, so that the tables beneath may change."""
    connection.exec_driver_sql("DROP FUNCTION IF EXISTS refuse_second_post CASCADE")


def create_guards(connection: Connection) -> None:
    """Create them as declared here."""
    for statement in (_FUNCTION, _TRIGGER):
        connection.exec_driver_sql(statement)
