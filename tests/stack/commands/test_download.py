"""`darkroom download`: every image of the batch in a folder, whole, under the name that was asked for, once."""

import os
from pathlib import Path

import pytest
from sqlalchemy import Engine

from cli.batches import copy_images, stored_images
from cli.batches.file_names import FileNames
from core.errors import StorageUnavailable, UserError
from storage.store import Storage
from tests.support.command_line import CommandLine
from tests.support.stored_images import png, stored


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Where the command line looks for stored images."""
    return tmp_path / "images"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_image_under_its_name(run_cli: CommandLine, engine: Engine, store: Path, tmp_path: Path) -> None:
    """As their edits are called; a second call copies nothing, and a file that was changed is put right."""
    stored(engine, store, 3)
    said = run_cli("download", "last", tmp_path / "copy", "--json")
    assert (said.code, said.json["copied"], said.json["present"], said.json["failed"]) == (0, 3, 0, 0)
    assert files(tmp_path / "copy") == {f"{number}/0.png": png(number) for number in range(3)}
    (tmp_path / "copy" / "1" / "0.png").write_bytes(b"changed")
    said = run_cli("download", "last", tmp_path / "copy")
    assert said.out == f"1 image copied to {tmp_path / 'copy'}, 2 lay there already\n"
    assert files(tmp_path / "copy")["1/0.png"] == png(1)


def test_template(run_cli: CommandLine, engine: Engine, store: Path, tmp_path: Path) -> None:
    """Other names, and no folder for each edit."""
    batch, _ = stored(engine, store, 2)
    run_cli("download", "last", tmp_path / "copy", "--name", "{batch_id}-{position:03}_{index}")
    assert set(files(tmp_path / "copy")) == {f"{batch}-000_0.png", f"{batch}-001_0.png"}


@pytest.mark.parametrize(
    ("template", "word"),
    [
        ("{custom_id}", "one name"),
        ("{index}", "one name"),
        ("", "one name"),
        ("{name}/{index}", "no field {name}"),
        ("{custom_id}/{index}}", "brace"),
        ("{custom_id/{index}", "brace"),
        ("{custom_id!r}/{index}", "brace"),
        ("{custom_id.__class__}/{index}", "brace"),
        ("{index:999999999}/{custom_id}", "brace"),
        ("{custom_id:5}/{index}", "no number"),
        ("../{custom_id}/{index}", "no path"),
        ("/{custom_id}/{index}", "no path"),
        ("{custom_id}//{index}", "no path"),
        ("{custom_id}/{index}\n", "no path"),
    ],
)
def test_template_that_names_no_file(template: str, word: str) -> None:
    """Refused before anything is copied."""
    with pytest.raises(UserError, match=word):
        FileNames(template)


def test_what_failed_is_named_and_asked_for_again(
    run_cli: CommandLine, engine: Engine, store: Path, tmp_path: Path
) -> None:
    """A missing and a spoilt object do not stop the others; `--only failed` looks at these two alone."""
    _, paths = stored(engine, store, 4)
    paths[1].unlink()
    paths[2].write_bytes(b"x" * len(png(2)))
    said = run_cli("download", "last", tmp_path / "copy")
    assert said.code == 1
    assert "1/0  is not in storage" in said.err
    assert "2/0  is not what was stored" in said.err
    assert set(files(tmp_path / "copy")) - {path.name for path in (tmp_path / "copy").glob(".failed-*")} == {
        "0/0.png",
        "3/0.png",
    }
    paths[1].write_bytes(png(1))
    paths[2].write_bytes(png(2))
    (tmp_path / "copy" / "0" / "0.png").unlink()
    said = run_cli("download", "last", tmp_path / "copy", "--only", "failed", "--json")
    assert (said.code, said.json["copied"]) == (0, 2)
    assert set(files(tmp_path / "copy")) == {"1/0.png", "2/0.png", "3/0.png"}
    assert run_cli("download", "last", tmp_path / "copy", "--only", "failed").code == 2


def test_only_edits_in_a_state(run_cli: CommandLine, engine: Engine, store: Path, tmp_path: Path) -> None:
    """Of failed edits nothing came here."""
    stored(engine, store, 2)
    assert run_cli("download", "last", tmp_path / "copy", "--state", "failed", "--json").json["copied"] == 0


def test_folder_that_is_none(run_cli: CommandLine, engine: Engine, store: Path, tmp_path: Path) -> None:
    """A file where the folder should be: one sentence."""
    stored(engine, store, 2)
    (tmp_path / "file").write_text("")
    said = run_cli("download", "last", tmp_path / "file" / "copy")
    assert (said.code, said.err.count("\n")) == (2, 1)


def test_file_in_the_way_of_one_image(run_cli: CommandLine, engine: Engine, store: Path, tmp_path: Path) -> None:
    """The others are copied."""
    stored(engine, store, 2)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "0").write_text("in the way")
    said = run_cli("download", "last", tmp_path / "copy", "--json")
    assert (said.code, said.json["copied"], said.json["failed"]) == (1, 1, 1)


def test_store_that_gives_nothing(
    run_cli: CommandLine, engine: Engine, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a few images in a row it is not asked any more."""
    stored(engine, store, 12)
    asked = []

    def refuse(_: Storage, key: str, **__: object) -> None:
        asked.append(key)
        raise StorageUnavailable("unreachable", "it does not answer")

    monkeypatch.setattr(Storage, "open_range", refuse)
    said = run_cli("download", "last", tmp_path / "copy")
    assert (said.code, said.err.splitlines()[-1]) == (
        2,
        "darkroom: The store gives nothing: it does not answer. Call again to go on.",
    )
    assert stored_images.REFUSALS <= len(asked) <= stored_images.REFUSALS + 4


def test_names_that_the_folder_takes_for_one(
    run_cli: CommandLine, engine: Engine, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Hat` and `hat` stay two files on a disk that folds case."""
    monkeypatch.setattr(copy_images, "folds_case", lambda _: True)
    stored(engine, store, 2)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE edits SET custom_id = CASE position WHEN 0 THEN 'Hat' ELSE 'hat' END")
    run_cli("download", "last", tmp_path / "copy")
    names = [name.split("/")[0] for name in files(tmp_path / "copy")]
    assert len({name.lower() for name in names}) == 2


def test_links_are_not_written_through(run_cli: CommandLine, engine: Engine, store: Path, tmp_path: Path) -> None:
    """A link where an image should lie is replaced, and what it leads to is left alone."""
    stored(engine, store, 1)
    (tmp_path / "copy" / "0").mkdir(parents=True)
    (tmp_path / "other").write_text("somebody's")
    os.symlink(tmp_path / "other", tmp_path / "copy" / "0" / "0.png")
    assert run_cli("download", "last", tmp_path / "copy").code == 0
    assert (tmp_path / "other").read_text() == "somebody's"
    assert not (tmp_path / "copy" / "0" / "0.png").is_symlink()
