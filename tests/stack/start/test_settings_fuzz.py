"""Mutations of every URL among the settings: each ends in success, or in one sentence and exit code 2."""

import os
from pathlib import Path

import pytest
import redis
import requests
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from kombu import Connection

from core.broker_url import parse_broker_url
from core.errors import SettingsError
from core.settings import NetworkSettings, Settings, StorageSettings, load
from intake.settings import IntakeSettings
from models.database import make_engine
from storage.store import Storage
from tests.support.command_line import CommandLine
from webhook_receiver.settings import ReceiverSettings
from worker.settings import WorkerSettings

SECRET = "hunter3"
GOOD = {
    "DATABASE_URL": [
        f"postgresql://u:{SECRET}@h:5432/db",
        f"postgres://u:{SECRET}@a:1,b:2/db?sslmode=require&target_session_attrs=read-write",
        f"postgresql+psycopg://u@/db?host=/run/pg&options=-csearch_path%3Ddark&password={SECRET}&pgbouncer=true",
    ],
    "REDIS_URL": [
        f"redis://u:{SECRET}@h:6379/0",
        f"rediss://:{SECRET}@[::1]:6379/0?ssl_cert_reqs=none&ssl_check_hostname=false",
        f"unix://u:{SECRET}@/run/redis.sock?db=1",
        "redis+socket:///run/redis.sock?virtual_host=1",
    ],
    "STORAGE_URL": [
        "file:///a/b",
        "./images",
        "~/pix",
        "s3://bucket/prefix",
        "gs://b",
        "az://c/p",
        "file://localhost/x",
    ],
    "HTTPS_PROXY": [f"http://u:{SECRET}@proxy:3128", "proxy:3128", "https://proxy"],
    "HTTP_PROXY": [f"http://u:{SECRET}@[::1]:3128/"],
    "NO_PROXY": ["localhost,.example,10.0.0.0/8,[::1]:80,*"],
    "FAL_QUEUE_URL": ["https://queue.fal.run", "http://[::1]:8002/x"],
    "FAL_REST_URL": ["https://rest.fal.ai/"],
    "FAL_CDN_URL": ["https://v3.fal.media"],
    "FAL_API_URL": ["https://api.fal.ai"],
    "FAL_JWKS_URL": ["https://rest.fal.ai/.well-known/jwks.json"],
    "PUBLIC_URL": ["https://images.example"],
    "INTAKE_URL": ["https://intake.example/base"],
    "OTEL_EXPORTER_OTLP_ENDPOINT": ["http://localhost:4318"],
    "AWS_ENDPOINT_URL": ["https://minio.example:9000", "http://[::1]:9000/x"],
    "REQUESTS_CA_BUNDLE": ["/etc/ssl/certs/ca-certificates.crt", "ca.pem"],
    "SSL_CERT_FILE": ["/etc/hosts"],
    "FAL_MEDIA_HOSTS": ["v3.fal.media,*.fal.media"],
}
PARTS = [
    *(
        "://",
        ":",
        "/",
        "@",
        "?",
        "#",
        "%",
        "%zz",
        "%00",
        "%0A",
        "&",
        "=",
        ",",
        ";",
        "[",
        "]",
        " ",
        "\n",
        "\t",
        "'",
        '"',
    ),
    *("\\", "$", "~", "..", "*", "+", "-1", "99999999999", "é", "帽", "ﬃ", "\u202e", "localhost", "sslmode="),
    *("options=-c", "db=", "ssl_cert_reqs=", "pgbouncer=", "schema=public"),
]


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, str]:
    """The name of a setting, and a value that was good before a few of its characters were changed."""
    name = draw(st.sampled_from(sorted(GOOD)))
    value = draw(st.sampled_from(GOOD[name]))
    for _ in range(draw(st.integers(0, 4))):
        at, length = draw(st.integers(0, len(value))), draw(st.integers(0, 6))
        value = value[:at] + draw(st.sampled_from(["", *PARTS])) + value[at + length :]
    return name, value


def use(name: str, cls: type[Settings]) -> None:
    """What a process does with the settings before it connects anywhere."""
    found = load(cls)
    if isinstance(found, WorkerSettings):
        make_engine(found.database_url, application="fuzz").dispose()
        address = parse_broker_url(found.redis_url)
        with Connection(address.celery_url, ssl=address.tls or False) as connection:
            assert connection.transport_cls in ("redis", "rediss", "redis+socket")
        redis.Redis.from_url(address.url, **(address.tls or {})).close()
        assert StorageSettings.model_validate({"storage_url": found.storage_url}).storage_url == found.storage_url
    if name == "AWS_ENDPOINT_URL":
        Storage("s3://bucket/prefix")
    if isinstance(found, NetworkSettings):
        for url in ("https://queue.fal.run/x", "http://10.0.0.1:80/x", "https://[fd00::1]/x"):
            proxy = found.network.proxy_for(url)
            if proxy:
                requests.utils.get_auth_from_url(proxy)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutated())
@example(("DATABASE_URL", f"postgresql://u:{SECRET}#@h/db"))
@example(("REDIS_URL", f"redis://:{SECRET}/@h"))
def test_settings_are_taken_or_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: tuple[str, str]
) -> None:
    name, value = given
    with monkeypatch.context() as patch:
        for place, good in {"DATABASE_URL": "postgresql://h/db", "REDIS_URL": "redis://h/0"}.items():
            patch.setenv(place, good)
        patch.setenv(name, value)
        for cls in (WorkerSettings, ReceiverSettings, IntakeSettings):
            try:
                use(name, cls)
            except SettingsError as error:
                said = str(error)
                assert name in said or "DATABASE_URL" in said
                assert len(said.splitlines()) == 1
                assert SECRET not in said


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutated())
@example(("HTTP_PROXY", f"{SECRET}@[::1]:3128"))
def test_commands_end_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, given: tuple[str, str]
) -> None:
    name, value = given
    before = dict(os.environ)
    with monkeypatch.context() as patch:
        run_cli = CommandLine(
            patch, capsys, tmp_path, DATABASE_URL="postgresql://127.0.0.1:1/db", REDIS_URL="redis://127.0.0.1:1/0"
        )
        run_cli.set(**{name: value})
        said = run_cli("env")
        assert said.code in (0, 2)
        assert said.err.count("\n") == (0 if said.code == 0 else 1)
        assert SECRET not in said.out + said.err
    assert dict(os.environ) == before
