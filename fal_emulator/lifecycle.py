"""How long a file lives and who may fetch it: per request by header, for the account by its settings.

`X-Fal-Object-Lifecycle-Preference` and `PUT /v1/storage/settings` hold the same JSON (provider-protocol 3.1, 7.3, 8.4).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DECISIONS = ("allow", "forbid", "hide")


class InvalidLifecycle(ValueError):
    """The JSON is not what fal documents."""


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """`expires` False: nothing is said about expiry; `acl` None: nothing about access. `seconds` None is never."""

    expires: bool = False
    seconds: float | None = None
    acl: str | None = None


def parse(text: str | None) -> Lifecycle:
    """Read the header; an absent one leaves everything to the account's settings."""
    if not text:
        return Lifecycle()
    try:
        given = json.loads(text)
    except ValueError as error:
        raise InvalidLifecycle(f"X-Fal-Object-Lifecycle-Preference is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise InvalidLifecycle("X-Fal-Object-Lifecycle-Preference must be a JSON object")
    return read(given)


def read(given: Mapping[str, Any]) -> Lifecycle:
    """Check the fields."""
    seconds = given.get("expiration_duration_seconds")
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds <= 0):
        raise InvalidLifecycle("expiration_duration_seconds must be a number above 0 or null")
    return Lifecycle("expiration_duration_seconds" in given, seconds, _acl(given.get("initial_acl")))


def _acl(given: Any) -> str | None:
    """The default decision; rules for single users do not matter to anonymous downloads."""
    if given is None:
        return None
    decision = given.get("default", "allow") if isinstance(given, dict) else None
    rules = given.get("rules", []) if isinstance(given, dict) else None
    if decision not in DECISIONS or not isinstance(rules, list):
        raise InvalidLifecycle("initial_acl must be an object with a default of allow, forbid or hide")
    if any(not isinstance(rule, dict) or rule.get("decision") not in DECISIONS for rule in rules):
        raise InvalidLifecycle("each rule of initial_acl needs a user and a decision of allow, forbid or hide")
    return str(decision)
