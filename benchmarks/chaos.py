"""`make chaos`: thousands of edits through the real system while everything breaks; then the books are compared.

Real processes, real HTTP, real images; the provider is the emulator with every kind of fault on at a high rate, and
processes are killed at random. Batches come in waves, and each wave meets a time in which one thing is worse than
usual: replies lost, callbacks lost, the whole model down, storage full, calls that hang. The seed decides the
manifests, the emulator's faults and the order of victims; what is going on at that moment is the machine's. Prints one
table, and exits 0 only if nothing is lost, paid twice, wrong or unexplained.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from benchmarks.audit import Audit, audit
from benchmarks.callers import Callers, insist
from benchmarks.faults import FAULTS, PHASES, SHORTER, Phase, Plan, make_plan
from benchmarks.hammer import FAULTY, Hammer
from benchmarks.killing import Killer
from benchmarks.manifests import Manifest, overtaken, reopened, wave
from benchmarks.notified import NotifiedService
from benchmarks.other_program import OtherProgram
from benchmarks.system import System
from benchmarks.volume import Volume
from cli.output import screen
from worker.webhook_signing import new_secret

LONG_FROM = 1000
"""Edits from which on a run is a long one."""
SETTLE_WITHIN = 240.0
"""Seconds after the last phase within which everything must have come to its end."""
NEXT_WAVE_AT, NEXT_WAVE_WITHIN = 0.6, 20.0
"""Share of what was handed in so far that has been answered, and seconds at most, before the next wave comes."""
PACE = {"RETRY_DELAY": "0.1", "MAX_ATTEMPTS": "4"}
SHORT_CLOCKS = {"SUBMIT_START_TIMEOUT": "5", "RUN_ALLOWANCE": "3", "DELIVERY_ALLOWANCE": "6"}
"""Seconds; a short run cannot wait for the deadline of a long run."""
FLOOD, SHORT_FLOOD = 5200, 420
PAGE, SHORT_PAGE = "50", "8"
"""Requests on a page of the provider's listing: with these the flood is longer than a hundred pages, or fifty."""
TELL_WITHIN = 60.0


