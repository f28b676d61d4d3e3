"""The disk under the images, and the real ways in which it fails: full, or closed.

As root the folder is a small file system of its own (tmpfs), which a ballast file fills to the last byte: ENOSPC. Root
passes permissions; everybody else is refused by them: EACCES. Where neither can be had (root in a container that may
mount nothing) storage does not fail, and the run says so.
"""

import os
import subprocess
from pathlib import Path

SIZE = 256 * 2**20
"""Bytes of the file system."""
BLOCK = 64 * 1024
OPEN, CLOSED = 0o755, 0o555


class Volume:
    """The folder `path`; `mount` before anything is in it, `unmount` at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mounted = False
        self.failing = False

    @property
    def fails_by(self) -> str:
        """How it fails, for people."""
        if self._mounted:
            return "a full disk"
        return "not at all: nothing can be mounted, and root passes permissions" if os.geteuid() == 0 else "permissions"

    def mount(self) -> None:
        """Put a file system of its own there, where that is allowed."""
        self.path.mkdir(parents=True, exist_ok=True)
        command = ("mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0777", "tmpfs", str(self.path))
        self._mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0

    def unmount(self) -> None:
        """Take it away again, with what is in it."""
        if self.failing:
            self.mend()
        if self._mounted:
            subprocess.run(("umount", "-l", str(self.path)), check=False)
            self._mounted = False

    def fail(self) -> None:
        """From now on nothing can be written."""
        self.failing = True
        if self._mounted:
            self._fill()
        else:
            self._set_mode(CLOSED)

    def mend(self) -> None:
        """As before."""
        self.failing = False
        if self._mounted:
            (self.path / ".ballast").unlink(missing_ok=True)
        else:
            self._set_mode(OPEN)

    def _set_mode(self, mode: int) -> None:
        for folder in (self.path, *(path for path in self.path.rglob("*") if path.is_dir())):
            folder.chmod(mode)

    def _fill(self) -> None:
        """Write until there is no room for a byte more."""
        block = bytes(BLOCK)
        with (self.path / ".ballast").open("ab", buffering=0) as file:
            for size in (BLOCK, 1):
                try:
                    while True:
                        file.write(block[:size])
                except OSError:
                    continue
