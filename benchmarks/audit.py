"""Compare the books after a run, and say what is wrong in one table: `judging.py` holds the rules."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from benchmarks import judging
from benchmarks.books import Books, canonical_sha256, read_books
from benchmarks.faults import CALLBACK_FAULTS, SUBMIT_FAULTS
from benchmarks.manifests import EditLine, Manifest
from benchmarks.notified import Message, wrong_notifications
from benchmarks.system import System

SHOWN = 5
"""Findings of one kind that the table names; the JSON names `KEPT` of them."""
KEPT = 200


@dataclass
class Audit:
    """The figures of one run; the lists name what is wrong."""

    seconds: float
    settled: bool
    edits: dict[str, int]
    failed_by_type: dict[str, int]
    posts: int
    requests: int
    foreign_requests: int
    charges: int
    charged_again: dict[str, int]
    """Edits' second charges with the one excuse that there is, by reason (`judging.excuse`)."""
    kills: dict[str, int]
    injected: dict[str, int]
    callbacks: dict[str, int]
    messages: int
    resent: int = 0
    """Callbacks that the provider was made to deliver once more."""
    storage_failed_by: str = ""
    phases: dict[str, float] = field(default_factory=dict)
    """Edits that were answered per second, by phase."""
    lost: list[str] = field(default_factory=list)
    double_paid: list[str] = field(default_factory=list)
    wrong_images: list[str] = field(default_factory=list)
    missing_images: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)

    @property
    def doubled_recorded(self) -> int:
        """Second charges that have their excuse."""
        return sum(self.charged_again.values())

    @property
    def clean(self) -> bool:
        """Whether every promise was kept."""
        return self.settled and not (
            self.lost or self.double_paid or self.wrong_images or self.missing_images or self.unexplained
        )

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return {**asdict(self), "clean": self.clean}

    @property
    def submit_faults(self) -> int:
        """Faults that submits met."""
        return sum(self.injected.get(kind, 0) for kind in SUBMIT_FAULTS)

    @property
    def callback_faults(self) -> int:
        """Callbacks that were lost, spoilt, doubled, late or out of order."""
        return sum(self.injected.get(kind, 0) for kind in CALLBACK_FAULTS)

    def rows(self) -> dict[str, str]:
        """What the table says, line by line."""
        return {
            "edits": f"{sum(self.edits.values())}: {_counted(self.edits)}",
            "failed by type": _counted(self.failed_by_type),
            "seconds": f"{self.seconds:.0f}",
            "submissions": f"{self.posts}, {self.requests} of them accepted by the provider",
            "another program's requests": str(self.foreign_requests),
            "faults on submits": f"{self.submit_faults} ({self.submit_faults / max(1, self.posts):.0%} of submissions)",
            "faults on callbacks": f"{self.callback_faults} ({self.callback_faults / max(1, self.requests):.0%}"
            " of accepted requests)",
            "faults by kind": _counted(self.injected),
            "SIGKILLs": f"{sum(self.kills.values()) - self.kills.get('flush', 0)}: {_counted(self.kills)}",
            "callbacks by effect": _counted(self.callbacks),
            "notifications": f"{self.messages} deliveries",
            "storage failed by": self.storage_failed_by or "-",
            "edits answered per second": ", ".join(f"{rate:.1f} {name}" for name, rate in self.phases.items()) or "-",
            "charges": f"{self.charges} images",
            "charged again, the first unknowable": _counted(self.charged_again),
            "lost": _listed(self.lost),
            "paid twice": _listed(self.double_paid),
            "wrong images": _listed(self.wrong_images),
            "missing images": _listed(self.missing_images),
            "unexplained": _listed(self.unexplained),
        }

    def table(self, title: str) -> Table:
        """For people."""
        table = Table(title=f"{title}: {'clean' if self.clean else 'NOT CLEAN'}", show_header=False)
        for name, value in self.rows().items():
            table.add_row(name, value)
        return table


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1])) or "none"


