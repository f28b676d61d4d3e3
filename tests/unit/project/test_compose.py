"""docker-compose.yml: what each container is told, what it may do, and how long it may take to stop.

Everything is worked out from the settings classes and the constants of the code, and compared with the file. No
container runs here.
"""

import re
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from cli.stack import processes
from core.settings import DatabaseSettings, Settings, load
from intake.settings import IntakeSettings
from models.database import CONNECT_TIMEOUT as DATABASE_TIMEOUT
from models.database import STATEMENT_TIMEOUT
from tests.test_docs import SETTINGS
from webhook_receiver.settings import ReceiverSettings
from worker import celery, lane_loop
from worker.lane import load_lane
from worker.settings import BeatSettings, WorkerSettings

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()

READS: dict[str, type[Settings]] = {
    "migrate": DatabaseSettings,
    "receiver": ReceiverSettings,
    "intake": IntakeSettings,
    "beat": BeatSettings,
    **dict.fromkeys(processes.WORKERS, WorkerSettings),
}
"""Service -> the settings class that its process loads."""
IN_THE_CONTAINER = {"BIND_HOST": "0.0.0.0", "RECEIVER_PORT": "8000", "INTAKE_PORT": "8001", "DARKROOM_HOME": "/data"}
"""Settings that have one value inside of a container; outside the ports are published elsewhere."""
VARIABLE = re.compile(r"\$\{(\w+)(?::([-+?])([^}]*))?\}")


def interpolated(value: str, variables: Mapping[str, str]) -> str:
    """A value of the file as compose fills it in; `:?` is an error of its own."""

    def fill(match: re.Match[str]) -> str:
        name, how, word = match.groups()
        given = variables.get(name, "")
        if how == "+":
            return word if given else ""
        if how == "?" and not given:
            raise LookupError(f"{name}: {word}")
        return given or (word if how == "-" else "")

    return VARIABLE.sub(fill, value)


