"""The command line in this process, with a database and without a stack: quick enough for many small tests."""

import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import Engine, create_engine

from cli.main import main
from models import database


class Said(NamedTuple):
    """What one command said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on standard output."""
        (line,) = self.out.splitlines()
        return dict(json.loads(line))

    @property
    def lines(self) -> list[dict[str, Any]]:
        """One object a line."""
        return [json.loads(line) for line in self.out.splitlines()]


class CommandLine:
    """Types commands; the environment is put back after the test."""

    def __init__(self, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path, **given: str) -> None:
        self._patch, self._capsys = patch, capsys
        patch.setattr(os, "environ", os.environ.copy())
        self.set(DARKROOM_HOME=str(home), **given)
        self._engines: list[Engine] = []
        patch.setattr(database, "create_engine", self._engine)

    def set(self, **variables: str) -> None:
        for name, value in variables.items():
            self._patch.setenv(name, value)

    def _engine(self, *given: Any, **more: Any) -> Engine:
        """An engine that is closed with its command, as it is where each command is a process."""
        self._engines.append(create_engine(*given, **more))
        return self._engines[-1]

    def __call__(self, *arguments: object) -> Said:
        self._capsys.readouterr()
        self._patch.setattr(sys, "argv", ["darkroom", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        while self._engines:
            self._engines.pop().dispose()
        said = self._capsys.readouterr()
        assert "Traceback" not in said.err
        code = stop.value.code
        return Said(code if isinstance(code, int) else 0, said.out, said.err)
