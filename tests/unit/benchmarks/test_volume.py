"""The disk of a chaos run really fails, and works again; whoever may mount fills it, everybody else is refused."""

import errno
import os
from pathlib import Path

import pytest

from benchmarks.volume import Volume


def test_it_fails_and_works_again(tmp_path: Path) -> None:
    """What was written stays; nothing more can be written, not one byte; then it can."""
    volume = Volume(tmp_path / "images")
    volume.mount()
    try:
        kept = volume.path / "batch" / "0.png"
        kept.parent.mkdir()
        kept.write_bytes(b"before")
        volume.fail()
        if volume.fails_by.startswith("not at all"):
            pytest.skip("nothing may be mounted here")
        with pytest.raises(OSError, match=r".") as refused:
            (kept.parent / "1.png").write_bytes(b"x")
        assert refused.value.errno in (errno.ENOSPC, errno.EACCES)
        assert kept.read_bytes() == b"before"
        volume.mend()
        (kept.parent / "1.png").write_bytes(b"x")
    finally:
        volume.unmount()
    assert not os.path.ismount(volume.path)
