"""A clock that moves when a test says so, in the place of a module's `time`: no machine is too slow for it."""


class SetClock:
    """`monotonic` and `sleep`, without any waiting."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        """Seconds, each time."""

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
