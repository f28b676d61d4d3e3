"""How Alembic runs our migrations: one at a time, bounded waits, one transaction for the whole climb.

Called in process by `darkroom migrate` (the URL is handed over in `config.attributes["url"]`). Views and triggers
are not migrated: they are dropped before and, at the newest revision, created again from `models/monitoring.py`,
`models/counters.py`, `models/events.py` and `models/guards.py`.
"""

from alembic import context
from alembic.script import ScriptDirectory

from models.counters import create_triggers, drop_triggers
from models.database import make_engine
from models.events import create_event_triggers, drop_event_triggers
from models.guards import create_guards, drop_guards
from models.monitor_role import create_role
from models.monitoring import create_views, drop_views
from models.tables import metadata

MIGRATION_LOCK = 7361
"""Key of the advisory lock under which one migration at a time runs; the second waits, then finds nothing to do."""


def migrate() -> None:
    """Climb (or descend) in one transaction."""
    engine = make_engine(context.config.attributes["url"], application="darkroom migrate", pool_size=1)
    create_role(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL lock_timeout = '10s'")
        connection.exec_driver_sql("SET LOCAL statement_timeout = '10min'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
        drop_views(connection)
        drop_triggers(connection)
        drop_event_triggers(connection)
        drop_guards(connection)
        context.configure(connection=connection, target_metadata=metadata, compare_server_default=True)
        context.run_migrations()
        head = ScriptDirectory.from_config(context.config).get_current_head()
        if head and context.get_context().get_current_revision() == head:
            create_triggers(connection)
            create_event_triggers(connection)
            create_guards(connection)
            create_views(connection)
    engine.dispose()


migrate()
