"""A state machine plays provider, network and workers against the real transitions, in every order it can think of.

One example runs in one transaction that is rolled back. The model is small: which POSTs the provider accepted
and how each request ended. After every step the accounts balance and nothing was paid for twice unexplained.
"""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import ClassVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import Connection, Engine

from models.answers import record_answers
from models.claims import claim_images, claim_polls, claim_unknown
from models.rulings import Answer
from models.states import EDIT_ARROWS, FINAL, EditState, LearnedBy, Outcome
from models.transitions import (
    EditMove,
    ImageFault,
    StoredImage,
    Submission,
    SubmissionEnd,
    cancel_batch,
    close_submissions,
    give_up_unknown,
    move_edits,
    record_accepted,
    record_image_faults,
    record_stored,
    retry_failed,
    settle_batches,
    take_back,
)
from models.verdict import Kind, Retry, Verdict
from tests.factories import (
    PATIENCE,
    POLICY,
    accept,
    claim,
    failure,
    fall_due,
    make_batch,
    request_id,
    success,
    unbalanced,
)

PICK = st.integers(0, 1_000)
"""Which request a step is about. What is drawn must not hang on the database, where random ids decide ties."""
FATES = ("accepted", "reply lost", "never arrived", "not sent", "refused", "taken back, yet accepted")
VERDICTS = {
    "one": success(1),
    "three": success(3),
    "transient": failure(),
    "once": failure("file_download_error", Retry.ONCE),
    "permanent": failure("content_policy_violation", Retry.NEVER),
    "cancelled": Verdict(Kind.CANCELLED, error_type="client_cancelled", message="cancelled"),
    "unfetched": Verdict(Kind.UNFETCHED),
}


@dataclass
class Request:
    """One request that the provider accepted, and how it ends."""

    submission: Submission
    verdict: Verdict


@dataclass
class Provider:
    """What the other side knows."""

    requests: list[Request] = field(default_factory=list)


