"""The one stack of this folder."""

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.running_stack import Stack


@pytest.fixture(scope="package")
def stack(clean_environment: None) -> Iterator[Stack]:
    """One running stack for every file of this folder (conftest.py keeps these together). It ends with the last of
    them: a stack costs something also while nobody asks it for anything.

    Not in pytest's own folder, which other runs lock again for the user that PostgreSQL runs as under root.
    """
    with tempfile.TemporaryDirectory(prefix="darkroom-stack-") as folder:
        stack = Stack(Path(folder) / "home")
        stack.variables |= {"POLL_AFTER": "2", "POLL_EVERY": "1"}
        stack.start()
        stack.set_options(image_mode="plain")  # what is in an image costs more than all that is done with it
        yield stack
        stack.end(signal.SIGTERM, within=20)
