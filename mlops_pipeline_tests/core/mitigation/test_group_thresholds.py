"""Thresholds by group beside a search of all of them, and group probabilities beside sklearn's."""

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import linprog

from mlops_pipeline.config.modelling import Costs
from mlops_pipeline.core.mitigation.group_thresholds import (
    fit_group_shares,
    limits_by_estimated_group,
    limits_by_group,
    limits_jointly,
)
from mlops_pipeline.core.modelling.fitting import Inputs
from mlops_pipeline.core.modelling.kinds.logistic import prepare
from mlops_pipeline.core.modelling.scoring import group_shares, row_thresholds

Floats = npt.NDArray[np.float64]
COSTS = Costs(false_positive=1.0, false_negative=4.0)  # threshold 0.2
INPUTS = Inputs(({"name": "a", "type": "number"}, {"name": "b", "type": "number"}))


def scores(rows: int = 400, levels: int | None = None) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Probabilities of two groups, the second riskier."""
    dice = np.random.default_rng(5)
    codes = np.arange(rows) % 2
    p = dice.beta(1.2, 6.0, rows) * np.where(codes == 1, 1.6, 1.0)
    return np.clip(p if levels is None else np.round(p * levels) / levels, 0, 1), codes


def expected_cost(p: Floats, decision: npt.NDArray[np.bool_]) -> float:
    return float(np.sum(np.where(decision, 1 - p, 4 * p)))


def rates(decision: npt.NDArray[np.bool_], codes: npt.NDArray[np.int64]) -> list[float]:
    return [float(decision[codes == code].mean()) for code in (0, 1)]


@pytest.mark.parametrize("aim", [0.0, 0.05, 0.1, 0.2])
def test_limits_by_group_cost_least_of_all_thresholds_within_the_aim(aim: float) -> None:
    p, codes = scores(levels=12)
    limits = np.array(limits_by_group(p, codes, 2, costs=COSTS, aim=aim, min_rows=100))
    decision = p >= limits[codes]
    assert np.ptp(rates(decision, codes)) <= aim + 1e-9
    cuts = [*np.arange(14) / 12 - 1 / 24, 0.2]
    possible = [p >= np.array(pair)[codes] for pair in product(cuts, cuts)]
    best = min(expected_cost(p, d) for d in possible if np.ptp(rates(d, codes)) <= aim + 1e-9)
    assert expected_cost(p, decision) == pytest.approx(best)


def test_limits_by_group_parity_already_leaves_the_threshold_of_the_costs() -> None:
    p, codes = scores()
    assert limits_by_group(p, codes, 2, costs=COSTS, aim=1.0, min_rows=100) == [0.2, 0.2]


def test_limits_by_group_small_group_keeps_the_threshold() -> None:
    p, codes = scores()
    codes = np.where(np.arange(len(codes)) < 50, 2, codes)
    limits = limits_by_group(p, codes, 3, costs=COSTS, aim=0.01, min_rows=100)
    assert limits[2] == 0.2
    assert limits[0] < 0.2 < limits[1]


@pytest.mark.parametrize("aim", [0.02, 0.1])
def test_limits_by_estimated_group_that_is_certain_are_those_by_group(aim: float) -> None:
    p, codes = scores()
    shares = np.stack([codes == 0, codes == 1]).astype(np.float64)
    limits = np.array(limits_by_estimated_group(p, shares, costs=COSTS, aim=aim))
    known = np.array(limits_by_group(p, codes, 2, costs=COSTS, aim=aim, min_rows=100))
    decision, of_known = p >= limits @ shares, p >= known[codes]
    assert np.ptp(rates(decision, codes)) <= aim + 2 / 200  # the row on the border of each group
    assert expected_cost(p, decision) == pytest.approx(expected_cost(p, of_known), rel=0.01)


def test_limits_by_estimated_group_parity_already_leaves_the_threshold_of_the_costs() -> None:
    p, codes = scores()
    shares = np.stack([codes == 0, codes == 1]).astype(np.float64)
    assert limits_by_estimated_group(p, shares, costs=COSTS, aim=1.0) == [0.2, 0.2]


def three_attributes(rows: int = 6_000) -> tuple[Floats, dict[str, npt.NDArray[Any]]]:
    """Probabilities of people whose sex, race and age all count; some combinations are rare."""
    dice = np.random.default_rng(11)
    people = {
        "sex": dice.choice(np.array(["men", "women"], dtype=object), rows, p=[0.6, 0.4]),
        "race": dice.choice(np.array(["a", "b", "c"], dtype=object), rows, p=[0.85, 0.12, 0.03]),
        "age": dice.choice(np.array(["old", "young"], dtype=object), rows),
    }
    logit = -2 + dice.normal(size=rows) + 0.8 * (people["sex"] == "men")
    logit += 0.5 * (people["race"] == "a") - 0.7 * (people["age"] == "young")
    return 1 / (1 + np.exp(-logit.astype(float))), people


def test_limits_jointly_hold_every_attribute_at_the_least_cost() -> None:
    p, people = three_attributes()
    kinds = sorted(set(zip(*people.values(), strict=True)))
    columns = {
        name: np.array([kind[at] for kind in kinds], dtype=object) for at, name in enumerate(people)
    }
    within = dict.fromkeys(people, 0.02)
    limits = limits_jointly(p, people, columns, costs=COSTS, within=within, min_rows=100)
    found = dict(zip(kinds, limits, strict=True))
    each = np.array([found[kind] for kind in zip(*people.values(), strict=True)])
    decision = p >= each
    for values in people.values():
        rates = [decision[values == value].mean() for value in sorted(set(values))]
        assert max(rates) - min(rates) <= 0.02 + 0.006  # a row of each group is on the border
    bound = relaxed_cost(p, people, 0.02)  # which the rows on the border may undercut a little
    assert expected_cost(p, decision) == pytest.approx(bound, rel=0.002)


def relaxed_cost(p: Floats, people: dict[str, npt.NDArray[Any]], aim: float) -> float:
    """Return the least cost of decisions that may be drawn by lot, with rates within the aim."""
    rows = []
    for values in people.values():
        rates = [(values == value) / np.sum(values == value) for value in sorted(set(values))]
        rows += [one - other for one in rates for other in rates if one is not other]
    found = linprog(
        *(1 - 5 * p, np.stack(rows), np.full(len(rows), aim)), bounds=(0, 1), method="highs-ipm"
    )
    return float(found.fun + 4 * p.sum())


def test_limits_jointly_value_of_too_few_rows_moves_nothing() -> None:
    p, people = three_attributes(2_000)
    columns = {"race": np.array(["a", "b", "c"], dtype=object)}
    limits = limits_jointly(
        *(p, {"race": people["race"]}, columns), costs=COSTS, within={"race": 0.01}, min_rows=100
    )
    assert limits[2] == 0.2
    assert limits[1] < 0.2 < limits[0]


@pytest.mark.parametrize("groups", [2, 3])
def test_group_shares_equal_sklearn(groups: int) -> None:
    from sklearn.linear_model import LogisticRegression

    dice = np.random.default_rng(1)
    codes = np.arange(900) % groups
    matrix = dice.normal(codes[:, None], 1.5, (900, 2)).astype(np.float32)
    matrix[::7, 1] = np.nan
    rule = fit_group_shares(INPUTS, matrix, codes, seed=7)
    found = group_shares(rule, matrix)
    values = prepare(INPUTS, matrix).values
    model = LogisticRegression(C=0.05, max_iter=300).fit(values, codes)
    assert np.abs(found.T - model.predict_proba(values)).max() < 1e-6
    assert found.sum(axis=0) == pytest.approx(1.0)


def test_group_shares_are_learned_from_rows_with_a_group_only() -> None:
    matrix = np.random.default_rng(1).normal(size=(300, 2)).astype(np.float32)
    codes = np.arange(300) % 3 - 1
    known = codes >= 0
    assert fit_group_shares(INPUTS, matrix, codes, seed=7) == fit_group_shares(
        INPUTS, matrix[known], codes[known], seed=7
    )


# as applied to rows


def document(**thresholds: Any) -> dict[str, Any]:
    return {"threshold": 0.2, "thresholds": thresholds}


def test_row_thresholds_by_group_row_without_a_group_has_the_default() -> None:
    rule = document(
        kind="by_group",
        attributes=["region", "gender"],
        groups=[[["n", "f"], ["n", "m"]], [["s", "f"]]],
        limits=[0.1, 0.4],
    )
    columns = {
        "region": np.array(["n", "n", "s", "s", None], dtype=object),
        "gender": np.array(["f", "m", "f", "m", "f"], dtype=object),
    }
    found = row_thresholds(rule, columns, np.zeros((5, 1), dtype=np.float32))
    assert found.tolist() == [0.1, 0.1, 0.4, 0.2, 0.2]


def test_row_thresholds_by_estimated_group_are_the_weighted_mean() -> None:
    rule = document(
        kind="by_estimated_group",
        terms=[{"kind": "number", "input": 0, "log": False, "mean": 0.0, "scale": 1.0}],
        coefficients=[[0.0, 1.0]],
        intercepts=[0.0, 0.0],
        limits=[0.1, 0.5],
    )
    matrix = np.array([[0.0], [np.log(3.0)], [np.nan]], dtype=np.float32)
    # shares of the second group: 1/2, 3/4, 1/2
    assert row_thresholds(rule, {}, matrix).tolist() == pytest.approx([0.3, 0.4, 0.3], abs=1e-6)