def resolve_environment(service: str, variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of a container."""
    given = SERVICES[service].get("environment", {})
    # a name without a value is passed on as it is
    return {name: interpolated(value or f"${{{name}:-}}", variables) for name, value in given.items()}


def is_secret(cls: type[Settings], name: str) -> bool:
    return cls.model_fields[name].annotation in (SecretStr, SecretStr | None)


def variables_of(cls: type[Settings]) -> set[str]:
    """Every variable that a settings class reads, its secrets' files too."""
    names = {name.upper() for name in cls.model_fields}
    names |= {f"{name.upper()}_FILE" for name in cls.model_fields if is_secret(cls, name)}
    return names | ({"PGPASSWORD"} if "database_url" in cls.model_fields else set())


def test_every_process_is_known() -> None:
    """Every service that runs code of ours is in the table of this file."""
    assert set(SERVICES) == {*READS, "postgres", "redis", "emulator", "prometheus", "grafana"}


@pytest.mark.parametrize("service", sorted(READS))
def test_a_container_gets_its_settings_and_no_others(service: str) -> None:
    """The receiver learns no key of the provider's, the intake no notify secret, and nothing is left out."""
    assert set(SERVICES[service]["environment"]) == variables_of(READS[service])


def test_every_setting_reaches_somebody() -> None:
    """No setting of docs/settings.md is without effect in containers."""
    names = {name.upper() for cls in SETTINGS for name in cls.model_fields}
    assert names <= {name for service in SERVICES.values() for name in service.get("environment", {})}


@pytest.mark.parametrize("service", sorted(READS))
def test_a_setting_arrives_as_it_was_given(service: str) -> None:
    """What stands in `.env` is what the process reads, under the same name."""
    names = variables_of(READS[service]) - {"PGPASSWORD"} - set(IN_THE_CONTAINER)
    given = {name: f"/given/for/{name}" for name in names} | {"POSTGRES_PASSWORD": "p$ss}word"}
    environment = resolve_environment(service, given)
    for name in names:
        secret = name.endswith("_FILE") and name.lower() not in READS[service].model_fields
        expected = f"/run/secrets/{name.removesuffix('_FILE').lower()}" if secret else given[name]
        assert environment[name] == expected
    for name in set(IN_THE_CONTAINER) & set(environment):
        assert environment[name] == IN_THE_CONTAINER[name]
    assert environment.get("PGPASSWORD", "p$ss}word") == "p$ss}word"


@pytest.mark.parametrize("service", sorted(READS))
def test_without_env_file_the_defaults_are_the_codes(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that is told nothing reads what a process of `darkroom up` reads that is told nothing."""
    environment = resolve_environment(service, {"POSTGRES_PASSWORD": "of their own"})
    cls = READS[service]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    inside = load(cls)
    for name in set(environment) - set(IN_THE_CONTAINER) - {"DATABASE_URL", "REDIS_URL"}:
        monkeypatch.delenv(name)
    assert inside == load(cls)


@pytest.mark.parametrize("service", sorted(READS))
def test_secrets_in_files_are_mounted_where_they_are_read(service: str) -> None:
    """`FAL_KEY_FILE` names a file of the host; the container that reads it has it, and no other has."""
    secrets = {name for name in READS[service].model_fields if is_secret(READS[service], name)}
    assert set(SERVICES[service].get("secrets", ())) == secrets
    for name in secrets:
        source = COMPOSE["secrets"][name]["file"]
        assert interpolated(source, {f"{name.upper()}_FILE": "/etc/secret"}) == "/etc/secret"
        assert interpolated(source, {}) == "/dev/null"


def test_every_container_of_ours_is_judged_by_the_work() -> None:
    """Each asks how its own lane does, the applications how all do."""
    for name, service in SERVICES.items():
        if name in READS and name not in ("migrate", "intake_worker"):
            test = service["healthcheck"]["test"]
            wanted = {"beat": "tick", "receiver": "/healthz", "intake": "/healthz"}.get(name, name)
            assert wanted in test[-1]


def test_what_the_monitoring_mounts_is_there() -> None:
    """A file that is missing would be made a folder by docker."""
    assert all((ROOT / config["file"]).is_file() for config in COMPOSE["configs"].values())
    mounted = {each["source"] for service in SERVICES.values() for each in service.get("configs", ())}
    assert mounted == set(COMPOSE["configs"])


def test_no_default_password() -> None:
    """Without a password nothing starts, and a sentence says what to do."""
    for service in ("postgres", *(name for name in READS if "PGPASSWORD" in SERVICES[name]["environment"])):
        with pytest.raises(LookupError, match=r"POSTGRES_PASSWORD: set it in \.env"):
            resolve_environment(service, {})
    assert "\nPOSTGRES_PASSWORD=\n" in EXAMPLE


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_container_may_do_no_more_than_it_must(service: str) -> None:
    """No capability, no new privileges, nothing writable but what is mounted."""
    container = SERVICES[service]
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert container["read_only"] is True
    mounted = [volume.partition(":")[2] for volume in container.get("volumes", ())]
    assert ("/tmp" in mounted) != ("/tmp" in container.get("tmpfs", ())) or service == "redis"
    assert not any(volume.startswith(("/", ".")) for volume in container.get("volumes", ()))


def test_only_those_who_need_them_reach_database_and_broker() -> None:
    """Whoever reads DATABASE_URL is on the database's network, whoever reads REDIS_URL on the broker's; both inside."""
    for network, setting, server in (("database", "database_url", "postgres"), ("broker", "redis_url", "redis")):
        assert COMPOSE["networks"][network] == {"internal": True}
        members = {name for name, service in SERVICES.items() if network in service["networks"]}
        looks = {"grafana"} if network == "database" else set()
        assert members == {server, *looks, *(name for name, cls in READS.items() if setting in cls.model_fields)}
        assert SERVICES[server]["networks"] == [network]
        assert "ports" not in SERVICES[server]


def test_ports_are_published_on_loopback() -> None:
    """Unless somebody asks for more by BIND_HOST; the emulator and the monitoring never."""
    published = {name: port for name, service in SERVICES.items() for port in service.get("ports", ())}
    assert set(published) == {"receiver", "intake", "emulator", "prometheus", "grafana"}
    for name, port in published.items():
        assert interpolated(port["host_ip"], {}) == "127.0.0.1"
        host_ip = interpolated(port["host_ip"], {"BIND_HOST": "0.0.0.0"})
        assert host_ip == ("0.0.0.0" if name in ("receiver", "intake") else "127.0.0.1")


def test_images_are_pinned() -> None:
    """Every foreign image is named by an exact minor version."""
    named = [service["image"] for service in SERVICES.values()] + [SERVICES["migrate"]["build"]["args"]["BASE"]]
    foreign = {interpolated(image, {}) for image in named} - {"darkroom"}
    assert {image.partition(":")[0] for image in foreign} == {
        *("postgres", "redis", "python", "prom/prometheus", "grafana/grafana")
    }
    assert [image for image in foreign if not re.fullmatch(r"[\w/]+:v?\d+\.\d+(\.\d+)?(-[\w.]+)?", image)] == []
    assert f"ARG BASE={interpolated(SERVICES['migrate']['build']['args']['BASE'], {})}\n" in DOCKERFILE


def test_the_image_says_what_it_is() -> None:
    """Its licence is the project's, it carries every package, and it does not run as root."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert f'image.licenses="{project["project"]["license"]}"' in DOCKERFILE
    packages = {package.partition(".")[0] for package in project["tool"]["setuptools"]["packages"]}
    assert set(re.findall(r"^COPY (\w+) \1$", DOCKERFILE, re.MULTILINE)) == packages
    assert re.findall(r"^USER (\w+)$", DOCKERFILE, re.MULTILINE) == ["darkroom"]


def longest_call(worker: str) -> float:
    """Seconds that one call of a worker takes at the most, where the peer is as slow as it may be."""
    if worker == "intake_worker":
        return 0  # it calls nobody but the database and the store; what is cut off comes again
    return load_lane(worker).longest_call


RECORDING = lane_loop.RECORD_AGAIN_FOR + DATABASE_TIMEOUT + STATEMENT_TIMEOUT / 1000
"""Seconds in which answers are recorded, or given up: the last try may begin just before the end of trying."""


@pytest.mark.parametrize("lane", sorted(processes.WORKERS))
def test_stops_are_longer_than_the_longest_step(lane: str) -> None:
    """A lane's turn, its longest call, the database away while the answer is recorded: then it may be killed."""
    step = lane_loop.SLICE_SECONDS + longest_call(lane) + RECORDING
    (process,) = (process for process in processes.workers() if process.name == lane)
    assert process.stop_within > step
    assert seconds(SERVICES[lane]["stop_grace_period"]) > process.stop_within


@pytest.mark.parametrize("service", ["receiver", "intake", "beat"])
def test_other_stops_are_longer_than_the_supervisors(service: str) -> None:
    """The rest is given at least what `darkroom up` gives it."""
    parts = (processes.receiver("", 1), processes.intake("", 2), *processes.workers())
    (process,) = (part for part in parts if part.name == service)
    assert seconds(SERVICES[service]["stop_grace_period"]) > process.stop_within


def test_a_broken_worker_is_given_its_longest_step_too() -> None:
    """A worker that Celery calls broken ends for certain, but not in the middle of a paid POST."""
    assert lane_loop.SLICE_SECONDS + longest_call("submit") + RECORDING <= celery.END_WITHIN
    (submit,) = (process for process in processes.workers() if process.name == "submit")
    assert submit.stop_within > celery.END_WITHIN


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()  # type: ignore[union-attr]
    return int(number) * (60 if unit == "m" else 1)


def example_lines() -> str:
    """What `.env.example` must hold: every setting with its default, as a comment, and the files of the secrets."""
    rows: dict[str, str] = {}
    for cls in SETTINGS:
        for name, field in cls.model_fields.items():
            default = "" if field.is_required() or field.default_factory or field.default is None else field.default
            shown = ",".join(default) if isinstance(default, tuple) else str(default).removesuffix(".0")
            rows[name.upper()] = f"# {field.description}\n#{name.upper()}={shown}\n"
            if is_secret(cls, name):
                rows[name.upper()] += f"#{name.upper()}_FILE=\n"
    return "\n".join(rows[name] for name in sorted(rows))


def test_example_has_every_setting() -> None:
    """`.env.example` shows exactly the settings that exist, with their defaults, and whatever compose asks for."""
    settings = example_lines().split("\n\n")
    assert EXAMPLE.split("\n\n")[-len(settings) :] == settings
    shown = set(re.findall(r"^#?([A-Z][A-Z_]+)=", EXAMPLE, re.MULTILINE))
    assert shown >= {name for name, *_ in VARIABLE.findall(TEXT)}
    assert "#POSTGRES_IMAGE=" + interpolated(SERVICES["postgres"]["image"], {}) + "\n" in EXAMPLE
    assert "#REDIS_IMAGE=" + interpolated(SERVICES["redis"]["image"], {}) + "\n" in EXAMPLE
    assert "#PROMETHEUS_IMAGE=" + interpolated(SERVICES["prometheus"]["image"], {}) + "\n" in EXAMPLE
    assert "#GRAFANA_IMAGE=" + interpolated(SERVICES["grafana"]["image"], {}) + "\n" in EXAMPLE
    assert "#BASE=" + interpolated(SERVICES["migrate"]["build"]["args"]["BASE"], {}) + "\n" in EXAMPLE


def test_emulator_file_names_only_what_exists() -> None:
    """fal_emulator/compose.env sets nothing that nobody reads."""
    set_there = re.findall(r"^([A-Z_]+)=", (ROOT / "fal_emulator" / "compose.env").read_text(), re.MULTILINE)
    assert set(set_there) <= {name for name, *_ in VARIABLE.findall(TEXT)}


@pytest.mark.skipif(
    not shutil.which("docker") or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode != 0,
    reason="there is no docker compose here",
)
def test_compose_takes_the_file(tmp_path: Path) -> None:
    """`docker compose config` accepts it, and refuses it without a password."""
    command = ["docker", "compose", "--file", str(ROOT / "docker-compose.yml"), "--profile", "emulator"]
    empty = tmp_path / "empty.env"
    empty.touch()
    refused = subprocess.run([*command, "--env-file", str(empty), "config"], capture_output=True, text=True)
    assert refused.returncode != 0
    assert "POSTGRES_PASSWORD" in refused.stderr
    empty.write_text("POSTGRES_PASSWORD=secret\n")
    taken = subprocess.run([*command, "--env-file", str(empty), "config"], capture_output=True, text=True)
    assert taken.returncode == 0, taken.stderr
