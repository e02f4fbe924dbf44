"""Agreement of two versions, by hand."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from mlops_pipeline.core.rollout.agreement import (
    Agreement,
    Expected,
    Flips,
    agreement,
    expected,
)
from mlops_pipeline.core.rollout.evidence import Pairs, Scored


def said(probability: list[float], decision: list[bool]) -> Scored:
    nothing = np.zeros(len(probability), bool)
    return Scored(
        np.array(probability), np.array(decision), nothing, nothing, np.full(len(nothing), -1)
    )


def pairs(old: Scored, new: Scored) -> Pairs:
    rows = len(old.probability)
    return Pairs(
        entity=np.array([str(place) for place in range(rows)], object),
        at_us=np.arange(rows), share=np.zeros(rows), is_canary=np.zeros(rows, bool), champion=old,
        challenger=new, label=np.zeros(rows, np.int8), is_complete=np.zeros(rows, bool),
        protected={},
    )  # fmt: skip


def test_agreement_is_counted_by_group() -> None:
    old = said([0.1, 0.6, 0.4, np.nan], [False, True, False, False])
    new = said([0.2, 0.3, 0.7, 0.9], [False, False, True, True])
    region = np.array(["north", "south", "south", None], object)
    found = agreement(pairs(old, new), {"region": region}, 1)
    assert (found.rows, found.same) == (3, 0.25)
    assert found.difference == pytest.approx((0.1 - 0.3 + 0.3) / 3)
    assert found.distance == pytest.approx((0.1 + 0.3 + 0.3) / 3)
    assert found.flips == {"region": {"north": Flips(1, 0, 0), "south": Flips(2, 2, 1)}}
    assert agreement(pairs(old, new), {"region": region}, 2).flips["region"] == {
        "south": Flips(2, 2, 1)
    }


def test_equal_versions_agree_and_nothing_is_not_computable() -> None:
    same = said([0.1, 0.6], [False, True])
    itself = expected(same.probability)
    assert agreement(pairs(same, same), {}, 1) == Agreement(2, 1.0, 0.0, 0.0, {}, itself, itself)
    none, nothing = said([], []), Expected(None, None)
    assert agreement(pairs(none, none), {}, 1) == Agreement(
        0, None, None, None, {}, nothing, nothing
    )


def test_expected_figures_by_hand() -> None:
    # 0.8 positive and 0.2 negative in 0.64 of all worlds, the other way round in 0.04
    found = expected(np.array([0.2, 0.8]))
    assert found.roc_auc == pytest.approx(0.64 / 0.68)
    assert found.brier == pytest.approx(0.16)
    alike = expected(np.full(4, 0.3))
    assert alike.roc_auc == pytest.approx(0.5)
    assert alike.brier == pytest.approx(0.21)
    assert expected(np.array([0.0, 0.0])) == Expected(None, 0.0)


def test_expected_figures_are_those_of_labels_drawn_from_the_scores() -> None:
    random = np.random.default_rng(11)
    scores = random.beta(1, 6, size=40_000).round(3)
    labels = random.random(40_000) < scores
    found = expected(scores)
    assert found.roc_auc == pytest.approx(roc_auc_score(labels, scores), abs=0.01)
    assert found.brier == pytest.approx(brier_score_loss(labels, scores), abs=0.002)
