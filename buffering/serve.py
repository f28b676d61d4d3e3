"""`python3 -m buffering.serve --host HOST --port PORT --requests N TARGET`: a buffering server under granian.

One process. granian's own command forks a second one, which serves, and watches it; here whoever started us watches
(the supervisor, a container), so that half of the memory would be spent on a process that waits.
"""

import argparse
import asyncio
import signal
from pkgutil import resolve_name

from granian.constants import Interfaces
from granian.log import LogLevels
from granian.server.embed import Server

BACKLOG = 4096
"""Connections that may wait to be accepted."""
END_WITHIN = 5
"""Seconds for what is under way to be answered once it is told to end; a client that reads slowly may take for ever."""


async def serve(target: str, *, host: str, port: int, requests: int) -> None:
    """Serve what `target` (`module:function`) makes until SIGTERM or SIGINT, and answer what is under way by then.

    `requests` is how many connections are served at one time.
    """
    server = Server(
        resolve_name(target)(),
        address=host,
        port=port,
        interface=Interfaces.RSGI,
        websockets=False,
        backlog=BACKLOG,
        backpressure=requests,
        log_level=LogLevels.error,  # below it, every start warns that embedding is experimental
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, _end, server)
    await server.serve()


def _end(server: Server) -> None:
    # the system's own alarm, which ends a process: granian may hold the interpreter while it waits for the end of a
    # streamed answer, which only the interpreter could bring about
    signal.alarm(END_WITHIN)
    server.stop()  # type: ignore[no-untyped-call]


def main() -> None:
    """Read the command line, and serve."""
    parser = argparse.ArgumentParser(prog="buffering.serve", description="Serve an application under granian.")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--requests", type=int, required=True, help="connections served at one time")
    parser.add_argument("target", help="module:function, which makes a BufferingServer")
    options = parser.parse_args()
    asyncio.run(serve(options.target, host=options.host, port=options.port, requests=options.requests))


if __name__ == "__main__":
    main()
