"""`python -m fal_emulator`: the command line; every option is a field of `Options`."""

import argparse
import asyncio
import gc
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from aiohttp import web

from . import BANNER
from .app import create_app
from .fault_plan import read_rules
from .faults import TABLE, UnknownFault
from .options import Options
from .store import StateInUse

STOP_WITHIN = 0.5  # seconds that requests under way get before they are cut
BACKLOG = 1024


def parser() -> argparse.ArgumentParser:
    """One option per field, with the field's help and default."""
    made = argparse.ArgumentParser(prog="python -m fal_emulator", description=BANNER)
    made.add_argument("--list-faults", action="store_true", help="print the kinds of faults and leave")
    for field in fields(Options):
        name, text = "--" + field.name.replace("_", "-"), field.metadata["help"]
        if field.name == "fault":
            made.add_argument(name, action="append", metavar="KIND=RATE", help=text)
        elif isinstance(field.default, bool):
            shown = f"{text} (default: {'on' if field.default else 'off'})"
            made.add_argument(name, action=argparse.BooleanOptionalAction, default=None, help=shown)
        else:
            kind = str if field.default is None else type(field.default)
            kind = Path if isinstance(field.default, Path) else kind
            choices = field.metadata["choices"]
            shown = f"{text} (default: {field.default})"
            made.add_argument(name, type=kind, choices=choices, metavar=None if choices else "X", help=shown)
    return made


def options_from(arguments: Sequence[str]) -> Options | None:
    """The options of a command line; None when only the faults were asked for."""
    made = parser()
    given = vars(made.parse_args(arguments))
    if given.pop("list_faults"):
        return None
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if "fault" in chosen:
        chosen["fault"] = dict(text.partition("=")[::2] for text in chosen["fault"])
    try:
        read_rules(chosen.get("fault", {}))
        return Options(**chosen)
    except (UnknownFault, ValueError) as error:
        made.error(str(error))


async def serve(options: Options) -> int:
    """Listen until a signal; 2 when that is impossible."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(create_app(options), access_log=None, shutdown_timeout=STOP_WITHIN)
    try:  # the port first: nothing is taken up again before it is certain that somebody can ask
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        listener = socket.create_server((options.host, options.port), family=family, backlog=BACKLOG)
    except OSError as error:
        return _complain(f"cannot listen on {options.host}:{options.port}: {error.strerror or error}")
    try:
        await runner.setup()
    except StateInUse as error:
        listener.close()
        return _complain(str(error))
    try:
        await web.SockSite(runner, listener, ssl_context=_tls(options), backlog=BACKLOG).start()
    except OSError as error:  # an ssl.SSLError is one, too
        await runner.cleanup()
        return _complain(f"cannot use {options.tls_cert} with {options.tls_key}: {error.strerror or error}")
    scheme = "https" if options.tls_cert else "http"
    _say(BANNER)
    _say(f"fal emulator ready at {options.public_url or f'{scheme}://{options.host}:{listener.getsockname()[1]}'}")
    await stop.wait()
    await runner.cleanup()
    return 0


def _tls(options: Options) -> ssl.SSLContext | None:
    if options.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(options.tls_cert, options.tls_key)
    return context


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _complain(text: str) -> int:
    sys.stderr.write(f"fal emulator: {text}\n")
    return 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    options = options_from(sys.argv[1:] if arguments is None else arguments)
    if options is None:
        for fault in TABLE.values():
            _say(f"{fault.kind:31}{fault.moment:10} {fault.says}")
        return 0
    return asyncio.run(serve(options))


if __name__ == "__main__":
    exit_code = main()
    gc.freeze()  # nothing of what is left needs to be sought out before the process ends
    sys.exit(exit_code)