def main() -> int:
    """Run, compare, print."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--edits", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--hammer", type=int, default=0, help="callbacks delivered again in a second, mostly faulty")
    parser.add_argument("--keep", type=Path, help="where to put everything of a run that is not clean")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a stopped run stops what it started
    with tempfile.TemporaryDirectory(prefix="darkroom-chaos-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        chaos = Chaos(Path(folder), make_plan(arguments.seed), arguments.edits, arguments.kills, arguments.hammer, _say)
        clean = False
        try:
            found = chaos.run()
            clean = found.clean
        finally:
            if arguments.keep and not clean:
                shutil.copytree(folder, arguments.keep, ignore=shutil.ignore_patterns(".s.PGSQL*", "*.sock", "files"))
    if arguments.json:
        print(json.dumps({"seed": arguments.seed, **found.as_dict()}))
    else:
        screen.print(found.table(f"chaos, seed {arguments.seed}, {arguments.edits} edits"))
    return 0 if found.clean else 1


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def run(folder: Path, plan: Plan, edits: int, kills: int) -> Audit:
    """One run in an empty folder; everything is stopped at the end."""
    return Chaos(folder, plan, edits, kills).run()


class Chaos:
    """One run: the system, everybody around it, and what happens when."""

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        edits: int,
        kills: int,
        hammer: int = 0,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.plan, self.edits, self._kills, self._say = plan, edits, kills, say
        self.long = edits >= LONG_FROM
        self._faults: dict[str, float | str] = {**FAULTS, **(FAULTY if hammer else {})}
        secret = new_secret()
        self.notified = NotifiedService(secret)
        variables = {**PACE, **({} if self.long else SHORT_CLOCKS)}
        variables |= {"NOTIFY_SECRET": secret, "NOTIFY_PRIVATE_HOSTS": "127.0.0.1"}
        self.system = System(
            folder,
            faults=self._faults,
            seed=plan.seed,
            variables=variables,
            provider_options={"listing-page": PAGE if self.long else SHORT_PAGE},
        )
        self.volume = Volume(self.system.home / "images")
        self.callers = Callers(self.system)
        every = 1.0 if not self.long else 0.25
        self.other = OtherProgram(self.system.provider, plan.dice("other program"), every)
        self.killer = Killer(self.system, plan, kills)
        self.hammer = Hammer(self.system.provider, plan.dice("hammer"), hammer)
        self.phases: dict[str, float] = {}
        self._action_threads: list[threading.Thread] = []
        self._failures: list[str] = []
        self._seen = 0

    def run(self) -> Audit:
        """Everything, from start to verdict."""
        self.volume.mount()
        try:
            self.system.start()
            self._say("the system is up")
            started = time.monotonic()
            self.other.start()
            self.killer.start()
            self.hammer.start()
            for number, phase in enumerate(PHASES):
                self._live_through(number, phase)
            self._let_storage(fail=False)
            self.system.inject(**self._faults)
            for thread in self._action_threads:
                thread.join(120)
            self._await_kills()
            self.other.stop()
            self.hammer.stop()
            settled = wait_until_finished(self.system.engine, SETTLE_WITHIN)
            self._say("everything has ended" if settled else "not everything has ended")
            all_notified = wait_until_told(self.system.engine, TELL_WITHIN)
            took = time.monotonic() - started
            return self._judge(took, settled=settled and all_notified)
        finally:
            self.killer.stop()
            self.other.stop()
            self.hammer.stop()
            self.system.stop()
            self.notified.stop()
            self.volume.unmount()

    def _judge(self, took: float, *, settled: bool) -> Audit:
        found = audit(
            self.system,
            kills=self.killer.count,
            seconds=took,
            settled=settled,
            manifests=self.callers.manifests.values(),
            notify_url=self.notified.url,
            messages=self.notified.messages,
        )
        found.phases, found.resent = self.phases, self.hammer.sent
        found.storage_failed_by = self.volume.fails_by
        found.unexplained += self._failures
        return found

    def _live_through(self, number: int, phase: Phase) -> None:
        """Make it worse, hand a wave in, wait; make it better, and wait until most of it is done."""
        seconds = phase.seconds * (1 if self.long else SHORTER)
        self._say(f"{phase.name}: {seconds:.0f} s")
        before, began = self._count_answered(), time.monotonic()
        self.system.inject(**{**self._faults, **phase.faults})
        self._let_storage(fail=phase.storage_fails)
        self._hand_in(number)
        if phase.flood:
            self._action_threads.append(self._begin(self.other.flood, FLOOD if self.long else SHORT_FLOOD))
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        self.phases[phase.name] = round((self._count_answered() - before) / (time.monotonic() - began), 1)
        self.system.inject(**self._faults)
        self._wait_for_most()

    def _let_storage(self, *, fail: bool) -> None:
        if fail and not self.volume.failing:
            self._say("storage fails")
            self.volume.fail()
        elif self.volume.failing and not fail:
            self._say("storage works again")
            self.volume.mend()

    def _hand_in(self, number: int) -> None:
        dice = self.plan.dice(f"wave {number}")
        manifests = list(wave(dice, number, max(20, self.edits // len(PHASES)), self.notified.url))
        if number == 0:
            manifests += self._special(dice.randrange(2**31))
        self.other.look_at(manifests[0].lines)
        threads = [self._begin(self._hand_in_and_steer, manifest) for manifest in manifests]
        self._action_threads += threads

    def _special(self, seed: int) -> list[Manifest]:
        """Batches made for one fault: a first request that ends after a second one."""
        unknown_deadline, few = self.system.unknown_deadline, 12 if self.long else 3
        late = overtaken(900_000, few, seed, unknown_deadline * 1.8)
        again = reopened(910_000, few, seed, unknown_deadline + 6)
        return [
            Manifest("overtaken", "api", late, {"notify_url": self.notified.url}),
            Manifest("reopened", "api", again, {"notify_url": self.notified.url}, "reopen"),
        ]

    def _begin(self, what: Callable[..., None], *arguments: Any) -> threading.Thread:
        thread = threading.Thread(target=self._surely, args=(what, *arguments), daemon=True)
        thread.start()
        return thread

    def _surely(self, what: Callable[..., None], *arguments: Any) -> None:
        try:
            what(*arguments)
        except Exception as error:  # a caller that could not do its part is a finding
            self._failures.append(f"a caller: {type(error).__name__}: {error}")

    def _hand_in_and_steer(self, manifest: Manifest) -> None:
        self.callers.hand_in(manifest)
        steer = self.callers.steer
        if manifest.steer == "cancel":
            time.sleep(1.0)
            steer(manifest, "cancel")
        elif manifest.steer == "pause":
            time.sleep(0.5)
            steer(manifest, "pause")
            time.sleep(5.0)
            steer(manifest, "resume")
        elif manifest.steer == "retry":
            batch_id = insist(lambda: self.callers.batch_id(manifest.name), "looking for it")
            wait_until(lambda: finished(self.system.engine, batch_id), 60)
            steer(manifest, "retry")
        elif manifest.steer == "reopen":
            self._pause_until_heard_of(manifest)

    def _pause_until_heard_of(self, manifest: Manifest) -> None:
        """Pause while the first requests are given up, and go on the moment one of them makes itself heard."""
        batch_id = insist(lambda: self.callers.batch_id(manifest.name), "looking for it")
        time.sleep(3.0)
        self.callers.steer(manifest, "pause")
        wait_until(lambda: stale_callbacks(self.system.engine, batch_id), self.system.unknown_deadline + 20)
        self.callers.steer(manifest, "resume")

    def _wait_for_most(self) -> None:
        deadline = time.monotonic() + NEXT_WAVE_WITHIN * (1 if self.long else SHORTER)
        while time.monotonic() < deadline:
            edits = sum(len(manifest.lines) for manifest in self.callers.manifests.values())
            if self._count_answered() >= NEXT_WAVE_AT * edits:
                return
            time.sleep(0.5)

    def _count_answered(self) -> int:
        """Edits of which the provider's last word is known; while the database does not answer, as at the last look."""
        self._seen = max(self._seen, count_answered(self.system.engine))
        return self._seen

    def _await_kills(self) -> None:
        """Let the killer come to its end, while there is still work under way."""
        deadline = time.monotonic() + (60 if self.long else 5)
        while self.killer.kills < self._kills and time.monotonic() < deadline and unfinished(self.system.engine):
            time.sleep(0.5)
        self.killer.stop()


