"""The time limit of the failure tests, and a generous bound for keeping it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

LIMIT_MS = 100
BOUND = 20  # times the limit: the machine may be busy


@contextmanager
def ends_in_time(limit_ms: int = LIMIT_MS) -> Iterator[None]:
    """Fail when the block takes as long as something that hangs."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < BOUND * limit_ms / 1000
