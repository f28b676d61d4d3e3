"""What a stranger needs to join: a licence, a guide, and the same checks before a commit as in CI."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text()


def test_licence() -> None:
    """The licence is one text, named by its SPDX word, and holds its holder."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "MIT"
    assert project["license-files"] == ["LICENSE"]
    text = (ROOT / "LICENSE").read_text()
    assert text.startswith("MIT License\n\nCopyright (c) 2026 the darkroom developers\n")


def test_before_a_commit_runs_what_make_check_runs() -> None:
    """The hooks are the recipe of `make check`, line by line, and need no network."""
    hooks = [
        hook
        for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
        for hook in repo["hooks"]
    ]
    (recipe,) = re.findall(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    commands = [line.strip().removeprefix("@").replace("$(BIN)", ".venv/bin") for line in recipe.splitlines()]
    assert [hook["entry"] for hook in hooks] == commands
    assert {(hook["language"], hook["pass_filenames"], hook["always_run"]) for hook in hooks} == {
        ("system", False, True)
    }


def test_guide_names_files_that_exist() -> None:
    """Every file and folder that CONTRIBUTING.md names is there."""
    named = set(re.findall(r"`([\w.-]+/[\w./-]*|[\w-]+\.(?:md|txt|yml))`", GUIDE))
    made = {".darkroom/logs/NAME.log"}
    assert len(named) > 20
    assert [name for name in named - made if not (ROOT / name).exists()] == []
    for target in re.findall(r"\]\(([^)#:]+)\)", GUIDE):
        assert (ROOT / target).exists(), target


def test_guide_commands_exist() -> None:
    """Every `make` target that CONTRIBUTING.md shows exists."""
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^\$ make ([a-z-]+)", GUIDE, re.MULTILINE)) <= targets


def test_changelog_begins_with_what_is_not_released() -> None:
    """There is a place for the next line."""
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.findall(r"^## (.*)$", text, re.MULTILINE)[0] == "[Unreleased]"


def test_editors_are_told_how_the_files_are() -> None:
    """.editorconfig says what the formatter does: its line length is ruff's."""
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]
    assert f"max_line_length = {ruff['line-length']}\n" in (ROOT / ".editorconfig").read_text()
