"""The reduction: which labels and weights each model is fitted on; fairlearn is the oracle."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from fairlearn.reductions import DemographicParity, ErrorRate, GridSearch

from mlops_pipeline.config.modelling import Costs
from mlops_pipeline.core.data.frame import Labels
from mlops_pipeline.core.mitigation.grid_search import multiplier_grid, search_grid
from mlops_pipeline.core.modelling.fitting import Fitted, Fitting, Inputs, Rows, Weights
from mlops_pipeline.spec.kinds import Dummy

COSTS = Costs(false_positive=1.0, false_negative=4.0)
LABEL: Labels = np.array([0, 1, 0, 0, 1, 0, 0, 1], dtype=np.int8)
CODES = np.array([0, 0, 0, 0, 1, 1, 1, -1])
SHARES = [4 / 8, 3 / 8]


class Recorder:
    """A real fit of the base rate that remembers what it was given."""

    def __init__(self) -> None:
        self.seen: list[tuple[Labels, Weights]] = []

    def fit(self, label: Labels, weight: Weights) -> Fitted:
        self.seen.append((label, weight))
        rows = Rows(np.zeros((len(label), 1), np.float32), label, weight)
        inputs = Inputs(({"name": "a", "type": "number"},))
        recipe = Dummy(kind="dummy")
        return Fitting("d", recipe, inputs, rows, None, balanced=False, seed=1, threads=1).fit()


def test_search_grid_shifts_the_costs_of_each_group_by_its_rate() -> None:
    grid = multiplier_grid([0.5, 0.1], SHARES, COSTS, size=3)
    recorder = Recorder()
    found = search_grid(LABEL, CODES, grid, costs=COSTS, fit=recorder.fit)
    mean = (0.5 * 4 + 0.1 * 3) / 7
    deviation = np.array([(0.5 - mean) / 0.4, (0.1 - mean) / 0.4, 0.0])[CODES]
    for strength, (label, weight) in zip((0.5, 1.0, 1.5), recorder.seen, strict=True):
        signed = np.where(LABEL == 1, 4.0, -1.0) - strength * deviation
        assert label.tolist() == (signed > 0).astype(int).tolist()
        assert weight.tolist() == pytest.approx(np.abs(signed).tolist(), abs=1e-8)
    rates = [item.model.document["base_rate"] for item in found if item]
    assert rates == [np.average(label, weights=weight) for label, weight in recorder.seen]


def test_search_grid_one_vector_again_gives_the_same_model() -> None:
    grid = multiplier_grid([0.5, 0.1], SHARES, COSTS, size=3)
    recorder = Recorder()
    options = {"costs": COSTS, "fit": recorder.fit}
    every = search_grid(LABEL, CODES, grid, **options)  # type: ignore[arg-type]
    (again,) = search_grid(LABEL, CODES, grid[1:2], **options)  # type: ignore[arg-type]
    assert again is not None
    assert every[1] is not None
    assert again.model.files["model.json"] == every[1].model.files["model.json"]


def test_search_grid_labels_all_the_same_gives_no_model() -> None:
    recorder = Recorder()
    options = {"costs": COSTS, "fit": recorder.fit}
    codes = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    far = [[-50.0, 50.0]]  # selecting the first group is rewarded, the second punished
    (split,) = search_grid(LABEL, codes, far, **options)  # type: ignore[arg-type]
    assert split is not None
    assert recorder.seen[-1][0].tolist() == [1, 1, 1, 1, 1, 0, 0, 0]
    (none,) = search_grid(1 - LABEL * 0, codes, [[1.0, -1.0]], **options)  # type: ignore[arg-type]
    assert none is None


class Estimator:
    """What fairlearn fits: it remembers labels and weights, and decides nothing."""

    seen: list[tuple[Any, Any]]

    def __deepcopy__(self, _: Any) -> "Estimator":
        return self

    def fit(self, _: Any, label: Any, sample_weight: Any) -> None:
        self.seen.append((np.asarray(label), np.asarray(sample_weight)))

    def predict(self, rows: Any) -> Any:
        return np.zeros(len(rows), dtype=np.int64)


class Parity(DemographicParity):  # type: ignore[misc] # fairlearn ships no types
    def default_objective(self) -> Any:
        return ErrorRate(costs={"fp": COSTS.false_positive, "fn": COSTS.false_negative})


@pytest.mark.parametrize("seed", range(4))
def test_search_grid_labels_and_weights_are_those_of_fairlearn_to_the_last_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(-1 if seed else 0, 3, 500)
    label: Labels = (rng.random(500) < 0.3).astype(np.int8)
    grid = multiplier_grid([0.5, 0.1, 0.33], [0.3, 0.3, 0.2], COSTS, size=3)
    recorder, oracle = Recorder(), Estimator()
    oracle.seen = []
    search_grid(label, codes, grid, costs=COSTS, fit=recorder.fit)
    index = pd.MultiIndex.from_product([["+", "-"], ["all"], sorted(set(codes.tolist()))])
    parts = {
        number: pd.Series(
            [
                0.0 if group < 0 else max(vector[group] if sign == "+" else -vector[group], 0.0)
                for sign, _, group in index
            ],
            index=index.set_names(["sign", "event", "group_id"]),
        )
        for number, vector in enumerate(grid)
    }
    search = GridSearch(oracle, Parity(), grid=pd.DataFrame(parts))
    search.fit(np.arange(500)[:, None], label.astype(np.int64), sensitive_features=codes)
    assert len(recorder.seen) == len(oracle.seen) == len(grid)
    for ours, theirs in zip(recorder.seen, oracle.seen, strict=True):
        assert np.array_equal(ours[0], theirs[0])
        assert np.array_equal(ours[1], theirs[1])
