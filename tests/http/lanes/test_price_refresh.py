"""What the work is calculated to cost is what the provider says, asked for now and then."""

from decimal import Decimal

from sqlalchemy import Engine

from models.provider import price_per_image
from provider.price_client import Pricing
from tests.support.lane_runner import Emulator
from worker.price_refresh import refresh
from worker.settings import WorkerSettings


def learned(engine: Engine) -> Decimal:
    with engine.begin() as connection:
        return price_per_image(connection, None)


def settings_at(url: str, **values: object) -> WorkerSettings:
    return WorkerSettings(database_url="postgresql://x", redis_url="redis://x", fal_api_url=url, **values)  # type: ignore[arg-type]


def test_price_is_read_once_and_kept_when_the_provider_is_silent(engine: Engine, emulator: Emulator) -> None:
    """The price list is asked once in hours; what it said last stands while it is not there."""
    refresh(engine, Pricing(emulator.url, "key:secret"), settings_at(emulator.url))
    assert learned(engine) == Decimal("0.03")
    with engine.begin() as connection:
        read_at = connection.exec_driver_sql("SELECT price_read_at FROM provider_status").scalar_one()
        connection.exec_driver_sql("UPDATE provider_status SET price_per_image = 0.07")
    refresh(engine, Pricing("http://127.0.0.1:9", "key:secret"), settings_at("http://127.0.0.1:9"))
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT price_read_at FROM provider_status").scalar_one() == read_at
        connection.exec_driver_sql("UPDATE provider_status SET price_read_at = now() - interval '1 day'")
    refresh(engine, Pricing("http://127.0.0.1:9", "key:secret"), settings_at("http://127.0.0.1:9"))
    assert learned(engine) == Decimal("0.07")


def test_configured_price_asks_nobody(engine: Engine) -> None:
    """Whoever has a contract of their own says so."""
    refresh(engine, Pricing("http://127.0.0.1:9", "k:s"), settings_at("http://127.0.0.1:9", price_per_image="0.02"))
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM provider_status").scalar_one() == 0
