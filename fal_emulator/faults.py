"""Every way in which the stand-in can misbehave, in one table, and the seeded plan that decides when.

A fault fires because of a rate (command line, `PUT /_emulator/faults`) or because of a marker in the prompt:
`[[fault:kind]]` every time, `[[fault:kind*2]]` the first two times for the same prompt and pictures,
`[[fault:kind@5]]` with a value. Draws of a kind are numbered; draw n of a seed always comes out the same.
"""

import hashlib
import json
import random
import re
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .store import Store

_MARKER = re.compile(r"\[\[fault:([a-z0-9_]+)(?:\*(\d+))?(?:@(\d+(?:\.\d+)?))?\]\]")
_RULE = re.compile(r"^(\d*\.?\d+)(?:\*(\d+))?(?:@(\d+(?:\.\d+)?))?$")
_REMEMBERED = 20_000  # counted markers kept in memory


class UnknownFault(ValueError):
    """There is no fault of this name, or its rule cannot be read."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of the table. `value` is what the fault may be tuned by: seconds, or bytes."""

    kind: str
    moment: str
    says: str
    value: float = 0.0


@dataclass(frozen=True, slots=True)
class Rule:
    """How often a fault fires by itself."""

    rate: float
    times: int | None = None
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Injection:
    """A fault that fires now."""

    kind: str
    value: float


_MB = 2.0**20
TABLE = {
    fault.kind: fault
    for fault in (
        # before the request is accepted: nothing is queued, nothing is charged
        Fault("refuse_500", "submit", "answer 500 JSON without accepting"),
        Fault("nginx_502_before", "submit", "answer nginx's 502 page without accepting"),
        Fault("reset_before_accept", "submit", "reset the connection without accepting"),
        Fault("busy_429", "submit", "answer 429 without accepting"),
        Fault("bad_key_401", "submit", "answer 401 'invalid key credentials' without accepting"),
        Fault("locked_403", "submit", "answer 403 'User is locked' without accepting"),
        # after it is accepted: the request runs and is charged, only the reply is spoilt
        Fault("reset_after_accept", "reply", "accept, then reset the connection"),
        Fault("hang_after_accept", "reply", "accept, then never answer (seconds until the cut)", 300.0),
        Fault("nginx_502_after", "reply", "accept, then answer nginx's 502 page"),
        Fault("broken_json", "reply", "accept, then answer 200 with JSON that breaks off"),
        Fault("missing_fields", "reply", "accept, then answer 200 without request_id and URLs"),
        Fault("slow_submit", "reply", "accept, then answer late (seconds)", 3.0),
        Fault("webhook_before_reply", "reply", "answer only after the first webhook attempt (seconds at most)", 60.0),
        # status and result requests; the request itself is untouched
        Fault("status_500", "status", "status answers 500"),
        Fault("status_404", "status", "status answers 404 NOT_FOUND"),
        Fault("slow_status", "status", "status answers late (seconds)", 3.0),
        Fault("result_500", "result", "result answers a gateway's 500, without x-fal-request-id"),
        Fault("result_404", "result", "result answers 404 'Request not found'"),
        Fault("slow_result", "result", "result answers late (seconds)", 3.0),
        # how the model's run ends
        Fault("content_policy_violation", "outcome", "422: the partner's content check refuses"),
        Fault("internal_server_error", "outcome", "500 model error"),
        Fault("downstream_service_error", "outcome", "model error of the partner (value is the status)", 500.0),
        Fault("generation_timeout", "outcome", "504 model error"),
        Fault("file_download_error", "outcome", "422: the input could not be fetched"),
        Fault("no_media_generated", "outcome", "422: the model made nothing"),
        Fault("completed_with_error", "outcome", "503 runner_disconnected: COMPLETED with error and error_type"),
        Fault("internal_retry", "outcome", "first attempt fails inside; gateway_request_id changes"),
        Fault("finish_despite_cancel", "outcome", "a cancelled run finishes and is charged all the same"),
        # what the result says about the pictures
        Fault("fewer_images", "shape", "one picture fewer than asked for, at least one"),
        Fault("no_images", "shape", "200 with an empty list of images"),
        Fault("bare_images", "shape", "images carry only their url"),
        Fault("wrong_dimensions", "shape", "width and height are declared wrong"),
        Fault("wrong_size", "shape", "file_size is declared wrong"),
        # once per webhook
        Fault("drop_webhook", "delivery", "never deliver"),
        Fault("duplicate_webhook", "delivery", "deliver twice"),
        Fault("delay_webhook", "delivery", "deliver late (seconds)", 5.0),
        Fault("reorder_webhook", "delivery", "deliver after a later request's webhook (seconds at most)", 10.0),
        # once per attempt; every one of these is sent for real
        Fault("wrong_key", "attempt", "sign with a key that is not published"),
        Fault("rotated_key", "attempt", "rotate the key, then sign with the new one"),
        Fault("stale_timestamp", "attempt", "sign with an old timestamp (seconds ago)", 3600.0),
        Fault("tampered_body", "attempt", "change the body after signing"),
        Fault("other_user", "attempt", "sign for another account"),
        Fault("payload_error", "attempt", "payload null with payload_error"),
        Fault("null_payload", "attempt", "status OK with payload null"),
        Fault("null_error", "attempt", "status ERROR with payload null and 'Internal server error'"),
        Fault("huge_body", "attempt", "a very large body (bytes)", 8 * _MB),
        Fault("mismatched_id", "attempt", "body and header name different requests"),
        Fault("foreign_id", "attempt", "body and header name a request of somebody else"),
        # downloads of produced files
        Fault("cdn_404", "cdn", "the file is gone"),
        Fault("cdn_403", "cdn", "the file is forbidden"),
        Fault("cdn_slow", "cdn", "the file comes in drops (seconds in all)", 10.0),
        Fault("cdn_truncated", "cdn", "the connection breaks in the middle of the file"),
        Fault("cdn_wrong_type", "cdn", "Content-Type text/plain"),
        Fault("cdn_html", "cdn", "an HTML page with 200"),
        Fault("cdn_corrupt", "cdn", "damaged bytes of the right length"),
        Fault("cdn_oversized", "cdn", "padding behind the picture (bytes)", 64 * _MB),
        Fault("cdn_redirect", "cdn", "302 to the same file under another URL"),
    )
}
_BY_MOMENT: dict[str, list[Fault]] = {}
for _fault in TABLE.values():
    _BY_MOMENT.setdefault(_fault.moment, []).append(_fault)


