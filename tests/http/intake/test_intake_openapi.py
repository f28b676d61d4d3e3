"""The document against the API as it is served: a machine asks whatever the document allows, and what it does not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.api_client import ALICE, intake_served
from tests.support.servers import closed_port

SCHEMATHESIS = Path(sys.executable).with_name("st")
UNTOLD = "positive_data_acceptance"
"""The one check left out: JSON Schema cannot say all that the model asks for (fifteen images together), nor what
a line is."""


def test_api_keeps_to_its_document(database_url: str, tmp_path: Path) -> None:
    """No 5xx, no answer that is not declared, none of another shape, no bad request let through, no key passed over."""
    port = closed_port()
    with intake_served(database_url, port, INTAKE_RATE="100000/second"):
        found = subprocess.run(
            [
                *(SCHEMATHESIS, "run", f"http://127.0.0.1:{port}/openapi.json"),
                *("--header", f"Authorization: Bearer {ALICE}"),
                *("--generation-deterministic", "--max-examples", "4", "--exclude-checks", UNTOLD),
                *("--request-timeout", "60", "--suppress-health-check", "all", "--no-color", "--no-shrink"),
            ],
            env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.support.ndjson_bodies", "PYTHONPATH": os.getcwd()},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    if found.returncode:
        pytest.fail(found.stdout + found.stderr)
    assert "16 / 16" in found.stdout or "16/16" in found.stdout
