"""docs/emulator.md is run from its first command to its last, and its tables are the code's own."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from aiohttp import web

from fal_emulator.app import everything
from fal_emulator.faults import TABLE
from fal_emulator.options import Options

from .emulator_process import wait_for
from .test_unknowns import UNKNOWNS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "emulator.md").read_text()
PORTS = ("8100", "8443", "8888")


def table(*rows: tuple[str, ...]) -> str:
    """A table of Markdown; the first row is its head."""
    head, *others = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *others])


def faults() -> str:
    rows = [
        (f"`{fault.kind}`", fault.moment, fault.says, f"{fault.value:g}" if fault.value else "")
        for fault in TABLE.values()
    ]
    return table(("kind", "moment", "what happens", "value"), *rows)


def options() -> str:
    rows = []
    for field in fields(Options):
        live = " *" if field.metadata.get("live") else ""
        default = (
            {True: "on", False: "off", None: ""}.get(field.default, field.default) if field.name != "fault" else ""
        )
        if type(field.default) in (int, float):
            default = f"{field.default:.10g}"
        shown = f"`{default}`".replace("|", "\\|") if default != "" else ""
        rows.append((f"`--{field.name.replace('_', '-')}`{live}", shown, field.metadata["help"]))
    return table(("option", "default", ""), *rows)


def routes() -> str:
    app = web.Application()
    everything(app)
    rows = []
    for route in app.router.routes():
        if route.method != "HEAD" and route.resource:
            route_name, _, said = " ".join((route.handler.__doc__ or "").split()).partition("`: ")
            assert said, route
            query = "?" + route_name.partition("?")[2] if "?" in route_name else ""
            said = re.sub(r" \((?:fal|provider)-protocol [\d., and]+\)", "", said).rstrip(".")
            rows.append((f"`{route.method} {route.resource.canonical}{query}`", said))
    return table(("route", ""), *rows)


@pytest.mark.parametrize("made", [faults, options, routes])
def test_tables_are_the_code(made):
    """Every fault, every option, every route, in the code's words."""
    name = made.__name__

    assert f"<!-- {name} -->\n\n{made()}\n\n<!-- /{name} -->" in PAGE


def test_every_unknown_is_named():
    """What fal does not say is listed with exactly the options that the tests turn."""
    listed = PAGE.partition("| unknown | option |")[2].partition("\n\n")[0]

    assert {option for option, *_ in UNKNOWNS} == set(re.findall(r"`([a-z_0-9]+)`", listed.replace("`error`", "")))


class Shell:
    """Runs what the page shows, in a folder of its own; servers stay until their port is wanted again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "FAL_KEY": "any:key"}
        self.servers: dict[str, subprocess.Popen[str]] = {}

    def local(self, text: str) -> str:
        for port, free in self.ports.items():
            text = text.replace(port, free)
        return re.sub(r"(^|\s)python ", rf"\1{shlex.quote(sys.executable)} ", text)

    def console(self, block: str) -> None:
        exports = []
        for command in re.findall(r"^\$ (.*)$", block, re.MULTILINE):
            line = self.local(re.sub(r"^darkroom ", "python -c 'from cli.main import main; main()' ", command))
            if command.startswith("export "):
                exports.append(line)
            elif command == "darkroom up":  # tests/stack starts it; here it is enough that it has such settings
                settings = (ROOT / "docs" / "settings.md").read_text()
                assert [name for name in re.findall(r" (\w+)=", " ".join(exports)) if f"`{name}`" not in settings] == []
            elif command.startswith("darkroom emulator ") or command == "python proxy.py":
                self.serve(command, f"{line} --latency 0.2" if "emulator" in command else line)
            else:
                self.run("bash", "-ec", "\n".join([*exports, line]))

    def serve(self, command: str, line: str) -> None:
        port = next((port for port in PORTS if port in command), "8888")
        self.end(port)
        self.servers[port] = subprocess.Popen(
            ["bash", "-c", f"exec {line}"], cwd=self.folder, env=self.environment, text=True
        )
        wait_for(lambda: listens(int(self.ports[port])), 60)

    def python(self, block: str) -> None:
        named = re.match(r"# (\w+\.py)\n", block)
        path = self.folder / (named[1] if named else "block.py")
        path.write_text(self.local(block))
        if not named:
            self.run(sys.executable, str(path))

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def end(self, port: str) -> None:
        if server := self.servers.pop(port, None):
            server.terminate()
            server.wait(60)


def free_ports(count: int) -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [str(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return found


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("openssl")), reason="the page uses curl and openssl")
def test_the_page_from_beginning_to_end(tmp_path):
    """Every block, in order: the emulator, four ways for the official client, darkroom, faults, a fixture."""
    shell = Shell(tmp_path)
    try:
        for language, block in re.findall(r"^```(console|python)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
            getattr(shell, language)(block)
        state = shell.run("curl", "-s", shell.local("http://127.0.0.1:8100/_emulator/state"))
        tested = shell.run(sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", ".", "test_charges.py")
    finally:
        for port in PORTS:
            shell.end(port)

    assert "1 passed" in tested
    assert '"charges"' in state
