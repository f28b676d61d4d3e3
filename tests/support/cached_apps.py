"""Hundreds of tests make an application of their own, the same each time: what it is made of is worked out once."""

from functools import wraps
from typing import Any

import pytest
from flask import Flask
from werkzeug.routing import Rule

from intake import app as intake
from intake.api_keys import ApiKeys


def cache_what_apps_share(patch: pytest.MonkeyPatch) -> None:
    """What builds the address of a route, the secret of the same keys (slow on purpose), the document of the API."""
    build, derive, document = Rule._compile_builder, ApiKeys.derive_secret, intake.document
    builders: dict[object, Any] = {}
    secrets: dict[object, bytes] = {}
    documents: dict[bool, Any] = {}

    @wraps(build)
    def build_once(rule: Rule, append_unknown: bool = True) -> Any:
        key = (rule.rule, tuple(rule._trace), repr(rule.defaults), append_unknown)
        if key not in builders:
            builders[key] = build(rule, append_unknown)
        return builders[key]

    @wraps(derive)
    def derive_once(keys: ApiKeys, purpose: bytes) -> bytes:
        key = (*sorted(keys._clients), purpose)
        if key not in secrets:
            secrets[key] = derive(keys, purpose)
        return secrets[key]

    @wraps(document)
    def document_once(app: Flask, *, keys: bool) -> Any:
        if keys not in documents:
            documents[keys] = document(app, keys=keys)
        return documents[keys]

    patch.setattr(Rule, "_compile_builder", build_once)
    patch.setattr(ApiKeys, "derive_secret", derive_once)
    patch.setattr(intake, "document", document_once)
