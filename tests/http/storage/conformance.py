"""The stores, and the cases that each of them must pass; docs/storage.md shows the table that follows from them."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.stores import find_azurite

STORES = {
    "file": "a folder",
    "memory": "memory",
    "s3": "S3 (SeaweedFS)",
    "gs": "Google's client",
    "az": "Azure (Azurite)",
}
"""The scheme of its STORAGE_URL -> what stands over its column, with the server that the tests run."""
NOT_OVER_NETWORK = {"file": "–", "memory": "–"}
"""For cases about a server."""
ONLY_S3 = {**NOT_OVER_NETWORK, "az": "–", "gs": "–"}
GIVEN = os.environ.get("TEST_STORE")
"""A STORAGE_URL of a real store that the cases are run against too, with credentials that the environment holds."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table."""

    title: str
    test: str
    without: dict[str, str]
    """The stores that it is not run against -> what stands in their cell."""


CASES: list[Case] = []


def case(title: str, **without: str) -> Callable[[Any], Any]:
    """Make a test of a `place` one of the cases; `without` names the stores that have no such thing."""

    def register(test: Any) -> Any:
        CASES.append(Case(title, test.__name__, without))
        stores = [store for store in STORES if store not in without and (store != "az" or find_azurite())]
        if GIVEN and GIVEN.partition("://")[0] not in without:
            stores.append("given")
        return pytest.mark.parametrize("place", stores, indirect=True)(test)

    return register


def table() -> str:
    """The table of docs/storage.md: what passes where the suite passes."""
    rows = [f"| {case.title} | {' | '.join(case.without.get(store, 'yes') for store in STORES)} |" for case in CASES]
    return "\n".join([f"| | {' | '.join(STORES.values())} |", f"|---|{'---|' * len(STORES)}", *rows])
