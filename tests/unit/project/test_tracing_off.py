"""Tracing that nobody asked for costs nothing, and tracing that cannot be had says how to have it."""

import subprocess
import sys

import pytest

from core.errors import SettingsError
from core.settings import TracingSettings, load

START = """
import sys
from intake.app import create_server as intake
from webhook_receiver.app import create_server as receiver
from worker import celery, tasks
from worker.lanes.submit import SubmitLane
intake(), receiver(), celery._trace()
from cli.batches import submit, edit
from core.tracing import current_traceparent, is_tracing
assert current_traceparent() is None
print(is_tracing(), [name for name in sys.modules if name.startswith("opentelemetry")][:3])
"""
WITHOUT = """
import sys
sys.modules["opentelemetry"] = None  # as where it is not installed
from core.errors import SettingsError
from core.settings import load
from webhook_receiver.settings import ReceiverSettings
try:
    load(ReceiverSettings)
except SettingsError as error:
    print(error)
"""
DATABASE = "postgresql://nobody@127.0.0.1:1/none"


def run(code: str, **variables: str) -> str:
    environment = {"DATABASE_URL": DATABASE, "REDIS_URL": "redis://127.0.0.1:1/0", **variables}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_off_it_imports_nothing() -> None:
    """Receiver, intake, workers and command line start without a module of OpenTelemetry, though it is installed."""
    assert run(START) == "False []\n"


@pytest.mark.parametrize("given", ["", "none"])
def test_off_is_off_however_it_is_said(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing, or none: what processes go by is the same."""
    monkeypatch.delenv("OTEL_TRACES_EXPORTER", raising=False)
    unset = load(TracingSettings)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", given)
    assert load(TracingSettings) == unset


def test_on_it_traces() -> None:
    """The same programs, told to: what the test above looks for would be found."""
    assert run(START, OTEL_TRACES_EXPORTER="console").startswith("True ['opentelemetry")


def test_not_installed_it_says_what_to_install() -> None:
    """One sentence with the command, from every process that would trace."""
    said = "OTEL_TRACES_EXPORTER is wrong (it needs OpenTelemetry: pip install 'darkroom[tracing]').\n"
    assert run(WITHOUT, OTEL_TRACES_EXPORTER="otlp") == said
    assert run(WITHOUT) == ""


OTHERS = [
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
    ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
    ("OTEL_TRACES_SAMPLER_ARG", "nan"),
    ("OTEL_TRACES_SAMPLER_ARG", "endpoint=http://sampler:5778"),
]


@pytest.mark.parametrize(("name", "value"), [("OTEL_TRACES_EXPORTER", "jaeger"), *OTHERS])
def test_wrong_settings_are_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else somebody would look for traces that go nowhere."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=rf"^{name} is wrong \(.*\)\.$"):
        load(TracingSettings)


@pytest.mark.parametrize(("name", "value"), OTHERS)
def test_variables_of_other_programs_stop_nobody(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine may have them for its other programs; where we do not trace they are not ours to judge."""
    monkeypatch.setenv(name, value)
    given = load(TracingSettings)
    monkeypatch.delenv(name)
    assert given == load(TracingSettings)
