"""`/metrics`: what Prometheus reads is what the views say; and whoever is no operator reads nothing."""

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from sqlalchemy import Engine

from core.settings import PolicySettings
from models.record_reports import record_reports
from tests.support.api_client import KEYS, intake_app, intake_served
from tests.support.factories import answer, failure, make_batch, make_submitted, success
from tests.support.receiving import rows
from tests.support.servers import closed_port

OPERATOR = "night-shift-key-5e"
OPERATORS = f"night:{OPERATOR}"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
ROOT = Path(__file__).parents[3]
ALERTS = ROOT / "monitoring" / "prometheus"


@pytest.fixture
def app(database_url: str) -> Iterator[Flask]:
    with intake_app(database_url, darkroom_api_keys=KEYS, darkroom_operator_keys=OPERATORS) as app:
        yield app


@pytest.fixture
def work(engine: Engine) -> None:
    """One edit with a result, one failed, three pending."""
    with engine.begin() as connection:
        good, bad = make_submitted(connection, 2, client="bob")
        policy = PolicySettings(max_attempts=1)
        record_reports(connection, [answer(good, success()), answer(bad, failure())], policy)
        make_batch(connection, 3, client="alice")


def scrape(app: Flask, accept: str = "", key: str = OPERATOR) -> Any:
    return app.test_client().get("/metrics", headers={"Authorization": f"Bearer {key}", "Accept": accept})


def samples(text: str) -> dict[tuple[str, ...], float]:
    """By name and the values of the labels, in the order of the labels' names."""
    found = [sample for family in read_text(text) for sample in family.samples]
    return {(sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value for sample in found}


def test_metrics_say_what_the_views_say(app: Flask, work: None, engine: Engine) -> None:
    found = samples(scrape(app).text)
    for state in ("pending", "submitting", "submitted", "ready"):
        ((number,),) = rows(engine, f"SELECT count(*) FROM edits WHERE state = '{state}'")
        assert found["darkroom_open_edits", state] == number
    ((created, submitted, called_back),) = rows(engine, "SELECT created, submitted, called_back FROM event_totals")
    assert found["darkroom_events_total", "created"] == created == 5
    assert found["darkroom_events_total", "submitted"] == submitted > 0
    assert found["darkroom_events_total", "called_back"] == called_back == 2
    assert found["darkroom_unfinished_batches",] == 2
    for client, reserved, paid in rows(engine, "SELECT client, reserved::float8, paid::float8 FROM client_costs"):
        assert found["darkroom_cost_dollars", "reserved", client] == pytest.approx(reserved)
        assert found["darkroom_cost_dollars", "paid", client] == pytest.approx(paid)
    assert {value for (name, *_), value in found.items() if name == "darkroom_unexplained"} == {0}
    assert {key[1] for key in found if key[0] == "darkroom_lane_due"} == {
        lane for (lane,) in rows(engine, "SELECT lane FROM lane_status")
    }


def test_histograms_are_whole(app: Flask, work: None) -> None:
    """Buckets grow with their bound, and the last one holds all."""
    families = {family.name: family for family in read_openmetrics(scrape(app, OPENMETRICS).text)}
    buckets = [
        (float(sample.labels["le"]), sample.value)
        for sample in families["darkroom_step_seconds"].samples
        if sample.name.endswith("_bucket") and sample.labels["step"] == "called_back"
    ]
    assert buckets == sorted(buckets)
    assert [value for _, value in buckets] == sorted(value for _, value in buckets)
    assert buckets[-1] == (float("inf"), 2.0)


@pytest.mark.parametrize("key", ["", "alice-key-7d1f", f"{OPERATOR}x"])
def test_whoever_is_no_operator_reads_nothing(app: Flask, key: str) -> None:
    """A client would learn from it what others do."""
    response = scrape(app, key=key)
    assert response.status_code == 401
    assert "darkroom_" not in response.text


def test_labels_are_escaped(app: Flask, engine: Engine) -> None:
    """A client's name, or a reason, may hold anything."""
    name = 'quo"te\nline\\ <b>'
    with engine.begin() as connection:
        make_submitted(connection, 1, client=name)
    assert ("darkroom_cost_dollars", "reserved", name) in samples(scrape(app).text)


def test_prometheus_takes_it(database_url: str, engine: Engine, work: None, tmp_path: Path) -> None:
    """A real one scrapes it, keeps it, and answers a question about it; its own checker finds no fault."""
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus on this machine (Debian and Ubuntu: apt install prometheus)")
    port, own = closed_port(), closed_port()
    job = {
        "job_name": "darkroom",
        "authorization": {"credentials": OPERATOR},
        "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
    }
    config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [job]}
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))
    listen = (f"--config.file={tmp_path / 'prometheus.yml'}", f"--web.listen-address=127.0.0.1:{own}")
    with intake_served(database_url, port, DARKROOM_OPERATOR_KEYS=OPERATORS):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/metrics", headers={"Authorization": f"Bearer {OPERATOR}"}
        )
        page = urllib.request.urlopen(request, timeout=60).read()
        subprocess.run(("promtool", "check", "metrics"), input=page, check=True, capture_output=True)
        server = subprocess.Popen(
            ("prometheus", *listen, f"--storage.tsdb.path={tmp_path / 'data'}", "--log.level=error")
        )
        try:
            assert ask(own, 'darkroom_open_edits{state="pending"}') == 3
            assert ask(own, 'darkroom_step_seconds_count{step="called_back"}') == 2
        finally:
            server.terminate()
            server.wait(60)


def ask(port: int, query: str) -> float:
    """What Prometheus answers, once it has an answer."""
    address = f"http://127.0.0.1:{port}/api/v1/query?query={urllib.parse.quote(query)}"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            result = json.load(urllib.request.urlopen(address, timeout=60))["data"]["result"]
        except OSError:
            result = []
        if result:
            return float(result[0]["value"][1])
        time.sleep(0.2)
    raise AssertionError(f"no answer to {query}")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool (Debian and Ubuntu: apt install prometheus)")
def test_alerts() -> None:
    """The rules can be read, and do what their own tests say."""
    for command in (("check", "rules", "alerts.yml"), ("test", "rules", "alerts.test.yml")):
        done = subprocess.run(("promtool", *command), cwd=ALERTS, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def families(app: Flask) -> set[str]:
    """The names of all metrics."""
    return {family.name for family in read_text(scrape(app).text)}


def test_page_explains_every_metric_and_alert(app: Flask, work: None) -> None:
    """docs/metrics.md, and no others."""
    page = (ROOT / "docs" / "metrics.md").read_text()
    named = {name.removesuffix("_total") for name in re.findall(r"`(darkroom_\w+)[{`]", page)} - {"darkroom_monitor"}
    assert named == families(app)
    alerts = set(re.findall(r"alert: (\w+)", (ALERTS / "alerts.yml").read_text()))
    assert set(re.findall(r"^\| `(Darkroom\w+)`", page, re.MULTILINE)) == alerts


def test_alerts_name_metrics_that_exist(app: Flask, work: None) -> None:
    """A rule about a metric of another name would never fire."""
    there = families(app)
    named = re.findall(r"\bdarkroom_\w+", (ALERTS / "alerts.yml").read_text())
    assert len(named) > 10
    assert {name.removesuffix("_total") for name in named} <= there
