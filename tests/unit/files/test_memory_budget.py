"""Bounds in bytes: never exceeded but by one that is alone, and nobody waits for ever."""

import threading
import time

from core.memory_budget import Budget, Tally


def test_never_more_than_the_limit() -> None:
    """However many threads want some, what they hold together stays within the limit; all of them get theirs."""
    budget, lock, held, most, served = Budget(10), threading.Lock(), 0, 0, []

    def use(amount: int) -> None:
        nonlocal held, most
        with budget.hold(amount):
            with lock:
                held += amount
                most = max(most, held)
            time.sleep(0.005)
            with lock:
                held -= amount
                served.append(amount)

    threads = [threading.Thread(target=use, args=(amount,)) for amount in (1, 4, 7, 3) * 8]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert 7 <= most <= 10
    assert len(served) == 32


def test_what_is_larger_than_the_limit_goes_alone() -> None:
    """And is not passed for ever by small ones that come after it."""
    budget, order = Budget(10), []
    all_came = threading.Event()

    def use(name: str, amount: int) -> None:
        with budget.hold(amount):
            order.append(name)
            assert all_came.wait(60)

    threads = []
    for number, (name, amount) in enumerate((("first", 5), ("large", 1000), ("small", 1))):
        threads.append(threading.Thread(target=use, args=(name, amount)))
        threads[-1].start()
        while not (order and len(budget._waiting) == number):
            time.sleep(0.001)
    all_came.set()
    for thread in threads:
        thread.join(60)

    assert order == ["first", "large", "small"]


def test_failure_gives_back() -> None:
    """Who breaks inside the block holds nothing afterwards."""
    budget = Budget(1)
    for _ in range(3):
        try:
            with budget.hold(1):
                raise KeyError
        except KeyError:
            pass


def test_tally() -> None:
    """One item may exceed what is free; from then on nothing is, until it is gone."""
    tally = Tally(10)
    tally.add("a", 4)
    assert tally.free == 6
    tally.add("b", 100)
    assert tally.free < 0
    tally.remove("b")
    tally.remove("b")
    assert tally.free == 6
