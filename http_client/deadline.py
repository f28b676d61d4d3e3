"""An end to every call, whatever its peer does.

A socket's timeout starts anew with every byte, so a peer that sends one now and then, in its headers or in the TLS
handshake, could hold a thread for hours.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Call:
    """One call under way, and the connections it has made."""

    def __init__(self) -> None:
        self.cut_off = False
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []

    def watch(self, sock: socket.socket) -> None:
        """Cut this connection too, when it is time, or now, if it is."""
        with self._lock:
            # a copy: TLS takes the socket itself over; both are the same connection
            self._sockets.append(sock.dup())
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


class Deadline:
    """One per client, safe for threads: hand `watch` to its sessions."""

    def __init__(self) -> None:
        self._local = threading.local()

    @contextmanager
    def within(self, seconds: float) -> Iterator[Call]:
        """After so many seconds cut what this thread connects to inside the block."""
        call = self._local.call = Call()
        timer = threading.Timer(seconds, call.cut)
        timer.daemon = True
        timer.start()
        try:
            yield call
        finally:
            timer.cancel()
            call.close()

    def watch(self, sock: socket.socket) -> None:
        """A connection that this thread has just made."""
        self._local.call.watch(sock)
