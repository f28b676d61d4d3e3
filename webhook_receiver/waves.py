"""Deliveries that come at one time are recorded in one transaction, and none is answered before its commit.

Whoever comes while nothing is recorded is recorded at once: alone there is nothing to wait for. Whoever comes meanwhile
waits for the next wave. So the load itself sets the size of a wave, and no clock does. A wave that fails is undone
whole, and each of its deliveries is recorded by itself, so that the one at fault fails alone; only where the database
is away, all of them are told so.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import TimeoutError as PoolTimeout

from models.database import CONNECT_TIMEOUT
from models.database_errors import is_away, sqlstate
from models.queries.callbacks import LIMIT_LOCK_WAIT
from models.states import Effect
from webhook_receiver.recording import Delivery

log = structlog.get_logger()

WAVE_MOST = 128
"""Deliveries of one wave."""
WAVE_BYTES = 4 * 1024 * 1024
"""Bytes of their bodies together; a larger one is a wave by itself."""
LOCK_WAIT = "200ms"
"""For which a wave waits for a row; whoever needs one that is held for longer waits alone."""
ABOUT_ONE = frozenset({"40001", "40P01", "55P03", "57014"})
"""Conditions in which the database answers, and which may concern one delivery of a wave alone."""

Record = Callable[[Connection, Sequence[Delivery]], list[Effect]]


class Recorded(NamedTuple):
    """A delivery that is committed."""

    delivery: Delivery
    effect: Effect
    since: float
    """When it came, of the monotonic clock."""


Trace = Callable[[Sequence[Recorded]], None]
"""Told of what is committed, once it is answered; raises nothing."""


@dataclass(eq=False, slots=True)
class _Waiting:
    delivery: Delivery
    effect: "Future[Effect]" = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


class Waves:
    """Records deliveries of many threads in few transactions; at most `alone` by themselves at one time."""

    def __init__(self, engine: Engine, record: Record, *, alone: int, trace: Trace | None = None) -> None:
        self._engine, self._record, self._trace = engine, record, trace
        self._lock = threading.Lock()
        self._queue: deque[_Waiting] = deque()
        self._recording = False
        self._recorder, self._alone = ThreadPoolExecutor(1), ThreadPoolExecutor(alone)

    def record(self, delivery: Delivery) -> "Future[Effect]":
        """Have one delivery recorded; the effect is there once the transaction that holds it is committed.

        The future raises what the database did: then it is not recorded, or nobody knows whether it is.
        """
        waiting = _Waiting(delivery)
        with self._lock:
            self._queue.append(waiting)
            begins, self._recording = not self._recording, True
        if begins:
            self._recorder.submit(self._record_waves)
        return waiting.effect

    def record_alone(self, record: Record, delivery: Delivery) -> "Future[Effect]":
        """Have one delivery recorded in a transaction of its own; otherwise as `record`."""
        waiting = _Waiting(delivery)
        self._alone.submit(self._record_one, record, waiting)
        return waiting.effect

    def _record_waves(self) -> None:
        while wave := self._take():
            try:
                effects = self._record_wave([waiting.delivery for waiting in wave])
            except Exception as error:
                self._give_up(wave, error)
            else:
                self._answer(wave, effects)

    def _answer(self, wave: Sequence[_Waiting], effects: Sequence[Effect]) -> None:
        for waiting, effect in zip(wave, effects, strict=True):
            waiting.effect.set_result(effect)
        if self._trace is not None:
            pairs = zip(wave, effects, strict=True)
            self._trace([Recorded(waiting.delivery, effect, waiting.since) for waiting, effect in pairs])

    def _take(self) -> list[_Waiting]:
        """The next wave; where there is none, whoever comes next begins one."""
        wave: list[_Waiting] = []
        size = 0
        with self._lock:
            while self._queue and len(wave) < WAVE_MOST:
                size += len(self._queue[0].delivery.body)
                if wave and size > WAVE_BYTES:
                    break
                wave.append(self._queue.popleft())
            self._recording = bool(wave)
        return wave

    def _record_wave(self, deliveries: Sequence[Delivery]) -> list[Effect]:
        with self._engine.begin() as connection:
            connection.exec_driver_sql(LIMIT_LOCK_WAIT, (LOCK_WAIT,))
            return self._record(connection, deliveries)

    def _give_up(self, wave: Sequence[_Waiting], error: Exception) -> None:
        if is_away(error) and sqlstate(error) not in ABOUT_ONE:
            for waiting in wave:
                waiting.effect.set_exception(error)
            return
        log.warning("wave_taken_apart", deliveries=len(wave), reason=type(error).__name__, sqlstate=sqlstate(error))
        for waiting in wave:
            self._alone.submit(self._record_one, self._record, waiting)

    def _record_one(self, record: Record, waiting: _Waiting) -> None:
        try:
            if time.monotonic() - waiting.since > CONNECT_TIMEOUT:
                raise PoolTimeout("too many deliveries wait for the database")
            with self._engine.begin() as connection:
                (effect,) = record(connection, [waiting.delivery])
        except Exception as error:
            waiting.effect.set_exception(error)
        else:
            self._answer([waiting], [effect])