def known(kind: str) -> str:
    """The kind itself, or a sentence that there is none of this name."""
    if kind not in TABLE:
        raise UnknownFault(f"there is no fault {kind!r}; the kinds are: {', '.join(sorted(TABLE))}")
    return kind


def read_rules(given: Mapping[str, Any]) -> dict[str, Rule]:
    """Rules from `{"kind": 0.1}`, `{"kind": "0.1*3@5"}` or `{"kind": {"rate": 0.1, "times": 3, "value": 5}}`."""
    return {known(kind): _rule(kind, spec) for kind, spec in given.items()}


def _rule(kind: str, spec: Any) -> Rule:
    try:
        if isinstance(spec, Mapping):
            rule = Rule(**spec)
        elif match := _RULE.match(str(spec)):
            rate, times, value = match.groups()
            rule = Rule(float(rate), int(times) if times else None, float(value) if value else None)
        else:
            raise TypeError
        if not 0 <= rule.rate <= 1:
            raise TypeError
    except TypeError as error:
        raise UnknownFault(f"{kind}: say RATE[*TIMES][@VALUE] with a rate from 0 to 1, not {spec!r}") from error
    return rule


def read_markers(prompt: str, subject: Iterable[object]) -> str:
    """The markers in a prompt as JSON for the request's row; empty when there are none."""
    found = {
        known(kind): [int(times) if times else None, float(value) if value else None]
        for kind, times, value in _MARKER.findall(prompt)
    }
    if not found:
        return ""
    digest = hashlib.sha256(repr([prompt, *subject]).encode()).hexdigest()[:16]
    return json.dumps({"subject": digest, "faults": found})


class FaultPlan:
    """Decides at each opportunity whether a fault fires, and counts what fired."""

    def __init__(self, store: Store, seed: int, rules: Mapping[str, Any]) -> None:
        self._store = store
        self._seed = seed
        self.rules = read_rules(rules)
        rows = store.rows("SELECT kind, drawn, injected FROM faults")
        self._drawn = Counter({kind: drawn for kind, drawn, _ in rows})
        self.injected = Counter({kind: injected for kind, _, injected in rows})
        self._marked: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._left = {kind: rule.times for kind, rule in self.rules.items()}

    def replace(self, given: Mapping[str, Any]) -> None:
        """Take a new set of rates; what has been counted stays counted."""
        self.rules = read_rules(given)
        self._left = {kind: rule.times for kind, rule in self.rules.items()}

    def draw(self, moment: str, markers: str = "") -> Injection | None:
        """The fault that fires at this opportunity, if any; the first in the table's order."""
        if not markers and not self.rules:
            return None
        marked = json.loads(markers) if markers else {"faults": {}, "subject": ""}
        for fault in _BY_MOMENT[moment]:
            injection = self._marker(fault, marked) or self._rate(fault)
            if injection:
                self._count(fault.kind)
                return injection
        return None

    def _marker(self, fault: Fault, marked: Mapping[str, Any]) -> Injection | None:
        if fault.kind not in marked["faults"]:
            return None
        times, value = marked["faults"][fault.kind]
        if times is not None:
            key = (fault.kind, marked["subject"])
            self._marked[key] = self._marked.pop(key, 0) + 1
            if len(self._marked) > _REMEMBERED:
                self._marked.popitem(last=False)
            if self._marked[key] > times:
                return None
        return Injection(fault.kind, fault.value if value is None else value)

    def _rate(self, fault: Fault) -> Injection | None:
        rule = self.rules.get(fault.kind)
        if rule is None or self._left[fault.kind] == 0:
            return None
        self._drawn[fault.kind] += 1
        dice = random.Random(f"{self._seed}:{fault.kind}:{self._drawn[fault.kind]}")
        if dice.random() >= rule.rate:
            return None
        left = self._left[fault.kind]
        self._left[fault.kind] = None if left is None else left - 1
        return Injection(fault.kind, fault.value if rule.value is None else rule.value)

    def _count(self, kind: str) -> None:
        self.injected[kind] += 1
        self._store.write(
            "INSERT INTO faults VALUES (?, ?, ?) ON CONFLICT (kind) DO UPDATE"
            " SET drawn = excluded.drawn, injected = excluded.injected",
            (kind, self._drawn[kind], self.injected[kind]),
        )

    def report(self) -> dict[str, Any]:
        """Rules, counts and the table itself, for `GET /_emulator/faults`."""
        return {
            "seed": self._seed,
            "rules": {kind: asdict(rule) for kind, rule in self.rules.items()},
            "injected": dict(sorted(self.injected.items())),
            "kinds": {
                fault.kind: {"moment": fault.moment, "says": fault.says, "value": fault.value}
                for fault in TABLE.values()
            },
        }
