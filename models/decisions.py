"""What a verdict means for the submission it is about and for its edit; callbacks and polls share it.

Pure: a locked row and a report in, a decision out. `record_reports.py` locks and writes.
"""

from dataclasses import dataclass
from datetime import datetime
from random import uniform
from typing import NamedTuple
from uuid import UUID

from core.settings import PolicySettings
from models.changes import EditMove, SubmissionEnd
from models.states import IN_FLIGHT, EditState, Effect, LearnedBy, Outcome
from models.verdict import Kind, Retry, Verdict

READY_OVERDUE_AFTER = 3600.0
"""Seconds a recorded result may wait for storage before it counts as overdue (`overdue` view)."""
RESULT_EXPIRED = "result_expired"
"""The error type of a submission whose result the provider no longer had when we asked."""
LONGEST_DELAY = 900.0
"""Seconds between two paid attempts, at most."""


class ProviderReport(NamedTuple):
    """What the provider says about one of our submissions."""

    submission_id: UUID
    request_id: str | None
    verdict: Verdict
    learned_by: LearnedBy
    inference_time: float | None = None
    """Seconds, as the queue's status reports; a callback does not tell."""


@dataclass(frozen=True, slots=True)
class SubmissionSnapshot:
    """A submission and its edit, as locked."""

    submission_id: UUID
    request_id: str | None
    posted_at: datetime
    outcome: Outcome | None
    learned_by: LearnedBy | None
    error_type: str | None
    submission_attempt: int
    edit_id: int
    state: EditState
    edit_attempt: int
    attempts_before: int
    max_attempts: int | None
    cancel_requested: bool
    others_open: bool
    """Another submission of the edit is in flight: what becomes of the edit is for that one to say."""
    sets_taken: int
    """How many sets of images of other submissions the edit has taken so far, one after the other."""
    earlier_errors: tuple[str, ...]

    @property
    def given_up(self) -> bool:
        """Ended by us without hearing what became of it, so that whoever tells later is still believed."""
        return self.outcome in (Outcome.UNKNOWN, Outcome.REJECTED) or self.error_type == RESULT_EXPIRED

    @property
    def attempts(self) -> int:
        """POSTs since somebody last asked for the edit to be made; earlier ones do not count against it."""
        return self.edit_attempt - self.attempts_before

    @property
    def superseded(self) -> bool:
        """Another submission's images are the edit's: stored, or on their way."""
        return self.state in (EditState.READY, EditState.STORED)


class Decision(NamedTuple):
    """What follows from one report; None where nothing does."""

    effect: Effect
    end: SubmissionEnd | None = None
    move: EditMove | None = None
    reveal: bool = False


def decide(snapshot: SubmissionSnapshot, report: ProviderReport, policy: PolicySettings) -> Decision:
    """The decision on one report about one submission."""
    if snapshot.request_id and report.request_id and snapshot.request_id != report.request_id:
        return Decision(Effect.MISMATCH)
    if snapshot.outcome is not None and not snapshot.given_up:
        again = snapshot.learned_by is LearnedBy.CALLBACK
        return Decision(Effect.DUPLICATE if again else Effect.LATE)
    if report.verdict.kind is Kind.UNFETCHED:
        return Decision(Effect.APPLIED, reveal=True)
    if report.verdict.kind is Kind.SUCCEEDED:
        return _decide_success(snapshot, report)
    return _decide_failure(snapshot, report, policy)


def _decide_success(snapshot: SubmissionSnapshot, report: ProviderReport) -> Decision:
    verdict = report.verdict
    end = SubmissionEnd(
        id=snapshot.submission_id,
        request_id=report.request_id,
        outcome=Outcome.SUCCEEDED,
        learned_by=report.learned_by,
        images_returned=len(verdict.images),
        # a set that could not be stored whole gives way to this one
        set_number=None if snapshot.superseded else snapshot.sets_taken + 1,
        seed=verdict.seed,
        inference_time=report.inference_time,
        billable_units=verdict.billable_units,
    )
    if snapshot.superseded:
        return Decision(Effect.APPLIED, end)
    return Decision(
        Effect.APPLIED, end, EditMove(snapshot.edit_id, snapshot.state, EditState.READY, READY_OVERDUE_AFTER)
    )


def _decide_failure(snapshot: SubmissionSnapshot, report: ProviderReport, policy: PolicySettings) -> Decision:
    verdict = report.verdict
    cancelled = verdict.kind is Kind.CANCELLED
    end = SubmissionEnd(
        id=snapshot.submission_id,
        request_id=report.request_id,
        outcome=Outcome.CANCELLED if cancelled else Outcome.FAILED,
        learned_by=report.learned_by,
        error_type=verdict.error_type,
        seed=verdict.seed,
        inference_time=report.inference_time,
        billable_units=verdict.billable_units,
        may_be_charged=verdict.may_be_charged,
    )
    if snapshot.others_open or snapshot.state not in IN_FLIGHT:
        return Decision(Effect.APPLIED, end)  # the edit's way does not depend on this submission (alone)
    if snapshot.cancel_requested:
        return Decision(Effect.APPLIED, end, EditMove(snapshot.edit_id, snapshot.state, EditState.CANCELLED, 0))
    error = {
        "attempt": snapshot.submission_attempt,
        "type": verdict.error_type or "unknown_error",
        "message": verdict.message or "",
    }
    if _may_try_again(snapshot, verdict, policy):
        move = EditMove(snapshot.edit_id, snapshot.state, EditState.PENDING, backoff(snapshot, policy), error)
    else:
        move = EditMove(snapshot.edit_id, snapshot.state, EditState.FAILED, 0, error)
    return Decision(Effect.APPLIED, end, move)


def _may_try_again(snapshot: SubmissionSnapshot, verdict: Verdict, policy: PolicySettings) -> bool:
    if snapshot.attempts >= (snapshot.max_attempts or policy.max_attempts):
        return False
    if verdict.retry is Retry.ONCE:
        return verdict.error_type not in snapshot.earlier_errors
    return verdict.retry is Retry.TRANSIENT


def backoff(snapshot: SubmissionSnapshot, policy: PolicySettings) -> float:
    """Seconds until the next paid attempt: doubling from `RETRY_DELAY`, with jitter so that a wave spreads out."""
    delay = policy.retry_delay * 2 ** (snapshot.attempts - 1)
    return float(min(delay, LONGEST_DELAY) * uniform(0.75, 1.25))
