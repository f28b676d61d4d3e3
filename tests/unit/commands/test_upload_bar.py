"""How far an upload is, said where there is no terminal: now and then, on standard error only."""

from pathlib import Path

import pytest

from cli.batches import upload_bar
from cli.batches.upload_bar import upload_progress
from provider.uploads import LocalFile

FILES = [LocalFile(Path(f"{name}.png"), name, "image/png", 1_000_000) for name in "ab"]


def test_a_line_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and bytes; a file that is sent again counts from its beginning."""
    monkeypatch.setattr(upload_bar, "LINE_EVERY", 0)
    with upload_progress() as begin:
        report = begin(FILES)
        for file, sent in ((FILES[0], 1_000_000), (FILES[1], 500_000), (FILES[1], 0)):
            report(file, sent)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [f"uploading 2 files: {sent} of 2.0 MB" for sent in ("1.0 MB", "1.5 MB", "1.0 MB")]


def test_what_is_quick_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A script's output stays as it was."""
    with upload_progress() as begin:
        begin(FILES)(FILES[0], 10)
    assert capsys.readouterr() == ("", "")
