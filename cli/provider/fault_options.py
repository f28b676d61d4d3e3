"""The faults of a manifest for programs: one object a line, on standard output."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from cli.output import print_json
from intake.manifest import ManifestFaults

USAGE = 2


@contextmanager
def faults_as_json(as_json: bool) -> Iterator[None]:
    """Within the block faulty lines end the command as JSON, if that is wanted, instead of as sentences."""
    try:
        yield
    except ManifestFaults as error:
        if not as_json:
            raise
        for fault in error.faults:
            print_json(asdict(fault))
        sys.exit(USAGE)
