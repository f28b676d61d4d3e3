"""An end to every call, whatever its peer does.

A socket's timeout starts anew with every byte, so a peer that sends one now and then, in its headers or in the TLS
handshake, could hold a thread for hours.
"""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from http_client.alarms import CLOCK


class Call:
    """One call under way, and the connections it has made."""

    def __init__(self) -> None:
        self.cut_off = False
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []

    def watch(self, sock: socket.socket) -> None:
        """Cut this connection too, when it is time, or now, if it is."""
        with self._lock:
            # the same connection beneath TLS, whose own `shutdown` another thread must not call
            self._sockets.append(socket.socket(fileno=os.dup(sock.fileno())))
            if self.cut_off:
                self._shut_down()

    def cut(self) -> None:
        """Its time is over."""
        with self._lock:
            self.cut_off = True
            self._shut_down()

    def _shut_down(self) -> None:
        for sock in self._sockets:
            with suppress(OSError):  # it is closed already
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the sockets; they stay open for whoever else holds them."""
        with self._lock:
            for sock in self._sockets:
                sock.close()
            self._sockets.clear()


@contextmanager
def cut_after(seconds: float) -> Iterator[Call]:
    """After so many seconds cut the connections of the call, unless the block ends before."""
    call = Call()
    alarm = CLOCK.set_alarm(seconds, call.cut)
    try:
        yield call
    finally:
        alarm.cancel()
        call.close()


class Deadline:
    """One per client, safe for threads: hand `watch` to its sessions."""

    def __init__(self) -> None:
        self._local = threading.local()

    @contextmanager
    def within(self, seconds: float) -> Iterator[Call]:
        """After so many seconds cut what this thread connects to inside the block."""
        with cut_after(seconds) as call:
            self._local.call = call
            yield call

    def watch(self, sock: socket.socket) -> None:
        """A connection that this thread has just made."""
        self._local.call.watch(sock)
