"""The kept distribution of scores: exact for few, off by at most a thousandth for many."""

import numpy as np
import pytest
from scipy.stats import ks_2samp

from mlops_pipeline.core.documents.records import from_plain, plain
from mlops_pipeline.core.metrics.references import ScoreReference, score_reference


def test_few_distinct_scores_are_kept_exactly() -> None:
    found = score_reference(np.array([0.5, 0.1, 0.1, 0.9]))
    assert found == ScoreReference(4, (0.1, 0.5, 0.9), (0.5, 0.75, 1.0))
    assert from_plain(ScoreReference, plain(found)) == found


@pytest.mark.parametrize("name", ["uniform", "beta", "point"])
def test_many_scores_are_kept_within_a_thousandth(name: str) -> None:
    random = np.random.default_rng(3)
    scores = {
        "uniform": random.uniform(size=50_000),
        "beta": random.beta(1, 12, size=50_000),
        "point": np.concatenate([np.full(30_000, 0.2), random.uniform(size=20_000)]),
    }[name]
    found = score_reference(scores)
    assert len(found.scores) <= 1_001
    assert found.shares[-1] == 1.0
    kept = np.repeat(
        found.scores, np.round(np.diff(found.shares, prepend=0.0) * 50_000).astype(int)
    )
    assert ks_2samp(scores, kept).statistic <= 0.00101


def test_no_score_is_no_distribution() -> None:
    assert score_reference(np.empty(0)) == ScoreReference(0, (), ())


def test_distance_of_two_scores_by_hand() -> None:
    known = score_reference(np.array([0.1, 0.2, 0.2, 0.4]))
    # of 0.2 and 0.6 half are at most 0.2 and 0.4: the shares there are 0.75 and 1
    assert known.distance(np.array([0.6, 0.2])) == pytest.approx(0.5)


def test_distance_against_scipy_is_within_a_thousandth() -> None:
    random = np.random.default_rng(4)
    scores, live = random.beta(1, 9, 50_000), random.beta(1, 7, 3_000)
    found = score_reference(scores).distance(live)
    assert found == pytest.approx(ks_2samp(scores, live).statistic, abs=0.001)
    assert score_reference(scores).distance(scores) == 0
