"""Compare the three books after a run: the database, the storage folder and the provider's ledger."""

import hashlib
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table
from sqlalchemy import Connection

from benchmarks.faults import CALLBACK_FAULTS, SUBMIT_FAULTS
from benchmarks.system import System
from worker.storage import INCOMING, QUARANTINE

EXPLAINED = frozenset(
    {
        *("content_policy_violation", "no_images", "internal_server_error", "downstream_service_error"),
        *("generation_timeout", "file_download_error", "submission_unknown", "result_expired", "startup_timeout"),
        *("size_mismatch", "truncated", "undecodable", "not_an_image", "http_404", "http_403", "fetch_error"),
    }
)
"""Error types that an edit may end with in a run: each was injected, or follows from an injected fault."""


@dataclass
class Audit:
    """The figures of one run; the lists name what is wrong, at most a few of each."""

    seconds: float
    settled: bool
    edits: dict[str, int]
    failed_by_type: dict[str, int]
    posts: int
    requests: int
    charges: int
    doubled_recorded: int
    kills: dict[str, int]
    injected: dict[str, int]
    callbacks: dict[str, int]
    lost: list[str] = field(default_factory=list)
    double_paid: list[str] = field(default_factory=list)
    wrong_pictures: list[str] = field(default_factory=list)
    missing_pictures: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether every promise was kept."""
        return self.settled and not (
            self.lost or self.double_paid or self.wrong_pictures or self.missing_pictures or self.unexplained
        )

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return {**asdict(self), "clean": self.clean}

    def table(self, seed: int) -> Table:
        """For people."""
        table = Table(title=f"chaos, seed {seed}: {'clean' if self.clean else 'NOT CLEAN'}", show_header=False)
        submits = sum(self.injected.get(kind, 0) for kind in SUBMIT_FAULTS)
        deliveries = sum(self.injected.get(kind, 0) for kind in CALLBACK_FAULTS)
        rows = {
            "edits": f"{sum(self.edits.values())}: {_counted(self.edits)}",
            "failed by type": _counted(self.failed_by_type),
            "seconds": f"{self.seconds:.0f}",
            "submissions": f"{self.posts}, {self.requests} of them accepted by the provider",
            "faults on submits": f"{submits} ({submits / max(1, self.posts):.0%} of submissions)",
            "faults on callbacks": f"{deliveries} ({deliveries / max(1, self.requests):.0%} of accepted requests)",
            "faults by kind": _counted(self.injected),
            "SIGKILLs": f"{sum(self.kills.values()) - self.kills.get('flush', 0)}: {_counted(self.kills)}",
            "callbacks by effect": _counted(self.callbacks),
            "charges": f"{self.charges} pictures",
            "double-paid, recorded as a proven resubmission": str(self.doubled_recorded),
            "lost": _listed(self.lost),
            "double-paid beyond that": _listed(self.double_paid),
            "wrong pictures": _listed(self.wrong_pictures),
            "missing pictures": _listed(self.missing_pictures),
            "unexplained rows": _listed(self.unexplained),
        }
        for name, value in rows.items():
            table.add_row(name, value)
        return table


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1])) or "none"


def _listed(names: list[str]) -> str:
    return f"{len(names)}" + (f": {'; '.join(names[:5])}" if names else "")


def audit(system: System, *, kills: Counter[str], seconds: float, settled: bool) -> Audit:
    """Look at everything once the run has come to its end."""
    ledger = system.ledger()
    with system.engine.connect() as connection:
        found = Audit(
            seconds=seconds,
            settled=settled,
            edits=_counts(connection, "SELECT state, count(*) FROM edits GROUP BY state"),
            failed_by_type=_counts(
                connection, "SELECT type, count(*) FROM edit_errors WHERE latest AND state = 'failed' GROUP BY type"
            ),
            posts=int(connection.exec_driver_sql("SELECT count(*) FROM submissions").scalar_one()),
            requests=len(ledger),
            charges=sum(row["charges"] for row in ledger),
            doubled_recorded=0,
            kills=dict(kills),
            injected=system.injected(),
            callbacks=_counts(connection, "SELECT effect, count(*) FROM callbacks GROUP BY effect"),
        )
        _edits(connection, found)
        _charges(connection, ledger, found)
        _pictures(connection, ledger, system.home / "images", found)
    return found


def _counts(connection: Connection, query: str) -> dict[str, int]:
    return {row[0]: row[1] for row in connection.exec_driver_sql(query)}


def _edits(connection: Connection, found: Audit) -> None:
    for row in connection.exec_driver_sql("SELECT custom_id, state FROM edits WHERE due_at IS NOT NULL"):
        found.lost.append(f"{row.custom_id} is {row.state}")
    for type_ in set(found.failed_by_type) - EXPLAINED:
        found.unexplained.append(f"edits failed with {type_}")
    for row in connection.exec_driver_sql("SELECT identity, difference FROM accounting WHERE difference <> 0"):
        found.unexplained.append(f"accounting: {row.identity}: {row.difference}")


def _charges(connection: Connection, ledger: list[dict[str, Any]], found: Audit) -> None:
    """Each charged request must be known, and an edit charged twice must say why: a submit that was proven dead."""
    rows = connection.exec_driver_sql(
        """
        SELECT s.id::text AS token, edit_id, request_id, outcome, images_returned,
               outcome = 'unknown' OR (doubled AND e.errors @> '[{"type": "submission_unknown"}]') AS excused
        FROM submissions s JOIN edits e ON e.id = s.edit_id
        """
    )
    submissions = {row.token: row for row in rows}
    charged = defaultdict(list)
    for request in ledger:
        token = request["webhook_url"].rpartition("/")[2]
        if token not in submissions:
            found.unexplained.append(f"request {request['request_id']} is no submission of ours")
        elif request["charges"]:
            charged[submissions[token].edit_id].append((request, submissions[token]))
    for edit_id, pairs in charged.items():
        for request, submission in pairs:
            if submission.outcome == "succeeded" and submission.images_returned != request["charges"]:
                found.unexplained.append(
                    f"edit {edit_id}: {request['charges']} charged, {submission.images_returned} noted"
                )
            if submission.outcome not in ("succeeded", "unknown"):
                found.unexplained.append(f"edit {edit_id} was charged for a submission that is {submission.outcome}")
        excused = sum(bool(submission.excused) for _, submission in pairs)
        found.doubled_recorded += min(excused, len(pairs) - 1)
        if len(pairs) - excused > 1:
            found.double_paid.append(f"edit {edit_id} has {len(pairs)} charged requests")


def _pictures(connection: Connection, ledger: list[dict[str, Any]], folder: Path, found: Audit) -> None:
    """Every stored picture is on disk, and is the very one that the provider made for this request."""
    made = {request["request_id"]: request["sha256"] for request in ledger}
    rows = connection.exec_driver_sql(
        """
        SELECT i.storage_key, i.sha256, i.index AS place, s.request_id FROM images i
        JOIN submissions s ON s.id = i.submission_id WHERE i.state = 'stored'
        """
    )
    kept = set()
    for row in rows:
        kept.add(row.storage_key)
        path = folder / row.storage_key
        if not path.exists():
            found.missing_pictures.append(row.storage_key)
        elif hashlib.sha256(path.read_bytes()).hexdigest() != row.sha256:
            found.wrong_pictures.append(f"{row.storage_key} is not what the database says")
        elif row.sha256 not in made[row.request_id][row.place : row.place + 1]:
            found.wrong_pictures.append(f"{row.storage_key} is not what the provider made")
    on_disk = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    for key in on_disk - kept:
        if not key.startswith((f"{QUARANTINE}/", f"{INCOMING}/")):
            found.unexplained.append(f"{key} is in storage, but in no row")
