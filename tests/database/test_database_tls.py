"""PostgreSQL over TLS: a real server, asked by the commands and by a worker's engine; what fails is one sentence."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from cli.doctor.check_result import ResultKind
from cli.doctor.database_checks import connectivity
from cli.migrate import newest
from core.errors import DatabaseError
from models.database import check_schema, make_engine
from models.database_errors import is_away
from tests.support.command_line import CommandLine
from tests.support.own_postgres import OwnServer, copy_key, own_postgres, tls_programs
from tests.support.wire_faults import AUTHORITY, CERTIFICATES

CLIENT = CERTIFICATES / "client.pem"
STRANGER = Path(__file__).parents[1] / "certificates" / "stranger.pem"


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    """Takes TLS and nothing else; of the user `darkroom` it wants a certificate. `AUTHORITY` vouches for it."""
    access = ("hostssl all darkroom all cert", "hostssl all all all trust")
    files = {"server.crt": CERTIFICATES / "server.pem", "server.key": CERTIFICATES / "server.pem", "client.crt": CLIENT}
    with own_postgres(tls_programs(), access=access, files=files, ssl="on", ssl_ca_file="client.crt") as server:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("CREATE ROLE darkroom SUPERUSER LOGIN")
        yield server


@pytest.fixture(scope="module")
def plain() -> Iterator[OwnServer]:
    """The same server without TLS."""
    with own_postgres(tls_programs()) as server:
        yield server


@pytest.fixture
def typing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    return CommandLine(monkeypatch, capsys, tmp_path, REDIS_URL="redis://127.0.0.1:1/0")


def sslmode(**parameters: object) -> dict[str, str]:
    """Parameters of a URL, the usual mode being the strictest."""
    return {"sslmode": "verify-full", **{name: str(value) for name, value in parameters.items()}}


@pytest.mark.parametrize(
    ("host", "parameters"),
    [
        ("127.0.0.1", {}),
        ("127.0.0.1", {"sslmode": "require"}),
        ("127.0.0.1", sslmode(sslmode="verify-ca", sslrootcert=AUTHORITY)),
        ("localhost", sslmode(sslrootcert=AUTHORITY)),
        ("provider.example", sslmode(sslrootcert=AUTHORITY, hostaddr="127.0.0.1")),
    ],
)
def test_a_connection_over_tls(host: str, parameters: dict[str, str], server: OwnServer, typing: CommandLine) -> None:
    url = server.url(host, **parameters)
    typing.set(DATABASE_URL=url)
    assert typing("migrate").code == 0
    assert typing("batches").out == "There is no batch yet.\n"
    assert found(url)[0] == ("database", ResultKind.OK)
    engine = make_engine(url, application="darkroom worker")
    with engine.connect() as connection:
        query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert connection.exec_driver_sql(query).scalar_one() is True
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "30s"
    engine.dispose()


def found(url: str) -> list[tuple[str, ResultKind]]:
    """What the doctor finds of the database."""
    engine = make_engine(url, application="darkroom doctor")
    findings = [(finding.check, finding.result) for finding in connectivity(engine)]
    engine.dispose()
    return findings


def test_the_machines_own_authorities(server: OwnServer, typing: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a hosted server with a public certificate is reached. The driver's own OpenSSL knows no authority at all."""
    url = server.url("localhost", sslrootcert="system", channel_binding="prefer")
    typing.set(DATABASE_URL=url)
    assert "sslrootcert" in refusal(typing, "batches")
    monkeypatch.setenv("SSL_CERT_FILE", str(AUTHORITY))
    assert typing("migrate").code == 0
    assert typing("batches").code == 0
    typing.set(DATABASE_URL=server.url("db.example", sslrootcert="system", hostaddr="127.0.0.1"))
    assert "does not match" in refusal(typing, "batches")


def test_a_client_certificate(server: OwnServer, typing: CommandLine, tmp_path: Path) -> None:
    key = copy_key(CLIENT, tmp_path / "me.key")
    as_darkroom = server.url(**sslmode(sslrootcert=AUTHORITY)).replace("postgres@", "darkroom@")
    typing.set(DATABASE_URL=f"{as_darkroom}&sslcert={quote(str(CLIENT))}&sslkey={key}")
    assert typing("migrate").code == 0
    assert typing("batches").code == 0
    typing.set(DATABASE_URL=as_darkroom)
    assert "sslcert" in refusal(typing, "batches")
    typing.set(
        DATABASE_URL=f"{as_darkroom.replace('darkroom@', 'postgres@')}&sslcert={quote(str(STRANGER))}&sslkey={key}"
    )
    assert "key" in refusal(typing, "batches")
    key.chmod(0o644)
    typing.set(DATABASE_URL=f"{as_darkroom}&sslcert={quote(str(CLIENT))}&sslkey={key}")
    assert "0600" in refusal(typing, "migrate")


def refusal(typing: CommandLine, command: str, *arguments: str) -> str:
    """The one sentence with which a command gives up."""
    said = typing(command, *arguments)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1), said
    return said.err


@pytest.mark.parametrize(
    ("host", "parameters", "why", "advice"),
    [
        ("127.0.0.1", sslmode(sslrootcert=STRANGER), "certificate verify failed", "sslrootcert"),
        ("db.example", sslmode(sslrootcert=AUTHORITY, hostaddr="127.0.0.1"), "does not match", "name the server as"),
        ("127.0.0.1", sslmode(sslrootcert="/no/such.pem"), "/no/such.pem", "sslrootcert"),
        ("127.0.0.1", {"sslmode": "disable"}, "no encryption", "sslmode=require"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    host: str, parameters: dict[str, str], why: str, advice: str, server: OwnServer, typing: CommandLine
) -> None:
    check_refusals(server.url(host, **parameters), typing, why, advice)


@pytest.mark.parametrize("mode", [{"sslmode": "require"}, sslmode(sslrootcert=AUTHORITY)])
def test_a_server_without_tls(mode: dict[str, str], plain: OwnServer, typing: CommandLine) -> None:
    check_refusals(plain.url(**mode), typing, "server does not support SSL", "turn TLS on")


def check_refusals(url: str, typing: CommandLine, why: str, advice: str) -> None:
    """Every command, the doctor and a worker's engine say why, and what to set."""
    typing.set(DATABASE_URL=url)
    for command in (("migrate",), ("batches",), ("status", "last")):
        sentence = refusal(typing, *command)
        assert (why in sentence, advice in sentence) == (True, True), sentence
    engine = make_engine(url, application="darkroom worker")
    (finding,) = connectivity(engine)
    assert (finding.result, why in finding.message, advice in finding.message) == (ResultKind.FAULT, True, True)
    with pytest.raises(DatabaseError, match=why):
        check_schema(engine, newest())
    with pytest.raises(OperationalError) as refused:
        engine.connect()
    assert is_away(refused.value), "a worker would end instead of waiting"
    engine.dispose()


def test_the_doctor_goes_on_to_its_other_checks(plain: OwnServer, typing: CommandLine) -> None:
    typing.set(DATABASE_URL=plain.url(sslmode="require"))
    said = typing("doctor", "--json")
    checks = {line["check"]: line for line in said.lines}
    assert (said.code, checks["database"]["result"]) == (1, "fault")
    assert "server does not support SSL" in checks["database"]["message"]
    assert len(checks) > 3
