"""What a program shows on a terminal of its own."""

import os
from collections.abc import Iterator


def read_terminal(leader: int) -> Iterator[bytes]:
    """All that was shown so far, after each piece of it, until the other end is closed; closes this one."""
    shown = b""
    try:
        while True:
            try:
                shown += os.read(leader, 65536)
            except OSError:  # the other end is closed
                return
            yield shown
    finally:
        os.close(leader)
