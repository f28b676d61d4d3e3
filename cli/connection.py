"""Which database the commands use: that of the stack which runs in the home, unless DATABASE_URL names another."""

import click
from sqlalchemy import Engine

from cli import migrate
from cli.settings import load_with_database
from core.settings import DatabaseSettings, load
from models.database import check_schema, make_engine


def open_database() -> Engine:
    """An engine whose database is there and at our schema.

    Raises:
        UserError: no database is known, it cannot be reached, or its schema is another one.
    """
    load_with_database()
    engine = connect(load(DatabaseSettings).database_url, application="darkroom cli")
    check_schema(engine, migrate.newest())
    return engine


def connect(url: str, *, application: str) -> Engine:
    """An engine of one connection, which is closed when the command ends.

    Raises:
        SettingsError: the URL cannot be used.
    """
    engine = make_engine(url, application=application, pool_size=1)
    if context := click.get_current_context(silent=True):
        context.call_on_close(engine.dispose)
    return engine
