"""Every SQL statement of the product, found where it is declared, and the plans of them."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import models
from models.statements import Statement

PARAMETER = re.compile(r"%\((\w+)\)s|%s|%%")


def list_statements() -> dict[str, Statement]:
    """By name, as `models.claims.CLAIM_POLLS`; each once, where it is imported elsewhere too."""
    found: dict[str, Statement] = {}
    for module in sorted(info.name for info in pkgutil.walk_packages(models.__path__, "models.")):
        for name, value in _named(vars(importlib.import_module(module))):
            if isinstance(value, Statement) and not any(value is known for known in found.values()):
                found[f"{module}.{name}"] = value
    return found


def _named(values: dict[str, object]) -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        yield name, value
        if isinstance(value, dict) and not name.startswith("__"):
            yield from ((f"{name}[{key}]", part) for key, part in value.items())


def number_parameters(statement: str) -> tuple[str, int]:
    """The statement as PREPARE takes it, and how many parameters it has."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%"
        name = match[1] or f"place {len(names)}"
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    return PARAMETER.sub(number, statement), len(names)


def prepare(connection: Any, statement: str) -> int:
    """Have the server parse it under the name `looked_at`; answers how many parameters it has."""
    text, count = number_parameters(statement)
    connection.execute("DEALLOCATE ALL")
    connection.execute(f"PREPARE looked_at AS {text}")
    return count


def plan_of(connection: Any, statement: str) -> list[dict[str, Any]]:
    """The nodes of the plan that holds whatever the parameters are."""
    count = prepare(connection, statement)
    given = f"({', '.join(['NULL'] * count)})" if count else ""
    connection.execute("SET plan_cache_mode = force_generic_plan")
    row = connection.execute(f"EXPLAIN (FORMAT JSON) EXECUTE looked_at{given}").fetchone()
    return list(_nodes(row[0][0]["Plan"]))


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for below in node.get("Plans", ()):
        yield from _nodes(below)