class Machine(RuleBasedStateMachine):
    """The rules; `engine` is set by the test."""

    engine: ClassVar[Engine]

    @initialize(edits=st.lists(st.integers(1, 4), min_size=1, max_size=3))
    def start(self, edits: list[int]) -> None:
        self.connection: Connection = self.engine.connect()
        self.transaction = self.connection.begin()
        self.provider = Provider()
        for number, count in enumerate(edits):
            make_batch(self.connection, count, max_cost=None if number else Decimal("0.30"))
        self.before = self.snapshot()

    def teardown(self) -> None:
        if hasattr(self, "transaction"):
            self.transaction.rollback()
            self.connection.close()

    @rule(fates=st.lists(st.sampled_from(FATES), min_size=1, max_size=6), verdict=st.sampled_from(sorted(VERDICTS)))
    def submit(self, fates: list[str], verdict: str) -> None:
        """A wave of POSTs, each with its fate; replies are recorded in sets as the lane does."""
        fall_due(self.connection) if len(fates) % 2 else None
        for submission, fate in zip(claim(self.connection, limit=len(fates), window=8), fates, strict=False):
            if fate in ("accepted", "reply lost", "taken back, yet accepted"):
                self.provider.requests.append(Request(submission, VERDICTS[verdict]))
            if fate == "accepted":
                accept(self.connection, [submission])
            elif fate in ("not sent", "taken back, yet accepted"):
                take_back(self.connection, [submission.id], reason="unreachable", delay=0)
            elif fate == "refused":
                self.refuse(submission)

    def refuse(self, submission: Submission) -> None:
        end = SubmissionEnd(submission.id, None, Outcome.REJECTED, LearnedBy.REPLY, "bad_request")
        close_submissions(self.connection, [end])
        error = {"attempt": submission.attempt, "type": "bad_request", "message": "no"}
        move_edits(self.connection, [EditMove(submission.edit_id, EditState.SUBMITTING, EditState.FAILED, 0, error)])

    @rule(picks=st.lists(PICK, min_size=1, max_size=3))
    def deliver(self, picks: list[int]) -> None:
        """Callbacks: late, doubled, in any order, several in one set."""
        chosen = [request for request in map(self.pick, picks) if request]
        record_answers(self.connection, [self.answer(request, LearnedBy.CALLBACK) for request in chosen], POLICY)

    @rule(pick=PICK)
    def late_reply(self, pick: int) -> None:
        """A reply that is recorded after whatever happened in the meantime."""
        if request := self.pick(pick):
            reply = (request.submission.id, request_id(request.submission))
            record_accepted(self.connection, [reply], poll_after=60, patience=PATIENCE)

    @rule(one=PICK, other=PICK)
    def deliver_to_the_wrong_door(self, one: int, other: int) -> None:
        """A delivery about one request at another's token moves nothing."""
        first, second = self.pick(one), self.pick(other)
        if first and second and first is not second and self.known(second):
            states = self.snapshot()
            wrong = self.answer(first, LearnedBy.CALLBACK)._replace(request_id=request_id(second.submission))
            record_answers(self.connection, [wrong], POLICY)
            assert self.snapshot() == states

    @rule()
    def poll(self) -> None:
        """Everybody who is due is asked about."""
        fall_due(self.connection)
        by_id = {request_id(request.submission): request for request in self.provider.requests}
        for due in claim_polls(self.connection, limit=100, lease=60):
            request = by_id[due.request_id]
            if request.verdict.kind is not Kind.UNFETCHED:
                record_answers(self.connection, [self.answer(request, LearnedBy.POLL)], POLICY)

    @rule(resubmit=st.booleans())
    def lose_patience(self, resubmit: bool) -> None:
        """The proven deadline passes for whatever is still unknown."""
        fall_due(self.connection)
        lost = [due.id for due in claim_unknown(self.connection, limit=100, lease=60)]
        give_up_unknown(self.connection, lost, resubmit=resubmit, max_attempts=3)

    @rule()
    def resubmit_what_arrived_after_all(self) -> None:
        """The rarest chain, in one step: accepted, reply lost, given up, submitted again, both succeed one day."""
        for fate in ("reply lost", "accepted"):
            self.submit([fate] * 3, "one")
            self.lose_patience(True)

    @rule(broken=st.booleans(), limit=st.integers(1, 3))
    def download(self, broken: bool, limit: int) -> None:
        """Some pictures arrive, or one cannot be stored."""
        fall_due(self.connection)
        due = claim_images(self.connection, limit=limit, lease=60)
        if broken and due:
            record_image_faults(self.connection, [ImageFault(due[0].id, "undecodable", "broken", None)])
            due = due[1:]
        if due:
            record_stored(self.connection, [StoredImage(i.id, i.name, "ab", 1, "image/png", 1, 1) for i in due])

    @rule()
    def retry_failed(self) -> None:
        """Someone retries every failed edit: what is paid for is fetched again, the rest paid for again."""
        for batch_id in self.batches():
            retry_failed(self.connection, batch_id)

    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        """Someone cancels a batch; nothing of it may be submitted from then on."""
        batches = self.batches()
        cancel_batch(self.connection, batches[pick % len(batches)])

    def batches(self) -> list[UUID]:
        rows = self.connection.exec_driver_sql("SELECT id FROM batches WHERE cancelled_at IS NULL ORDER BY id")
        return list(rows.scalars()) or [self.connection.exec_driver_sql("SELECT id FROM batches").scalars().first()]

    @rule()
    def settle(self) -> None:
        """Finished is exactly what has no open edit."""
        settle_batches(self.connection)
        rows = self.connection.exec_driver_sql(
            """
            SELECT b.finished_at IS NOT NULL, bool_and(e.due_at IS NULL)
            FROM batches b JOIN edits e ON e.batch_id = b.id GROUP BY b.id
            """
        ).all()
        assert all(finished == final for finished, final in rows)

    @invariant()
    def accounts_balance(self) -> None:
        """Every identity of the view holds."""
        if hasattr(self, "connection"):
            assert unbalanced(self.connection) == []

    @invariant()
    def only_known_arrows_were_taken(self) -> None:
        """Whatever a step did, a chain of known arrows leads from the state before to the state after."""
        if not hasattr(self, "connection"):
            return
        after = self.snapshot()
        for edit_id, state in after.items():
            assert state in reachable(self.before[edit_id]), (edit_id, self.before[edit_id], state)
        self.before = after

    @invariant()
    def nothing_is_paid_twice_unexplained(self) -> None:
        """An edit has at most one success, but for those whose submission had been given up, and these say so."""
        if not hasattr(self, "connection"):
            return
        rows = self.connection.exec_driver_sql(
            """
            SELECT edit_id, count(*) FILTER (WHERE outcome = 'succeeded'), count(*) FILTER (WHERE doubled)
            FROM submissions GROUP BY edit_id
            """
        )
        for _, succeeded, doubled in rows:
            assert succeeded <= 1 + doubled

    def pick(self, number: int) -> Request | None:
        """One of the requests, if there is any."""
        return self.provider.requests[number % len(self.provider.requests)] if self.provider.requests else None

    def known(self, request: Request) -> bool:
        found = self.connection.exec_driver_sql(
            "SELECT count(*) FROM submissions WHERE request_id = %s", (request_id(request.submission),)
        )
        return bool(found.scalar())

    def answer(self, request: Request, by: LearnedBy) -> Answer:
        return Answer(request.submission.id, request_id(request.submission), request.verdict, by)

    def snapshot(self) -> dict[int, EditState]:
        rows = self.connection.exec_driver_sql("SELECT id, state FROM edits")
        return {row[0]: EditState(row[1]) for row in rows}


def reachable(state: EditState) -> set[EditState]:
    """Every state that a chain of arrows leads to, and the state itself."""
    found, edge = {state}, {state}
    while edge:
        edge = {new for old, new in EDIT_ARROWS if old in edge} - found
        found |= edge
    return found


def test_final_states_are_left_only_by_a_retry_or_a_late_result() -> None:
    """The table of arrows itself: `stored` is left by nobody, the other final states only for these reasons."""
    assert {(old, new) for old, new in EDIT_ARROWS if old in FINAL} == {
        (EditState.FAILED, EditState.PENDING),
        (EditState.FAILED, EditState.READY),
        (EditState.FAILED, EditState.SUBMITTED),
        (EditState.CANCELLED, EditState.READY),
    }


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")
def test_machine(engine: Engine) -> None:
    """Every order of steps keeps every promise."""
    Machine.engine = engine
    Machine.TestCase.settings = settings(
        max_examples=80,
        stateful_step_count=40,
        deadline=None,
        derandomize=True,  # chaos is for surprises; a change is judged by the same examples every time
        phases=(Phase.generate,),  # shrinking replays hundreds of transactions
        suppress_health_check=list(HealthCheck),
    )
    state_machine = Machine.TestCase()
    state_machine.runTest()
