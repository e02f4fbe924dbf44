"""A moment to start from, and a clock that only a test moves."""

from datetime import UTC, datetime, timedelta

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def later(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


class ManualClock:
    """Stands at noon until `sleep` moves it."""

    def __init__(self) -> None:
        self.slept_s = 0.0

    def __call__(self) -> datetime:
        return later(self.slept_s)

    def sleep(self, seconds: float) -> None:
        self.slept_s += seconds


def never_sleep(seconds: float) -> None:
    raise AssertionError(f"nothing to wait for, yet asked to sleep {seconds} s")
