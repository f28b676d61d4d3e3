"""Decides when a fault fires: because of a rate, or because of a marker in the prompt.

`[[fault:kind]]` fires every time, `[[fault:kind*2]]` the first two times for the same prompt and images,
`[[fault:kind@5]]` with a value. Rates come from the command line or from `PUT /_emulator/faults`. Draws of a kind are
numbered; draw n of a seed always comes out the same.
"""

import hashlib
import json
import random
import re
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .faults import BY_MOMENT, TABLE, Fault, UnknownFault, known
from .store import Store

_MARKER = re.compile(r"\[\[fault:([^\]]*)\]\]")
_MARKED = re.compile(r"([^*@]*)(?:\*(\d+))?(?:@(\d+(?:\.\d+)?))?")
_RULE = re.compile(r"^(\d*\.?\d+)(?:\*(\d+))?(?:@(\d+(?:\.\d+)?))?$")
_REMEMBERED = 20_000  # counted markers kept in memory


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


def read_rules(given: Mapping[str, Any]) -> dict[str, Rule]:
    """Rules from `{"kind": 0.1}`, `{"kind": "0.1*3@5"}` or `{"kind": {"rate": 0.1, "times": 3, "value": 5}}`."""
    return {known(kind): _parse_rule(kind, spec) for kind, spec in given.items()}


def _parse_rule(kind: str, spec: Any) -> Rule:
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
    found: dict[str, list[float | None]] = {}
    for text in _MARKER.findall(prompt):
        match = _MARKED.fullmatch(text)
        if match is None:
            raise UnknownFault(
                f"[[fault:{text}]] cannot be read; say [[fault:kind]], [[fault:kind*2]] or [[fault:kind@5]]"
            )
        kind, times, value = match.groups()
        found[known(kind)] = [int(times) if times else None, float(value) if value else None]
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
        for fault in BY_MOMENT[moment]:
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
