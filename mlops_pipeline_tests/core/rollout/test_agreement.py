"""Agreement of two versions, by hand."""

import numpy as np
import pytest

from mlops_pipeline.core.rollout.agreement import Agreement, Flips, agreement
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
    assert agreement(pairs(same, same), {}, 1) == Agreement(2, 1.0, 0.0, 0.0, {})
    none = said([], [])
    assert agreement(pairs(none, none), {}, 1) == Agreement(0, None, None, None, {})