def _listed(names: Sequence[str]) -> str:
    return f"{len(names)}" + (f": {'; '.join(names[:SHOWN])}" if names else "")


def audit(
    system: System,
    *,
    kills: Counter[str],
    seconds: float,
    settled: bool,
    manifests: Iterable[Manifest] = (),
    notify_url: str | None = None,
    messages: Sequence[Message] = (),
) -> Audit:
    """Look at everything once the run has come to its end.

    `manifests` are what was handed in, `messages` what the service at `notify_url` was told; without them nobody is
    asked about that.
    """
    injected = system.injected()
    system.inject()  # what is fetched now comes as it is
    with system.engine.connect() as connection:
        books = read_books(system.ledger(), connection, system.home / "images", system.fetch)
    found = judge(books, unknown_deadline=system.unknown_deadline)
    found.seconds, found.settled = seconds, settled
    found.kills, found.injected, found.messages = dict(kills), injected, len(messages)
    found.unexplained += handed_in_wrongly(books, manifests)
    if notify_url is not None:
        found.unexplained += wrong_notifications(books, notify_url, messages)
    return found


def judge(books: Books, *, unknown_deadline: float) -> Audit:
    """What the books say; `unknown_deadline` in seconds."""
    owned = judging.Owned(books)
    failed = Counter(edit.error_type or "" for edit in books.edits.values() if edit.state == "failed")
    again: Counter[str] = Counter()
    ours = [request for request in books.requests.values() if not request.foreign]
    return Audit(
        seconds=0,
        settled=True,
        edits=dict(Counter(edit.state for edit in books.edits.values())),
        failed_by_type=dict(failed),
        posts=len(books.submissions),
        requests=len(ours),
        foreign_requests=len(books.requests) - len(ours),
        charges=sum(request.charges for request in ours),
        double_paid=_some(judging.double_charges(owned, unknown_deadline, again)),
        charged_again=dict(again),
        kills={},
        injected={},
        callbacks=books.callbacks,
        messages=0,
        lost=_some(judging.lost_edits(owned, unknown_deadline)),
        wrong_images=_some(
            [*judging.wrong_requests(owned), *judging.wrong_images(owned), *judging.wrong_inputs(owned)]
        ),
        missing_images=_some(judging.missing_images(owned)),
        unexplained=_some(
            [
                *judging.unknown_requests(owned),
                *judging.untrue_rows(owned),
                *judging.untrue_views(owned),
                *judging.unexplained_failures(owned),
                *judging.broken_limits(owned),
                *judging.unfit_inputs(owned),
                *judging.nameless_objects(owned),
                *books.imbalances,
            ]
        ),
    )


def _some(findings: Iterable[str]) -> list[str]:
    return list(findings)[:KEPT]


def handed_in_wrongly(books: Books, manifests: Iterable[Manifest]) -> Iterable[str]:
    """Batches that are not there, or twice, or whose edits are not what their callers wrote, line by line."""
    by_batch: dict[str, dict[int, EditLine]] = {}
    for edit in books.edits.values():
        by_batch.setdefault(edit.batch_id, {})[edit.position] = {"custom_id": edit.custom_id, **edit.input}
    names: dict[str | None, list[str]] = {}
    for batch in books.batches.values():
        names.setdefault(batch.name, []).append(batch.id)
    for manifest in manifests:
        ids = names.get(manifest.name, [])
        if len(ids) != 1:
            yield f"batch {manifest.name} is there {len(ids)} times"
            continue
        edits = by_batch[ids[0]]
        if len(edits) != len(manifest.lines):
            yield f"batch {manifest.name} has {len(edits)} edits of {len(manifest.lines)} lines"
        for position, line in enumerate(manifest.lines):
            there = edits.get(position, {})
            wanted = {"custom_id": None, "seed": there.get("seed"), **line}
            if canonical_sha256(there) != canonical_sha256(wanted):
                yield f"edit {position} of batch {manifest.name} is not what its line says"
