"""A circuit breaker: whether a model version that fails goes on being asked. A pure machine.

    closed      asked; opens when, of a minute's requests, too large a share failed
    open        not asked for half a minute
    half_open   asked a few times: all good: closed; one failed: open again

Each function returns the next breaker; times are seconds of any clock that does not go back.
"""

from dataclasses import dataclass, replace
from typing import Literal

ERROR_SHARE = 0.05
MIN_REQUESTS = 20  # fewer say nothing about a share
WINDOW_SECONDS = 60.0
OPEN_SECONDS = 30.0
TRIALS = 5


@dataclass(frozen=True, slots=True)
class Breaker:
    """`since` is when the window began, or the state; counts are from then on."""

    state: Literal["closed", "open", "half_open"] = "closed"
    since: float = 0.0
    admitted: int = 0
    requests: int = 0
    errors: int = 0


def admit(breaker: Breaker, now: float) -> tuple[Breaker, bool]:
    """Return whether the version is asked now; as many trials as are needed, and no more."""
    if breaker.state == "closed":
        return breaker, True
    if now - breaker.since >= OPEN_SECONDS:  # trials that never ended are made again
        breaker = Breaker("half_open", now)
    if breaker.state == "open" or breaker.admitted >= TRIALS:
        return breaker, False
    return replace(breaker, admitted=breaker.admitted + 1), True


def record(breaker: Breaker, is_error: bool, now: float) -> Breaker:
    """Count how an answer ended; what ends while it is open was asked before."""
    if breaker.state == "open":
        return breaker
    if breaker.state == "half_open":
        if is_error:
            return Breaker("open", now)
        good = breaker.requests + 1
        return Breaker("closed", now) if good >= TRIALS else replace(breaker, requests=good)
    if now - breaker.since >= WINDOW_SECONDS:
        breaker = Breaker("closed", now)
    requests, errors = breaker.requests + 1, breaker.errors + is_error
    if requests >= MIN_REQUESTS and errors >= ERROR_SHARE * requests:
        return Breaker("open", now)
    return Breaker("closed", breaker.since, breaker.admitted, requests, errors)
