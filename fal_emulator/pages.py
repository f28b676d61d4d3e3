"""The page at `/`: says what this is, and shows counts, last requests and faults, and loads nothing from elsewhere."""

import json
import time
from collections.abc import Iterable
from html import escape
from urllib.parse import urlsplit

from aiohttp import web

from . import BANNER, NAME
from .admin import counts
from .cdn import UNSPOILT
from .emulator import Emulator, emulator_of
from .job import Job
from .options import Options

SHOWN = 40  # requests on the page
WHOLE = "\u2009"  # thin space between thousands

STYLE = """
:root { --ink:#2b2825; --soft:#80786e; --paper:#f7f4ee; --card:#fffdf9; --line:#e2dbcf; --red:#a8322a; --ok:#2f6b46 }
@media (prefers-color-scheme: dark) {
  :root { --ink:#ece6dc; --soft:#a79d90; --paper:#191614; --card:#221e1b; --line:#3a342e; --red:#e0705f; --ok:#7fc398 }
}
* { box-sizing:border-box }
body { margin:0; background:var(--paper); color:var(--ink); font:15px/1.5 system-ui,sans-serif }
main { max-width:1180px; margin:0 auto; padding:2.2rem 1.2rem 4rem }
h1 { font-size:1.55rem; margin:0 0 .2rem; letter-spacing:-.01em }
h2 { font-size:1rem; margin:2.2rem 0 .6rem }
p { margin:.2rem 0; color:var(--soft); max-width:70ch }
.lamp { display:inline-block; width:.62em; height:.62em; border-radius:50%; background:var(--red); margin-right:.5em }
dl { display:grid; grid-template-columns:repeat(auto-fill,minmax(128px,1fr)); gap:.7rem; margin:1.4rem 0 0 }
dl div { background:var(--card); border:1px solid var(--line); border-radius:8px; padding:.6rem .8rem }
dt { color:var(--soft); font-size:.78rem } dd { margin:0; font-size:1.35rem; font-variant-numeric:tabular-nums }
.wide { overflow-x:auto; background:var(--card); border:1px solid var(--line); border-radius:8px }
table { border-collapse:collapse; width:100%; font-size:.86rem; font-variant-numeric:tabular-nums }
th,td { text-align:left; padding:.42rem .7rem; border-top:1px solid var(--line); white-space:nowrap }
th { color:var(--soft); font-weight:500; border-top:0 }
td img { height:44px; display:block; border:1px solid var(--line) }
td.pictures { display:flex; gap:.3rem }
.bad { color:var(--red) } .good { color:var(--ok) } .soft { color:var(--soft) }
code { font-family:ui-monospace,monospace; font-size:.92em }
"""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{name}</title><style>{style}</style></head><body><main>
<h1><span class="lamp"></span>{name}</h1>
<p>{banner}</p>
<p>Up {uptime}, {how}.</p>
<dl>{counts}</dl>
<h2>Last requests</h2>{requests}
<h2>Faults injected</h2>{faults}
<h2>For programs</h2>
<p><a href="/_emulator/ledger">ledger</a> · <a href="/_emulator/state">state</a> ·
<a href="/_emulator/faults">faults</a> · <a href="/.well-known/jwks.json">keys</a> ·
<a href="/v1/models">models</a></p>
</main></body></html>
"""


async def index(request: web.Request) -> web.Response:
    """`GET /`."""
    emulator = emulator_of(request)
    jobs = emulator.ledger.latest(SHOWN)
    injected = emulator.faults.injected
    text = PAGE.format(
        name=NAME,
        style=STYLE,
        banner=escape(BANNER),
        uptime=_span(time.time() - emulator.started_at),
        how=escape(_manner(emulator.options)),
        counts="".join(f"<div><dt>{escape(k)}</dt><dd>{v}</dd></div>" for k, v in _figures(emulator)),
        requests=_table(HEAD, (_row(job) for job in jobs), "Nothing was submitted yet."),
        faults=_table(("kind", "times"), ((escape(k), str(v)) for k, v in sorted(injected.items())), "None."),
    )
    return web.Response(text=text, content_type="text/html")


def _manner(options: Options) -> str:
    speed = f", clocks {options.time_scale:g} times faster" if options.time_scale != 1 else ""
    pace = f"{options.concurrency} requests at once, about {options.latency:g} s each"
    return f"{pace}, {options.picture_mode} pictures{speed}"


def _figures(emulator: Emulator) -> list[tuple[str, str]]:
    found = counts(emulator)
    cost = emulator.options.credits - emulator.balance
    figures = {name.replace("_", " "): f"{value:,}".replace(",", WHOLE) for name, value in found.items()}
    return [*figures.items(), ("would have cost", f"${cost:,.2f}")]


HEAD = ("accepted", "request", "state", "outcome", "seed", "pictures", "charges", "took", "webhook", "faults")


def _row(job: Job) -> tuple[str, ...]:
    outcome = "" if job.status is None else f"{job.status} {job.error_type or ''}".strip()
    kind = "good" if job.status == 200 else "bad"
    took = "" if job.ended_at is None else f"{job.ended_at - job.submitted_at:.1f} s"
    owed = f"{job.webhook_state}, {job.webhook_tries} tries" if job.webhook_url else "none"
    return (
        time.strftime("%H:%M:%S", time.localtime(job.submitted_at)),
        f'<code title="{escape(job.endpoint_id)}">{escape(job.request_id[:13])}</code>',
        job.state,
        f'<span class="{kind}">{escape(outcome)}</span>',
        "" if job.seed is None else str(job.seed),
        _pictures(job),
        str(job.billed_units),
        took,
        f'<span class="soft">{escape(owed)}</span>',
        escape(job.injected.replace(",", ", ")),
    )


def _pictures(job: Job) -> str:
    """Small pictures by path, so that the page shows them whatever host name the client used."""
    urls = [image["url"] for image in json.loads(job.images)[:3] if not image["url"].startswith("data:")]
    found = [escape(f"{urlsplit(url).path}?{UNSPOILT}=1") for url in urls]  # looking must not use faults up
    return "".join(f'<a href="{path}"><img src="{path}" alt="" loading="lazy"></a>' for path in found)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], empty: str) -> str:
    """`rows` hold HTML that is safe already."""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    if not body:
        return f"<p>{empty}</p>"
    return f'<div class="wide"><table><tr>{"".join(f"<th>{cell}</th>" for cell in head)}</tr>{body}</table></div>'


def _span(seconds: float) -> str:
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min {int(seconds) % 60} s"
