"""The desk's way to the database: that of the stack which runs in the home, unless DATABASE_URL names another."""

from sqlalchemy import Engine

from cli import migrate
from cli.settings import attach
from models.database import check_schema, make_engine
from models.settings import DatabaseSettings, load


def open_database() -> Engine:
    """An engine whose database is there and at our schema.

    Raises:
        UserError: no database is known, it cannot be reached, or its schema is another one.
    """
    attach()
    engine = make_engine(load(DatabaseSettings).database_url, application="darkroom cli", pool_size=1)
    check_schema(engine, migrate.newest())
    return engine
