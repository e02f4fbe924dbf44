"""Assignment: sticky, monotone, a share that is really so large, and its documented vectors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare

from mlops_pipeline.core.rollout.assignment import BUCKETS, bucket, is_canary
from mlops_pipeline_tests.documentation import rows, sections, text_of

SHARES = (0.0, 0.05, 0.25, 0.5, 1.0)


def test_documented_vectors_are_the_buckets() -> None:
    table = rows(sections(text_of("docs/rollout.md"))["Who is in the canary"])
    found = [(row[0].strip("`"), row[1].strip("`"), int(row[2])) for row in table]
    assert len(found) == 4
    assert [bucket(salt, entity) for salt, entity, _ in found] == [item[2] for item in found]


@given(st.text(), st.text(min_size=1))
def test_share_that_rises_keeps_who_was_in(salt: str, entity: str) -> None:
    inside = [is_canary(salt, entity, share) for share in SHARES]
    assert inside == sorted(inside)
    assert (inside[0], inside[-1]) == (False, True)


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5])
def test_share_is_really_so_large(share: float) -> None:
    inside = sum(is_canary("salt", str(number), share) for number in range(100_000))
    assert binomtest(inside, 100_000, share).pvalue > 0.001


def test_buckets_are_uniform() -> None:
    counts = [0] * 100
    for number in range(200_000):
        counts[bucket("salt", f"customer-{number}") * 100 // BUCKETS] += 1
    assert chisquare(counts).pvalue > 0.001


def test_other_salt_draws_anew() -> None:
    both = sum(
        is_canary("a", str(number), 0.5) and is_canary("b", str(number), 0.5)
        for number in range(100_000)
    )
    assert binomtest(both, 100_000, 0.25).pvalue > 0.001


def test_test_entity_is_always_in_and_nobody_never() -> None:
    assert is_canary("salt", "qa-1", 0.0, ("qa-1",))
    assert not is_canary("salt", "", 1.0)
