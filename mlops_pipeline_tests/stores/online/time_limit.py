"""The time limit of the failure tests, and a generous bound for keeping it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

LIMIT_MS = 100
BOUND_SECONDS = 20 * LIMIT_MS / 1000  # the machine may be busy


@contextmanager
def ends_in_time() -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < BOUND_SECONDS
