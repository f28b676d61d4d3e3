"""A state machine plays provider, network and workers against the real transitions, in every order it can think of.

One example runs in one transaction that is rolled back. The model is small, and knows nothing of our flags: which
POSTs were made, which of them the provider accepted, how each request ends, what it was charged, what lies in storage.
After every step the accounts balance, what the rows say of money is what the provider knows, and no edit was POSTed
again while an accepted request of it was known to be in flight.
"""

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import ClassVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import Connection, Engine

from models.audits import FIND_DIFFERENCE
from models.claims import DueImage, claim_images, claim_polls, claim_unknown
from models.decisions import ProviderReport
from models.record_reports import record_reports
from models.retention import prune_batches
from models.states import EDIT_ARROWS, EditState, LearnedBy
from models.transitions import (
    ImageFault,
    Refusal,
    StoredImage,
    Submission,
    cancel_batch,
    record_accepted,
    record_image_faults,
    record_refused,
    record_stored,
    resolve_unknown,
    retry_failed,
    revert_unsent,
    settle_batches,
)
from models.verdict import Kind, Retry, Verdict
from tests.support.factories import (
    POLICY,
    PRICE,
    UNKNOWN_DEADLINE,
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
FIGURES = """
SELECT p.batch_id, p.edits, p.stored, p.failed, p.cancelled, p.submissions, p.doubled, p.images_stored, p.bytes_stored,
       c.reserved, c.paid, c.wasted, c.uncertain, (SELECT sum(paid) FROM client_costs) AS all_paid,
       (SELECT sum(wasted) FROM daily_costs) AS all_wasted
FROM batch_progress p JOIN batch_costs c USING (batch_id) ORDER BY p.batch_id
"""
"""What people read of a batch, whether or not its rows are there."""
ENDED = ("stored", "failed", "cancelled")
AUDITED_EVERY = 10
"""Steps."""
CHARGED = {"one": 1, "three": 3}
"""Units that a request of such a fate is charged: success alone, as long as nobody says otherwise."""


@dataclass
class Request:
    """One request that the provider accepted, and how it ends."""

    submission: Submission
    fate: str
    heard_of: bool = False
    """How it ended was told to us: from then on we may know what it was charged."""
    named: bool = False
    """Its id was told to us: until its end is told it is in flight, for everybody to know."""

    @property
    def verdict(self) -> Verdict:
        return VERDICTS[self.fate]

    @property
    def in_flight(self) -> bool:
        return self.named and not self.heard_of

    @property
    def charged(self) -> int:
        return CHARGED.get(self.fate, 0)


@dataclass
class Provider:
    """What the other side knows, and what lies in storage: by key, which image wrote it last."""

    requests: list[Request] = field(default_factory=list)
    objects: dict[str, str] = field(default_factory=dict)
    dead: set[UUID] = field(default_factory=set)
    """Submissions that were given up past their unknown deadline, taken back or refused, and not heard of since."""
    ever_dead: set[UUID] = field(default_factory=set)
    """Those that were so at some time: of these, and of these only, a charge may stand beside the edit's own."""


class Machine(RuleBasedStateMachine):
    """The rules; `engine` is set by the test."""

    engine: ClassVar[Engine]

    @initialize(edits=st.lists(st.integers(1, 4), min_size=1, max_size=3))
    def start(self, edits: list[int]) -> None:
        self.connection: Connection = self.engine.connect()
        self.transaction = self.connection.begin()
        self.provider, self.steps = Provider(), 0
        for number, count in enumerate(edits):
            make_batch(self.connection, count, max_cost=None if number else Decimal("0.30"))
        self.before, self.posts = self.snapshot(), Counter[int]()

    def teardown(self) -> None:
        if hasattr(self, "transaction"):
            self.audit()
            self.prune()
            self.transaction.rollback()
            self.connection.close()

    def prune(self) -> None:
        """Whatever happened to it, a batch that is settled can go, and no figure changes."""
        settle_batches(self.connection)
        self.connection.exec_driver_sql("UPDATE batches SET audited_at = finished_at")
        before = self.connection.exec_driver_sql(FIGURES).all()
        while prune_batches(self.connection, -1.0).more:
            pass
        assert unbalanced(self.connection) == []
        assert self.connection.exec_driver_sql(FIGURES).all() == before

    @rule(fates=st.lists(st.sampled_from(FATES), min_size=1, max_size=6), verdict=st.sampled_from(sorted(VERDICTS)))
    def submit(self, fates: list[str], verdict: str) -> None:
        """A wave of POSTs, each with its fate; replies are recorded in sets as the lane does."""
        fall_due(self.connection) if len(fates) % 2 else None
        for submission, fate in zip(claim(self.connection, limit=len(fates), window=8), fates, strict=False):
            if fate in ("accepted", "reply lost", "taken back, yet accepted"):
                self.provider.requests.append(Request(submission, verdict))
            self.posts_one_at_a_time(submission)
            if fate == "accepted":
                accept(self.connection, [submission])
                self.provider.requests[-1].named = True
            elif fate in ("not sent", "taken back, yet accepted"):
                self.note_dead(submission.id)
                revert_unsent(self.connection, [submission.id], reason="unreachable", delay=0)
            elif fate == "refused":
                self.refuse(submission)

    def refuse(self, submission: Submission) -> None:
        self.note_dead(submission.id)
        record_refused(self.connection, [Refusal(submission.id, "bad_request", "no")])

    def posts_one_at_a_time(self, submission: Submission) -> None:
        """A second POST of an edit: every earlier one is over as far as anybody could know."""
        for request in self.provider.requests:
            earlier = request.submission
            if earlier.edit_id == submission.edit_id and earlier.id != submission.id:
                assert request.heard_of or earlier.id in self.provider.dead, "posted again while the first is in flight"

    @rule(picks=st.lists(PICK, min_size=1, max_size=3))
    def deliver(self, picks: list[int]) -> None:
        """Callbacks: late, doubled, in any order, several in one set."""
        chosen = [request for request in map(self.pick, picks) if request]
        before = self.snapshot()
        record_reports(self.connection, [self.answer(request, LearnedBy.CALLBACK) for request in chosen], POLICY)
        for request in chosen:
            self.hear_of(request)
        self.nothing_in_flight_was_ended(before)

    def hear_of(self, request: Request) -> None:
        """A callback with a verdict tells the end; one without names the request, and from then on it is in flight."""
        request.named = True
        if request.verdict.kind is not Kind.UNFETCHED:
            request.heard_of = True
        elif not request.heard_of:
            self.provider.dead.discard(request.submission.id)

    def nothing_in_flight_was_ended(self, before: dict[int, EditState]) -> None:
        """No answer about one request ends an edit of which another is known to be in flight."""
        in_flight = {request.submission.edit_id for request in self.provider.requests if request.in_flight}
        for edit_id, state in self.snapshot().items():
            if state is not before[edit_id] and state in (EditState.FAILED, EditState.CANCELLED):
                assert edit_id not in in_flight, f"{before[edit_id]} -> {state}, while a request of it is in flight"

    @rule(pick=PICK, fate=st.sampled_from(["one", "three", "transient", "permanent"]))
    def become_readable(self, pick: int, fate: str) -> None:
        """What could not be read so far can be read from now on, by whoever asks or is told."""
        request = self.pick(pick)
        if request and request.fate == "unfetched":
            request.fate = fate

    @rule(pick=PICK)
    def late_reply(self, pick: int) -> None:
        """A reply that is recorded after whatever happened in the meantime."""
        if request := self.pick(pick):
            reply = (request.submission.id, request_id(request.submission))
            record_accepted(self.connection, [reply], poll_after=60, unknown_deadline=UNKNOWN_DEADLINE)
            if not request.heard_of and self.known(request):
                request.named = True
                self.provider.dead.discard(request.submission.id)

    @rule(one=PICK, other=PICK)
    def deliver_to_another_token(self, one: int, other: int) -> None:
        """A delivery about one request at another's token moves nothing."""
        first, second = self.pick(one), self.pick(other)
        if first and second and first is not second and self.known(second):
            states = self.snapshot()
            wrong = self.answer(first, LearnedBy.CALLBACK)._replace(request_id=request_id(second.submission))
            record_reports(self.connection, [wrong], POLICY)
            assert self.snapshot() == states

    @rule()
    def poll(self) -> None:
        """Everybody who is due is asked about."""
        fall_due(self.connection)
        by_id = {request_id(request.submission): request for request in self.provider.requests}
        before = self.snapshot()
        for due in claim_polls(self.connection, limit=100, lease=60):
            request = by_id[due.request_id]
            if request.verdict.kind is not Kind.UNFETCHED:
                record_reports(self.connection, [self.answer(request, LearnedBy.POLL)], POLICY)
                request.heard_of = True
                self.nothing_in_flight_was_ended(before)

    @rule(resubmit=st.booleans())
    def pass_unknown_deadline(self, resubmit: bool) -> None:
        """The unknown deadline passes for whatever is still unknown."""
        fall_due(self.connection)
        lost = [due.id for due in claim_unknown(self.connection, limit=100, lease=60)]
        named = {request.submission.id for request in self.provider.requests if request.named}
        assert named.isdisjoint(lost), "a request whose id we were told counts as unheard of"
        before = self.snapshot()
        resolve_unknown(self.connection, lost, resubmit=resubmit, max_attempts=3)
        self.nothing_in_flight_was_ended(before)
        for submission_id in lost:
            self.note_dead(submission_id)

    def note_dead(self, submission_id: UUID) -> None:
        self.provider.dead.add(submission_id)
        self.provider.ever_dead.add(submission_id)

    @rule()
    def resubmit_what_arrived_after_all(self) -> None:
        """The rarest chain, in one step: accepted, reply lost, given up, submitted again, both succeed one day."""
        for fate in ("reply lost", "accepted"):
            self.submit([fate] * 3, "one")
            self.pass_unknown_deadline(True)

    @rule(given_up=st.booleans(), verdict=st.sampled_from(["transient", "permanent", "cancelled"]))
    def show_itself(self, given_up: bool, verdict: str) -> None:
        """Accepted, reply lost, and then named by a callback that tells no end: before it is given up, or after, and
        then the next POST ends first."""
        posted = len(self.provider.requests)
        self.submit(["reply lost"] * 3, "unfetched")
        first = self.provider.requests[posted:]
        if given_up:
            self.pass_unknown_deadline(True)
            posted = len(self.provider.requests)
            self.submit(["accepted"] * 3, verdict)
        for request in first:
            self.answer_of(request)
        if given_up:
            for request in self.provider.requests[posted:]:
                before = self.snapshot()
                self.answer_of(request)
                self.nothing_in_flight_was_ended(before)
        else:
            self.pass_unknown_deadline(True)

    @rule()
    def retry_what_is_paid_for(self) -> None:
        """Everything that is due succeeds, a file of it cannot be stored, and somebody retries what failed for it."""
        for _ in range(2):
            self.submit(["accepted"] * 3, "one")
            for request in self.provider.requests[-3:]:
                self.answer_of(request)
            self.download(True, 3)
            self.retry_failed()

    @rule(late=st.booleans())
    def keep_the_spare_set(self, late: bool) -> None:
        """Two requests of an edit succeed, and the set that was taken first cannot be stored: the other one is kept,
        whether it was there already or comes later."""
        self.submit(["reply lost"] * 3, "three")
        self.pass_unknown_deadline(True)
        self.submit(["accepted"] * 3, "three")
        first, second = self.provider.requests[-6:-3], self.provider.requests[-3:]
        for one, other in zip(first, second, strict=False):
            if one.submission.edit_id == other.submission.edit_id:
                self.answer_of(other)
                if not late:
                    self.answer_of(one)
                self.download(True, 3)
                self.answer_of(one)

    def answer_of(self, request: Request) -> None:
        record_reports(self.connection, [self.answer(request, LearnedBy.CALLBACK)], POLICY)
        self.hear_of(request)

    @rule(broken=st.booleans(), limit=st.integers(1, 3))
    def download(self, broken: bool, limit: int) -> None:
        """Some images arrive, or one cannot be stored."""
        fall_due(self.connection)
        due = claim_images(self.connection, limit=limit, lease=60)
        if broken and due:
            record_image_faults(self.connection, [ImageFault(due[0].id, "undecodable", "broken", None)])
            self.slow = due[0]
            due = due[1:]
        if due:
            record_stored(self.connection, [self.write(one) for one in due])

    def write(self, due: DueImage) -> StoredImage:
        self.provider.objects[due.name] = str(due.id)
        return StoredImage(due.id, due.name, str(due.id), 1, "image/png", 1, 1)

    @rule()
    def finish_a_slow_download(self) -> None:
        """Whoever lost its lease long ago still writes what it fetched, and reports it."""
        if slow := getattr(self, "slow", None):
            record_stored(self.connection, [self.write(slow)])

    @invariant()
    def rows_tell_what_lies_in_storage(self) -> None:
        """Under every key that a row names lies the very image of that row."""
        if hasattr(self, "connection"):
            rows = self.connection.exec_driver_sql(
                "SELECT storage_key, sha256 FROM images WHERE storage_key IS NOT NULL"
            ).all()
            assert {key: self.provider.objects[key] for key, _ in rows} == dict(tuple(row) for row in rows)

    @rule()
    def retry_failed(self) -> None:
        """Someone retries every failed edit: what is paid for is fetched again, the rest paid for again."""
        paid = {
            request.submission.edit_id for request in self.provider.requests if request.heard_of and request.charged
        }
        before = self.snapshot()
        for batch_id in self.batches():
            retry_failed(self.connection, batch_id)
        for edit_id, state in self.snapshot().items():
            if before[edit_id] is EditState.FAILED and edit_id in paid:
                assert state is not EditState.PENDING, "paid for again, though its images were paid for"

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
        """A batch is finished exactly when each of its edits is stored, failed or cancelled."""
        settle_batches(self.connection)
        batch_of = dict(tuple(row) for row in self.connection.exec_driver_sql("SELECT id, batch_id FROM edits"))
        at_work = {batch_of[edit_id] for edit_id, state in self.snapshot().items() if state.value not in ENDED}
        unfinished = self.connection.exec_driver_sql("SELECT id FROM batches WHERE finished_at IS NULL")
        assert set(unfinished.scalars()) == at_work

    @invariant()
    def nothing_waits_beside_what_is_in_flight(self) -> None:
        """No edit is to be POSTed of which a submission is open: the claim and the database only guard it as well."""
        if hasattr(self, "connection"):
            rows = self.connection.exec_driver_sql(
                """
                SELECT e.id FROM edits e JOIN submissions s ON s.edit_id = e.id
                WHERE e.state = 'pending' AND s.outcome IS NULL
                """
            ).all()
            assert rows == []

    @invariant()
    def no_paid_set_is_left_aside(self) -> None:
        """No edit is failed that has a whole set of images, paid for, which nobody has tried to store."""
        if hasattr(self, "connection"):
            rows = self.connection.exec_driver_sql(
                """
                SELECT e.id FROM edits e JOIN submissions s ON s.edit_id = e.id
                WHERE e.state = 'failed' AND s.outcome = 'succeeded'
                  AND NOT EXISTS (SELECT FROM images i WHERE i.submission_id = s.id AND i.attempt > 0)
                """
            ).all()
            assert rows == []

    @invariant()
    def audits_find_nothing(self) -> None:
        """What the audit of one batch compares agrees at any time, finished or not, and every identity of the view
        holds. A difference stays, so it is looked for after some steps, and after the last one."""
        if hasattr(self, "connection"):
            self.steps += 1
            if self.steps % AUDITED_EVERY == 0:
                self.audit()

    def audit(self) -> None:
        for batch_id in self.batches():
            assert self.connection.exec_driver_sql(FIND_DIFFERENCE, (batch_id,)).scalar() == ""
        assert unbalanced(self.connection) == []

    @invariant()
    def only_known_arrows_were_taken(self) -> None:
        """Whatever a step did, a chain of known arrows leads from the state before to the state after; what was stored
        stays so, what was cancelled can only have its images after all, and for neither was anything posted."""
        if not hasattr(self, "connection"):
            return
        after, posts = self.snapshot(), Counter(request.submission.edit_id for request in self.provider.requests)
        for edit_id, state in after.items():
            before = self.before[edit_id]
            assert state in reachable(before), (edit_id, before, state)
            if before is EditState.STORED:
                assert state is EditState.STORED
            if before is EditState.CANCELLED:
                assert state in (EditState.CANCELLED, EditState.READY, EditState.STORED, EditState.FAILED)
            if before in (EditState.STORED, EditState.CANCELLED):
                assert posts[edit_id] == self.posts[edit_id], edit_id
        self.before, self.posts = after, posts

    @invariant()
    def nothing_is_paid_twice_unexplained(self) -> None:
        """Of an edit's charged requests all but one belong to submissions that were proven dead at some time."""
        if not hasattr(self, "connection"):
            return
        charged: dict[int, list[Request]] = {}
        for request in self.provider.requests:
            if request.charged:
                charged.setdefault(request.submission.edit_id, []).append(request)
        for requests in charged.values():
            assert sum(request.submission.id not in self.provider.ever_dead for request in requests) <= 1

    @invariant()
    def rows_tell_what_was_charged(self) -> None:
        """Per edit: what the provider charged and told is `paid`; what of it brought no kept image is `wasted`; and
        `doubled` are all but one of the charged submissions that were told."""
        if not hasattr(self, "connection"):
            return
        heard_of: dict[int, list[int]] = {}
        for request in self.provider.requests:
            if request.heard_of and request.charged:
                heard_of.setdefault(request.submission.edit_id, []).append(request.charged)
        rows = self.connection.exec_driver_sql(
            """
            SELECT e.id, e.state, (SELECT coalesce(sum(cost), 0) FROM submissions s WHERE s.edit_id = e.id) AS cost,
                   (SELECT count(*) FROM submissions s WHERE s.edit_id = e.id AND s.doubled) AS doubled,
                   c.paid, c.wasted,
                   (SELECT count(*) FROM submissions s JOIN images i ON i.submission_id = s.id
                    WHERE s.edit_id = e.id AND i.state <> 'discarded') AS kept
            FROM edits e LEFT JOIN edit_costs c ON c.edit_id = e.id
            """
        ).all()
        for row in rows:
            charges = heard_of.get(row.id, [])
            assert row.cost == (row.paid or 0) == PRICE * sum(charges)
            assert row.doubled == max(0, len(charges) - 1)
            brought = 0 if row.state == "failed" else row.kept
            assert (row.wasted or 0) == PRICE * (sum(charges) - brought)

    def pick(self, number: int) -> Request | None:
        """One of the requests, if there is any."""
        return self.provider.requests[number % len(self.provider.requests)] if self.provider.requests else None

    def known(self, request: Request) -> bool:
        found = self.connection.exec_driver_sql(
            "SELECT count(*) FROM submissions WHERE request_id = %s", (request_id(request.submission),)
        )
        return bool(found.scalar())

    def answer(self, request: Request, by: LearnedBy) -> ProviderReport:
        return ProviderReport(request.submission.id, request_id(request.submission), request.verdict, by)

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


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")
def test_machine(engine: Engine) -> None:
    """Every order of steps keeps every promise."""
    Machine.engine = engine
    Machine.TestCase.settings = settings(
        max_examples=40,
        stateful_step_count=30,
        deadline=None,
        derandomize=True,  # chaos is for surprises; a change is judged by the same examples every time
        phases=(Phase.generate,),  # shrinking replays hundreds of transactions
        suppress_health_check=list(HealthCheck),
    )
    state_machine = Machine.TestCase()
    state_machine.runTest()
