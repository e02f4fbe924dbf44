"""How many requests a client may send, in one process and in several, and how many wait."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_pipeline.errors import OnlineStoreError
from mlops_pipeline.serving import limits
from mlops_pipeline.serving.limits import Load, RateLimit
from mlops_pipeline.stores.online.redis_server import SharedRates
from mlops_pipeline_tests.stores.online.conftest import redis_url, use_case

__all__ = ["redis_url", "use_case"]


def test_client_gets_its_requests_and_then_the_time_to_wait() -> None:
    rates = RateLimit(60)
    assert [rates.take("a", 0.0) for _ in range(61)] == [0] * 60 + [1]
    assert rates.take("b", 0.0) == 0
    assert rates.take("a", 0.5) == 1
    assert rates.take("a", 1.0) == 0
    assert [rates.take("a", 3_600.0) for _ in range(61)] == [0] * 60 + [1]


@given(
    st.integers(1, 50),
    st.lists(st.floats(0, 5, allow_nan=False), min_size=1, max_size=200),
)
def test_no_time_has_more_than_a_bucket_and_its_refill(rate: int, gaps: list[float]) -> None:
    rates, now, admitted = RateLimit(rate), 0.0, list[float]()
    for gap in gaps:
        now += gap
        wait_s = rates.take("a", now)
        if wait_s == 0:
            admitted.append(now)
        else:
            assert RateLimit.take(rates, "a", now + wait_s + 1e-6) == 0  # what it says is true
            now += wait_s + 1e-6
            admitted.append(now)
    assert all(before <= after for before, after in pairwise(admitted))
    for first, start in enumerate(admitted):
        for last in range(first, len(admitted)):
            room = rate + (admitted[last] - start) * rate / 60
            assert last - first + 1 <= room + 1e-6


def test_processes_share_a_bucket_through_redis(redis_url: str) -> None:
    here, there = RateLimit(10), RateLimit(10)
    with SharedRates(redis_url) as shared:

        def settle(rates: RateLimit) -> None:
            rates.settle(lambda taken: shared.exchange(taken, 10), 0.0)

        assert [here.take("a", 0.0) for _ in range(6)] == [0] * 6
        settle(here)
        assert there.take("a", 0.0) == 0
        settle(there)
        said = [there.take("a", 0.0) for _ in range(6)]
        assert said.count(0) in (3, 4)  # the server's clock goes on
        settle(there)
        assert here.take("a", 0.0) == 0  # not told yet
        settle(here)
        assert here.take("a", 0.0) > 0


def test_what_could_not_be_shared_is_said_later(redis_url: str) -> None:
    rates, told = RateLimit(10), list[dict[str, int]]()
    rates.take("a", 0.0)
    with SharedRates("redis://127.0.0.1:1/0") as gone, pytest.raises(OnlineStoreError):
        rates.settle(lambda taken: gone.exchange(taken, 10), 0.0)
    rates.take("a", 0.0)
    rates.settle(lambda taken: told.append(dict(taken)) or {}, 0.0)  # type: ignore[func-returns-value] # None
    assert told == [{"a": 2}]


def test_load_refuses_what_would_wait_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WORKERS", 2)
    monkeypatch.setattr(limits, "REQUESTS_AT_ONCE", 4)
    load = Load()
    room = []
    for _ in range(5):
        room.append(load.has_room())
        load.requests += 1
    assert room == [True] * 4 + [False]
    for _ in range(3):
        load.ended(100.0)
    assert load.requests == 2
    assert not load.has_room()  # answers take too long for anybody to wait
    load.ended(0.0)
    assert load.has_room()  # a thread is free
