"""Reweighing on the real Adult file, beside the published run of AIF360's notebook."""

from collections.abc import Mapping
from statistics import mean

import fairlearn.metrics as oracle
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import precision_score

from benchmarks import fairness as adult
from mlops_pipeline.core.fairness.audit import audit_groups
from mlops_pipeline.core.fairness.disparities import DISPARITIES
from mlops_pipeline.core.fairness.variants import selection_difference
from mlops_pipeline.core.mitigation.reweighing import reweigh

pytestmark = pytest.mark.skipif(
    not (adult.FILES / "adult.data.gz").is_file(),
    reason=f"the public data are not there: no {adult.FILES / 'adult.data.gz'}",
)
Figures = Mapping[str, float]


@pytest.fixture(scope="module")
def runs() -> list[tuple[Figures, Figures, Figures]]:
    values, sex, label = adult.read_adult()
    assert values.shape == (48_842, 18)
    assert label[sex == adult.MEN].mean() == pytest.approx(0.30377, abs=5e-6)
    assert label[sex == adult.WOMEN].mean() == pytest.approx(0.10925, abs=5e-6)
    return [adult.one_seed(values, sex, label, seed) for seed in adult.SEEDS]


def means(runs: list[tuple[Figures, Figures, Figures]], name: str) -> tuple[float, float]:
    return mean(before[name] for before, _, _ in runs), mean(after[name] for _, after, _ in runs)


def test_reweighing_makes_the_weighted_base_rates_equal(
    runs: list[tuple[Figures, Figures, Figures]],
) -> None:
    assert all(before[adult.BASE_RATES] < -0.19 for before, _, _ in runs)
    assert all(abs(after[adult.BASE_RATES]) < 1e-12 for _, after, _ in runs)


@pytest.mark.parametrize("name", ["statistical parity difference", "equal opportunity difference"])
def test_reweighing_moves_the_difference_as_far_as_published(
    runs: list[tuple[Figures, Figures, Figures]], name: str
) -> None:
    (before, after), (then, now) = means(runs, name), adult.PUBLISHED[name]
    assert abs(before) - abs(after) >= abs(then) - abs(now)


def test_reweighing_costs_no_more_balanced_accuracy_than_published(
    runs: list[tuple[Figures, Figures, Figures]],
) -> None:
    (before, after), (then, now) = (
        means(runs, "balanced accuracy"),
        adult.PUBLISHED["balanced accuracy"],
    )
    assert round(before - after, 3) <= round(then - now, 3)  # three digits were published


def test_signed_differences_are_those_of_the_audit_with_a_sign() -> None:
    dice = np.random.default_rng(1)
    sex = np.arange(400) % 2
    label = (dice.random(400) < 0.3).astype(np.int64)
    decision = dice.random(400) < 0.2 + 0.3 * sex
    found = adult.signed_differences(label, decision, sex)["statistical parity difference"]
    names = np.array(["women", "men"], dtype=object)[sex]
    assert -found == pytest.approx(selection_difference(decision, names, 100))


@pytest.mark.parametrize("is_weighted", [False, True])
def test_every_figure_of_an_audit_of_the_test_part_is_fairlearns_own(*, is_weighted: bool) -> None:
    values, sex, label = adult.read_adult()
    train, _, test = adult.split(len(label), 0)
    weights = reweigh(label[train], sex[train]) if is_weighted else np.ones(len(train))
    decision = adult.fitted_scores(values, label, train, weights)[test] > 0.26
    names = np.array(["women", "men"], dtype=object)[sex[test]]
    found = audit_groups(label[test], decision, pd.Series(names), attribute="sex")
    given = {"y_true": label[test], "y_pred": decision, "sensitive_features": names}
    for name in DISPARITIES:
        own = float(getattr(oracle, name)(**given))
        assert getattr(found, name).value == pytest.approx(own, abs=1e-12), name
    rates = {
        "selection_rate": oracle.selection_rate,
        "tpr": oracle.true_positive_rate,
        "fpr": oracle.false_positive_rate,
        "precision": precision_score,
    }
    frame = oracle.MetricFrame(metrics=rates, **given).by_group
    assert {group.group for group in found.groups} == {"women", "men"}
    for group in found.groups:
        for name in rates:
            own = float(frame.loc[group.group, name])
            assert getattr(group, name).value == pytest.approx(own, abs=1e-12), (group, name)
