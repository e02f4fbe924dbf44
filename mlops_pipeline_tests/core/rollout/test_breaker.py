"""The circuit breaker: when it opens, what it lets through, and that it always closes again."""

from hypothesis import given
from hypothesis import strategies as st

from mlops_pipeline.core.rollout.breaker import (
    ERROR_SHARE,
    MIN_REQUESTS,
    OPEN_SECONDS,
    TRIALS,
    WINDOW_SECONDS,
    Breaker,
    admit,
    record,
)

STEPS = st.lists(st.tuples(st.floats(0, 20), st.booleans()), max_size=300)


def after(breaker: Breaker, errors: list[bool], now: float = 0.0) -> Breaker:
    for is_error in errors:
        breaker = record(breaker, is_error, now)
    return breaker


def test_breaker_opens_at_the_share_and_not_before_enough_requests() -> None:
    few = after(Breaker(), [True] * (MIN_REQUESTS - 1))
    assert few.state == "closed"
    assert record(few, True, 0.0).state == "open"
    assert after(Breaker(), [False] * 39 + [True]).state == "closed"  # 1 of 40
    assert after(Breaker(), [False] * 39 + [True] * 2).state == "closed"  # 2 of 41: 4.9 %
    assert after(Breaker(), [False] * 38 + [True] * 2).state == "open"  # 2 of 40


def test_errors_of_another_minute_do_not_count() -> None:
    old = after(Breaker(), [True] * (MIN_REQUESTS - 1))
    assert record(old, True, WINDOW_SECONDS).requests == 1


def test_open_breaker_is_tried_after_its_time_and_closes_when_all_is_good() -> None:
    breaker = Breaker("open", 100.0)
    assert admit(breaker, 100.0 + OPEN_SECONDS - 1) == (breaker, False)
    now, let_through = 100.0 + OPEN_SECONDS, []
    for _ in range(TRIALS + 3):
        breaker, is_asked = admit(breaker, now)
        let_through.append(is_asked)
    assert let_through == [True] * TRIALS + [False] * 3
    assert after(breaker, [False] * TRIALS, now).state == "closed"
    assert after(breaker, [False, True], now) == Breaker("open", now)


def test_trials_that_never_end_are_made_again() -> None:
    breaker = Breaker("half_open", 0.0, admitted=TRIALS)
    assert admit(breaker, OPEN_SECONDS - 1)[1] is False
    assert admit(breaker, OPEN_SECONDS)[1] is True


@given(STEPS)
def test_breaker_is_open_only_after_its_share_of_errors(steps: list[tuple[float, bool]]) -> None:
    breaker, now, seen = Breaker(), 0.0, list[bool]()
    for gap, is_error in steps:
        now += gap
        before = breaker
        breaker, is_asked = admit(breaker, now)
        assert is_asked or breaker.state != "closed"
        if not is_asked:
            continue
        breaker = record(breaker, is_error, now)
        seen = [*seen, is_error] if before.state == "closed" else []
        if before.state == "closed" and breaker.state == "open":
            assert is_error or sum(seen) >= ERROR_SHARE * len(seen)
            assert len(seen) >= MIN_REQUESTS


@given(STEPS)
def test_breaker_of_a_version_that_is_well_again_closes(steps: list[tuple[float, bool]]) -> None:
    breaker, now = Breaker(), 0.0
    for gap, is_error in steps:
        now += gap
        breaker, is_asked = admit(breaker, now)
        breaker = record(breaker, is_error, now) if is_asked else breaker
    for _ in range(2):  # at most two waits, whatever was before
        now += OPEN_SECONDS + WINDOW_SECONDS
        for _ in range(TRIALS):
            breaker, is_asked = admit(breaker, now)
            breaker = record(breaker, False, now) if is_asked else breaker
    assert breaker.state == "closed"
