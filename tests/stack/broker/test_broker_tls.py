"""Redis with TLS of its own, as its users run it: asked by Celery, by redis-py and by the doctor.

Neither the server of the wheel nor every package has TLS: where none is found these tests are skipped, and those of
`test_broker_url.py` ask one through a TLS front.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis
from celery.contrib.testing.worker import start_worker

from cli.doctor.check_result import CheckResult, ResultKind
from cli.doctor.checks import broker
from cli.stack.broker import PROGRAMS
from cli.stack.embedded import free_port
from tests.stack.broker.test_broker_url import ENCODED, PASSWORD, server, works
from tests.support.running_stack import eventually
from tests.support.wire_faults import AUTHORITY, CERTIFICATES
from worker.broker import celery_client

SERVER, CLIENT = CERTIFICATES / "server.pem", CERTIFICATES / "client.pem"


@contextmanager
def tls_server(*options: str) -> Iterator[int]:
    """A Redis whose only port speaks TLS; skips the test where no server here can."""
    programs = [program for name in PROGRAMS if (program := shutil.which(name))]
    for program in programs:
        port = free_port()
        files = ("--tls-cert-file", str(SERVER), "--tls-key-file", str(SERVER), "--tls-ca-cert-file", str(CLIENT))
        place = ("--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--save", "")
        with (
            tempfile.TemporaryDirectory(prefix="darkroom-redis-") as folder,
            subprocess.Popen(
                (program, *place, *files, "--requirepass", PASSWORD, "--dir", folder, *options),
                stdout=subprocess.DEVNULL,
            ) as process,
        ):
            try:
                if eventually(lambda: process.poll() is not None or _responds(port), 60) and process.poll() is None:  # noqa: B023
                    yield port
                    return
            finally:
                process.terminate()
    pytest.skip("no Redis with TLS here, and that of the wheel has none (Debian and Ubuntu: apt install redis-server)")


def _responds(port: int) -> bool:
    """Whether it listens; whoever has no certificate is an answer, too."""
    try:
        with redis.Redis(port=port, ssl=True, ssl_cert_reqs="none", password=PASSWORD, socket_timeout=2) as client:
            client.ping()
    except redis.ConnectionError as error:
        return "refused" not in str(error)
    return True


@pytest.fixture(scope="module")
def own_tls() -> Iterator[int]:
    """With a password, for whoever speaks TLS."""
    with tls_server("--tls-auth-clients", "no") as port:
        yield port


def test_an_own_authority_and_an_odd_password(own_tls: int) -> None:
    works(f"rediss://:{ENCODED}@localhost:{own_tls}/0?ssl_ca_certs={AUTHORITY}")
    works(f"rediss://default:{ENCODED}@127.0.0.1:{own_tls}/1?ssl_cert_reqs=required&ssl_ca_certs={AUTHORITY}")


def test_encrypted_but_not_checked(own_tls: int) -> None:
    for value in ("none", "CERT_NONE"):
        works(f"rediss://:{ENCODED}@localhost:{own_tls}/0?ssl_cert_reqs={value}")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Celery's own
def test_a_task_there_and_its_result_back(own_tls: int) -> None:
    app = celery_client(f"rediss://:{ENCODED}@localhost:{own_tls}/2?ssl_ca_certs={AUTHORITY}")

    @app.task(name="tests.double")  # type: ignore[untyped-decorator]
    def double(number: int) -> int:
        return 2 * number

    with start_worker(app, pool="solo", perform_ping_check=False, loglevel="ERROR"):
        assert double.delay(21).get(timeout=60) == 42


def test_the_machines_own_store(own_tls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(AUTHORITY))
    works(f"rediss://:{ENCODED}@localhost:{own_tls}/0")


def refused(url: str) -> CheckResult:
    """What the doctor says; the password is not part of it."""
    finding = broker(url)
    assert finding.result is ResultKind.FAULT
    assert PASSWORD not in finding.message
    assert ENCODED not in finding.message
    assert "\n" not in finding.message
    return finding


def test_what_is_wrong_is_said(own_tls: int) -> None:
    place = f":{ENCODED}@localhost:{own_tls}/0"
    for authorities in ("", f"?ssl_ca_certs={CLIENT}"):
        finding = refused(f"rediss://{place}{authorities}")
        assert ("not trusted" in finding.message, "ssl_ca_certs" in finding.advice) == (True, True)
    assert "user or password" in refused(f"rediss://:wrong@localhost:{own_tls}/0?ssl_ca_certs={AUTHORITY}").message
    other_name = f"rediss://:{ENCODED}@127.0.0.2:{own_tls}/0?ssl_ca_certs={AUTHORITY}"
    assert "does not answer" in refused(other_name).message
    assert "rediss://" in refused(f"redis://{place}").advice


def test_a_name_that_is_not_in_the_certificate() -> None:
    with tls_server("--tls-auth-clients", "no", "--bind", "127.0.0.1 127.0.0.2") as port:
        url = f"rediss://:{ENCODED}@127.0.0.2:{port}/0?ssl_ca_certs={AUTHORITY}"
        finding = refused(url)
        assert "127.0.0.2" in finding.message
        assert "ssl_check_hostname" in finding.advice
        works(f"{url}&ssl_check_hostname=false")


def test_a_client_certificate() -> None:
    with tls_server("--tls-auth-clients", "yes") as port:
        url = f"rediss://:{ENCODED}@localhost:{port}/0?ssl_ca_certs={AUTHORITY}"
        works(f"{url}&ssl_certfile={CLIENT}&ssl_keyfile={CLIENT}")
        assert "ssl_certfile" in refused(url).advice  # it may say why, or only hang up


def test_tls_to_a_server_that_has_none() -> None:
    with server() as port:
        finding = refused(f"rediss://localhost:{port}/0")
    assert "redis://" in finding.advice
