"""Redis behind TLS, with users, passwords and sockets, for every library of ours; and what may be wrong with it."""

import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from cli.doctor import lane_checks
from cli.doctor.check_result import ResultKind
from cli.doctor.checks import broker
from cli.stack import embedded
from cli.stack.broker import find_server
from cli.stack.broker_readiness import redis_answers
from cli.stack.readiness import until
from core.broker_url import parse_broker_url
from core.errors import SettingsError
from tests.support.wire_faults import AUTHORITY, serve_tls
from worker.broker import celery_client, redis_client

PASSWORD, ENCODED = "p@ss/w#rd:%", "p%40ss%2Fw%23rd%3A%25"


@contextmanager
def server(*options: str) -> Iterator[int]:
    """A Redis of its own on a free port."""
    port = embedded.free_port()
    place = ("--port", str(port), "--bind", "127.0.0.1", "--save", "")
    with (
        tempfile.TemporaryDirectory(prefix="darkroom-redis-") as folder,  # a primary writes a file for its replica
        subprocess.Popen((find_server(), *place, "--dir", folder, *options), stdout=subprocess.DEVNULL) as process,
    ):
        try:
            assert until(lambda: _listens(port), timeout=60)
            yield port
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    try:
        with redis.Redis(port=port, socket_timeout=2) as client:
            client.ping()
    except redis.AuthenticationError:
        return True
    except redis.RedisError:
        return False
    return True


@pytest.fixture(scope="module")
def plain() -> Iterator[int]:
    """With a user beside the default one."""
    with server() as port:
        with redis.Redis(port=port) as client:
            client.acl_setuser("dark", enabled=True, passwords=[f"+{PASSWORD}"], keys=["*"], channels=["*"],
                               categories=["+@all"])  # fmt: skip
        yield port


def works(url: str) -> None:
    """Celery's broker and result backend, redis-py and the doctor, all of them."""
    assert redis_answers(url)
    with redis_client(url, timeout=5) as client:
        client.ping()
    app = celery_client(url)
    with app.connection_for_write() as connection:
        app.send_task("nobody.listens", queue="links", connection=connection)
        assert connection.default_channel.client.llen("links") == 1
        connection.default_channel.client.delete("links")
    app.backend.client.set("result", "x", ex=5)
    finding = broker(url)
    assert finding.result is ResultKind.OK, finding.message


def test_plain(plain: int) -> None:
    works(f"redis://127.0.0.1:{plain}/0")
    works(f"redis://localhost:{plain}")


def test_a_user_and_an_encoded_password(plain: int) -> None:
    works(f"redis://dark:{ENCODED}@127.0.0.1:{plain}/3")


def test_tls_with_an_own_authority(plain: int) -> None:
    with serve_tls(plain) as port:
        works(f"rediss://dark:{ENCODED}@localhost:{port}/0?ssl_ca_certs={quote(str(AUTHORITY))}")
        works(f"rediss://127.0.0.1:{port}/0?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs={quote(str(AUTHORITY))}")
        works(f"rediss://localhost:{port}/0?ssl_cert_reqs=none")