def _number(engine: Engine, query: str, *values: Any) -> int:
    """What a query answers; -1 while the database does not."""
    try:
        with engine.connect() as connection:
            return int(connection.exec_driver_sql(query, values).scalar_one())
    except (DBAPIError, OSError):  # PostgreSQL is among those that are killed
        return -1


def unfinished(engine: Engine) -> int:
    """Batches that are not finished, and submissions of which more is to come; -1 while the database does not answer.

    A result that makes itself heard late opens its submission again, and not the batch before it is read.
    """
    query = """
        SELECT (SELECT count(*) FROM batches WHERE finished_at IS NULL)
             + (SELECT count(*) FROM submissions WHERE outcome IS NULL)
    """
    return _number(engine, query)


def count_answered(engine: Engine) -> int:
    """Edits of which the provider's last word is known; their images may still wait for storage."""
    return _number(engine, "SELECT count(*) FROM edits WHERE state NOT IN ('pending', 'submitting', 'submitted')")


def finished(engine: Engine, batch_id: str) -> bool:
    """Whether a batch is."""
    return _number(engine, "SELECT count(*) FROM batches WHERE id = %s AND finished_at IS NOT NULL", batch_id) > 0


def stale_callbacks(engine: Engine, batch_id: str) -> bool:
    """Whether a callback for an edit of this batch came that was too old to be believed."""
    query = """
        SELECT count(*) FROM callbacks c JOIN submissions s ON s.id = c.submission_id JOIN edits e ON e.id = s.edit_id
        WHERE c.effect = 'stale' AND e.batch_id = %s
    """
    return _number(engine, query, batch_id) > 0


def wait_until(what: Callable[[], bool], timeout: float) -> bool:
    """Whether it came to be in time."""
    deadline = time.monotonic() + timeout
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def wait_until_finished(engine: Engine, timeout: float) -> bool:
    """Whether every batch and every submission came to its end in time."""
    return wait_until(lambda: unfinished(engine) == 0, timeout)


def wait_until_told(engine: Engine, timeout: float) -> bool:
    """Whether every message was delivered, or waits for an answer that its receiver let get lost."""
    query = "SELECT count(*) FROM notifications WHERE delivered_at IS NULL AND attempt = 0"
    return wait_until(lambda: _number(engine, query) == 0, timeout)


if __name__ == "__main__":
    sys.exit(main())
