"""The dashboard: Grafana can read it, and every question of a panel is answered by the role that only looks."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from sqlalchemy import Engine

from tests.support.factories import make_submitted

FOLDER = Path(__file__).parents[2] / "monitoring" / "grafana"
DASHBOARD = json.loads((FOLDER / "dashboards" / "darkroom.json").read_text())
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"]}
LATELY = "{column} BETWEEN now() - interval '6 hours' AND now()"


def find_missing(before: Any, after: Any, path: str = "") -> list[str]:
    """What is in the one and not in the other."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [fault for key in before for fault in find_missing(before[key], after.get(key), f"{path}.{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [fault for pair in zip(before, after, strict=True) for fault in find_missing(*pair, path)]
    return [] if before in (after, None, [], {}) else [path]


def test_grafana_knows_every_word_of_it() -> None:
    """Read by Grafana's own schema and written again, nothing is lost: a field that it does not know would be."""
    written = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(DASHBOARD)))
    assert find_missing(DASHBOARD, written) == []


def test_panels_do_not_overlap() -> None:
    """In the grid of 24 columns each has a place of its own, and an id and a title of its own."""
    places: set[tuple[int, int]] = set()
    for panel in PANELS.values():
        grid = panel["gridPos"]
        cells = {
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & places
        assert grid["x"] + grid["w"] <= 24
        places |= cells
    assert len({panel["id"] for panel in PANELS.values()}) == len(PANELS) == len(DASHBOARD["panels"])


@pytest.mark.parametrize("title", PANELS)
def test_every_question_is_answered(title: str, engine: Engine) -> None:
    """By the role of the dashboard; a plot has a column of times."""
    (target,) = PANELS[title]["targets"]
    question = target["rawSql"]
    while "$__timeFilter(" in question:
        before, _, rest = question.partition("$__timeFilter(")
        column, _, after = rest.partition(")")
        question = before + LATELY.format(column=column) + after
    with engine.begin() as connection:
        make_submitted(connection, 2)
    with engine.connect() as connection:
        connection.exec_driver_sql("SET ROLE darkroom_monitor")
        rows = connection.exec_driver_sql(question)
        columns = list(rows.keys())
        rows.all()
    assert "$" not in question
    assert (target["format"] == "time_series") == ("time" in columns)


def test_the_files_name_each_other() -> None:
    """The provisioned source is the one that the panels ask."""
    (source,) = yaml.safe_load((FOLDER / "datasource.yml").read_text())["datasources"]
    used = {(panel["datasource"]["type"], panel["datasource"]["uid"]) for panel in PANELS.values()}
    assert used == {(source["type"], source["uid"])}
    assert yaml.safe_load((FOLDER / "dashboards.yml").read_text())["providers"][0]["type"] == "file"
