"""docs/provider.md does what it says: its commands and its example run against a stack with the emulator."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from subprocess import PIPE

import pytest
from PIL import Image

from tests.support.running_stack import Stack

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "provider.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


COMMANDS = [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()]


@pytest.fixture(scope="module")
def reader(stack: Stack) -> Iterator[tuple[Path, dict[str, str]]]:
    """The folder of someone who reads the page, with two images, and the environment of a running stack."""
    with tempfile.TemporaryDirectory(prefix="darkroom-page-") as folder:
        here = Path(folder)
        for name, colour in (("model.jpg", "tan"), ("hat.png", "red")):
            Image.new("RGB", (400, 300), colour).save(here / name)
        program = here / ".venv" / "bin" / "darkroom"
        program.parent.mkdir(parents=True)
        program.write_text(f'#!/bin/sh\nexec {quote(sys.executable)} -m cli.main "$@"\n')
        program.chmod(0o755)
        variables = dict(line.split("=", 1) for line in (stack.home / "stack.env").read_text().splitlines())
        yield here, os.environ | variables | {"PYTHONPATH": str(ROOT)}


def run(reader: tuple[Path, dict[str, str]], *command: str) -> str:
    folder, variables = reader
    answer = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def run_edit(stack: Stack, reader: tuple[Path, dict[str, str]], command: str) -> str:
    """What it says; the provider begins once the request has been named."""
    folder, variables = reader
    stack.set_options(concurrency=0)
    try:
        with subprocess.Popen(("bash", "-c", command), cwd=folder, env=variables, stdout=PIPE, text=True) as process:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(line)
                if line.startswith("submitted"):
                    stack.set_options(concurrency=2)
    finally:
        stack.set_options(concurrency=2)
    assert process.returncode == 0
    return "".join(said)


def test_page_runs_from_top_to_bottom(stack: Stack, reader: tuple[Path, dict[str, str]]) -> None:
    """The edit is stored; the request that it names is asked about; the example follows it and finds its image."""
    edit, *follow_ups = COMMANDS
    said = run_edit(stack, reader, edit)
    assert re.search(r"0\.png  3840x2160  image/png", said)
    (request_id,) = re.findall(r"^submitted  request (\S+)$", said, re.MULTILINE)
    reader[1]["REQUEST_ID"] = request_id

    assert len(follow_ups) == 3
    for question in follow_ups:
        assert run(reader, "bash", "-c", question)
    (example,) = blocks("python")
    printed = run(reader, sys.executable, "-c", example)
    assert "COMPLETED" in printed
    assert re.search(r"succeeded \['http\S+\.png'\]", printed)