def test_tls_with_the_machines_own_store(plain: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a managed Redis with a public certificate is reached: nothing to say but rediss://."""
    monkeypatch.setenv("SSL_CERT_FILE", str(AUTHORITY))
    with serve_tls(plain) as port:
        works(f"rediss://localhost:{port}/0")


def test_a_certificate_that_nobody_vouches_for(plain: int) -> None:
    with serve_tls(plain) as port:
        finding = broker(f"rediss://:{ENCODED}@localhost:{port}/0")
    assert finding.result is ResultKind.FAULT
    assert "not trusted" in finding.message
    assert "ssl_ca_certs" in finding.advice
    assert "rd:" not in finding.message


@pytest.mark.parametrize(
    "form", ["unix://{}", "unix://{}?db=2", "redis+socket://{}", "redis+socket://{}?virtual_host=2"]
)
def test_a_socket(form: str, tmp_path: Path) -> None:
    path = tmp_path / "a b.sock"
    with server("--unixsocket", str(path)):
        works(form.format(str(path).replace(" ", "%20")))


def test_a_replica(plain: int) -> None:
    with server("--replicaof", "127.0.0.1", str(plain)) as port:
        finding = broker(f"redis://127.0.0.1:{port}/0")
        assert (finding.result, "replica" in finding.message) == (ResultKind.FAULT, True)
    with server("--replicaof", "127.0.0.1", str(plain), "--replica-read-only", "no") as port:
        finding = broker(f"redis://127.0.0.1:{port}/0")
        assert (finding.result, "replica" in finding.message) == (ResultKind.FAULT, True)


def test_a_full_server() -> None:
    with server("--maxmemory", "1", "--maxmemory-policy", "noeviction") as port:
        finding = broker(f"redis://127.0.0.1:{port}/0")
    assert (finding.result, "full" in finding.message) == (ResultKind.FAULT, True)


def test_a_wrong_password_and_a_user_without_rights(plain: int) -> None:
    with redis.Redis(port=plain) as client:
        client.acl_setuser("reader", enabled=True, passwords=["+r"], keys=["*"], categories=["+@read", "+@connection"])
    wrong = broker(f"redis://dark:wrong@127.0.0.1:{plain}/0")
    assert (wrong.result, "refuses the user or password" in wrong.message) == (ResultKind.FAULT, True)
    reader = broker(f"redis://reader:r@127.0.0.1:{plain}/0")
    assert (reader.result, "refuses a message" in reader.message) == (ResultKind.FAULT, True)


def test_the_workers_are_asked_over_tls(plain: int, quick_doctor: None) -> None:
    with serve_tls(plain) as port:
        finding = lane_checks.workers(f"rediss://localhost:{port}/0?ssl_ca_certs={quote(str(AUTHORITY))}")
    assert "No worker answers" in finding.message


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("http://h", "redis://"),
        ("h:6379", "redis://"),
        ("'redis://h/0'", "quotes"),
        ("valkey://h:6379/0", "redis://"),
        ("h.redis.example:6380,password=hunter3,ssl=True", "rediss://"),
        ("redis://h:port/0", "port"),
        ("redis://h:0/0", "port"),
        ("redis://h:99999/0", "port"),
        ("redis://h/zero", "database"),
        ("redis://:hunter3#@h/0", "%23"),
        ("redis://:hunter3/x@h/0", "port.*%2F"),
        ("redis://a,b/0", "several"),
        ("redis://a/0;redis://b/0", "several"),
        ("redis://h/0?socket_timeout=3", "socket_timeout"),
        ("redis://h/0?ssl_cert_reqs=none", "rediss://"),
        ("rediss://h/0?ssl_cert_reqs=maybe", "ssl_cert_reqs"),
        ("rediss://h/0?ssl_check_hostname=maybe", "ssl_check_hostname"),
        ("rediss://h/0?ssl_ca_certs=/no/such.pem", "/no/such.pem"),
        ("unix://run/redis.sock", "absolute"),
        ("redis+socket://", "absolute"),
        ("sentinel://h/0", "redis://"),
        ("redis://h\n/0", "space or a control"),
    ],
)
def test_what_cannot_be_used_is_named(url: str, named: str) -> None:
    with pytest.raises(SettingsError, match=named) as refused:
        parse_broker_url(url)
    assert "hunter3" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "client", "celery"),
    [
        ("unix:///a%20b/r.sock?db=2", "unix:///a%20b/r.sock?db=2", "redis+socket:///a%20b/r.sock?virtual_host=2"),
        ("redis+socket:///r.sock", "unix:///r.sock?db=0", "redis+socket:///r.sock?virtual_host=0"),
        ("redis://h", "redis://h:6379/0", "redis://h:6379/0"),
        ("rediss://:p%40ss@[::1]:1/2?ssl_cert_reqs=none", "rediss://:p%40ss@[::1]:1/2", "rediss://:p%40ss@[::1]:1/2"),
    ],
)
def test_each_library_gets_its_own_form(given: str, client: str, celery: str) -> None:
    address = parse_broker_url(given)
    assert (address.url, address.celery_url) == (client, celery)
    assert parse_broker_url(client).url == parse_broker_url(celery).url == client


def test_certificates_are_checked_unless_told() -> None:
    celery = parse_broker_url("rediss://h/0").celery_settings()
    for name in ("broker_use_ssl", "redis_backend_use_ssl"):
        assert celery[name] == {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
