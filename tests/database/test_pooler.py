"""The database through a real PgBouncer in transaction pooling, and found out without a setting."""

import threading
from io import BytesIO
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, make_url

from cli.migrate import current, newest, upgrade
from core.errors import DatabaseError
from intake.batches import BatchHeader, create
from intake.manifest import read_jsonl
from models.claims import claim_edits
from models.database import check_schema, make_engine
from tests.support.databases import NUMBERS, database_named
from tests.support.pooler import pooling

LINE = b'{"prompt": "p", "image_urls": ["https://example.com/a.png"]}\n'


def settings_of(engine: Engine) -> tuple[str, str]:
    with engine.begin() as connection:
        query = "SELECT current_setting('statement_timeout'), current_setting('lock_timeout')"
        return tuple(connection.exec_driver_sql(query).one())


@pytest.mark.parametrize("options", [(), ("ignore_startup_parameters = options",)], ids=["refused", "ignored"])
def test_a_batch_goes_in_and_is_claimed(database_url: str, tmp_path: Path, options: tuple[str, ...]) -> None:
    with pooling(database_url, tmp_path, *options) as url:
        engine = make_engine(url, application="test", pool_size=4)
        errors: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for part in range(8):  # psycopg prepares a statement that it has seen five times
                    with engine.begin() as connection:  # COPY, ON CONFLICT, RETURNING
                        create(connection, BatchHeader(name=f"{number}-{part}"), read_jsonl(BytesIO(LINE * 20)))
                    with engine.begin() as connection:
                        claim_edits(connection, limit=3, window=5, probe_after=60, price=0)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert errors == []
        assert settings_of(engine) == ("30s", "10s")
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM edits").scalar() == 4 * 8 * 20
        engine.dispose()


def test_no_setting_stays_behind_for_others(database_url: str, tmp_path: Path) -> None:
    with pooling(database_url, tmp_path, "default_pool_size = 1") as url:
        engine = make_engine(url, application="test")
        assert settings_of(engine) == ("30s", "10s")
        with psycopg.connect(url, autocommit=True) as other:
            assert other.execute("SHOW statement_timeout").fetchone() == ("0",)
        engine.dispose()


def test_a_schema_is_made_and_found_through_the_pooler(postgres_url: str, tmp_path: Path) -> None:
    name = f"test_pooled_{next(NUMBERS)}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    direct = database_named(postgres_url, name)
    with psycopg.connect(direct, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA dark")
    with pooling(direct, tmp_path) as url:
        pooled = f"{url}?options=-csearch_path%3Ddark&pgbouncer=true"
        assert upgrade(pooled) == (None, newest())
        assert current(pooled) == newest()
        assert current(direct) is None
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_direct_connection_keeps_its_prepared_statements(database_url: str) -> None:
    engine = make_engine(database_url, application="test")
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver.prepare_threshold is not None
        assert "statement_timeout" in driver.info.get_parameters()["options"]
    engine.dispose()


@pytest.mark.parametrize("option", ["nonsense=5", "statement_timeout=soon", "role=nobody_here", "shared_buffers=1GB"])
@pytest.mark.parametrize("pooler", ["true", "false"])
def test_an_option_that_the_server_refuses_is_one_sentence(database_url: str, option: str, pooler: str) -> None:
    """At the connection, or where the options are set in each transaction."""
    query = {"options": f"-c{option}", "pgbouncer": pooler}
    url = make_url(database_url).update_query_dict(query).render_as_string(hide_password=False)
    engine = make_engine(url, application="test")
    with pytest.raises(DatabaseError) as refused:
        check_schema(engine, newest())
    assert option.partition("=")[0] in str(refused.value)
    assert "\n" not in str(refused.value)
    engine.dispose()


def test_the_parameter_decides_without_asking(database_url: str) -> None:
    url = make_url(database_url).update_query_dict({"pgbouncer": "true"}).render_as_string(hide_password=False)
    engine = make_engine(url, application="test")
    with engine.connect() as connection:
        assert connection.connection.driver_connection.prepare_threshold is None
    assert settings_of(engine) == ("30s", "10s")
    engine.dispose()
