"""The disk under the pictures, and two real ways in which it fails: it is full, or it is gone.

As root the folder is a small file system of its own (tmpfs), which a ballast file fills to the last byte. Where nothing
may be mounted, it is put aside and a file stands in its place, as where a network mount has gone: every write fails
with ENOTDIR. Permissions are no way: root passes them.
"""

import os
import subprocess
from pathlib import Path

SIZE = 256 * 2**20
"""Bytes of the file system."""
BLOCK = 64 * 1024


class Volume:
    """The folder `path`; `mount` before anything is in it, `unmount` at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path.parent / f"{path.name}.away"
        self.mounted = self.failing = False

    def mount(self) -> None:
        """Put a file system of its own there, where that is allowed."""
        self.path.mkdir(parents=True, exist_ok=True)
        command = ("mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0777", "tmpfs", str(self.path))
        self.mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0

    def unmount(self) -> None:
        """Take it away again, with what is in it."""
        if self.mounted:
            subprocess.run(("umount", "-l", str(self.path)), check=False)
            self.mounted = False

    def fail(self) -> None:
        """From now on nothing can be written."""
        self.failing = True
        if self.mounted:
            self._fill()
        else:
            self.path.rename(self._ballast)
            self.path.touch()

    def mend(self) -> None:
        """As before."""
        self.failing = False
        if self.mounted:
            (self.path / ".ballast").unlink(missing_ok=True)
        else:
            self.path.unlink(missing_ok=True)
            self._ballast.rename(self.path)

    def _fill(self) -> None:
        block = bytes(BLOCK)
        with (self.path / ".ballast").open("ab", buffering=0) as file:
            for size in (BLOCK, 1):
                try:
                    while True:
                        file.write(block[:size])
                except OSError:
                    continue
