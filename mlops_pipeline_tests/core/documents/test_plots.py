import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mlops_pipeline.core.documents import plots
from mlops_pipeline.core.evaluation.evaluation import Slice
from mlops_pipeline.core.fairness.audit import audit_groups
from mlops_pipeline.core.metrics.metrics import Estimate
from mlops_pipeline.core.modelling.calibration import reliability_curve
from mlops_pipeline.errors import DataError
from mlops_pipeline_tests.core.evaluation.example_evaluation import mitigated, scores

Y, P, GROUPS = scores()
ONE_CLASS = np.zeros(50)


def a_slice(value: float | None, group: str = "basic") -> Slice:
    known = Estimate(value, value - 0.02, value + 0.02) if value else Estimate(None, reason="few")
    return Slice("plan", group, 300, 40, {"roc_auc": known})


def audit(column: str = "region", rows: int = len(Y)) -> Any:
    decisions = (P[:rows] >= 0.2).astype(int)
    return audit_groups(Y[:rows], decisions, GROUPS[column][:rows], attribute=column)


PICTURES: dict[str, Callable[[], bytes]] = {
    "reliability": lambda: plots.reliability_plot(reliability_curve(Y, P)),
    "reliability, one bin": lambda: plots.reliability_plot(reliability_curve([0, 0], [0.0, 0.0])),
    "roc": lambda: plots.roc_plot(Y, P),
    "roc, one class": lambda: plots.roc_plot(ONE_CLASS, P[:50]),
    "precision": lambda: plots.precision_recall_plot(Y, P),
    "precision, one class": lambda: plots.precision_recall_plot(ONE_CLASS, P[:50]),
    "scores": lambda: plots.score_plot(Y, P, 0.2),
    "scores, all zero": lambda: plots.score_plot(ONE_CLASS, ONE_CLASS, 0.5),
    "confusion": lambda: plots.confusion_plot(Y, P, 0.2),
    "confusion, one class": lambda: plots.confusion_plot(ONE_CLASS, P[:50], 0.2),
    "importance": lambda: plots.importance_plot(
        {f"cost in $ {i} {'x' * i}": i for i in range(40)}, title="Gain", axis="gain"
    ),
    "importance, none": lambda: plots.importance_plot({}, title="Gain", axis="gain"),
    "learning": lambda: plots.learning_plot({"train": [0.4, 0.3], "validation": [0.5, 0.4]}, 2),
    "learning, none": lambda: plots.learning_plot({}),
    "slices": lambda: plots.slice_plot(
        [a_slice(0.5 + i / 90, f"group {i}") for i in range(30)], "roc_auc", Estimate(0.7)
    ),
    "slices, not computable": lambda: plots.slice_plot([a_slice(None)], "roc_auc"),
    "scores, thresholds by row": lambda: plots.score_plot(Y, P, np.where(Y == 1, 0.1, 0.3)),
    "confusion, thresholds by row": lambda: plots.confusion_plot(Y, P, np.where(Y == 1, 0.1, 0.3)),
    "mitigation": lambda: plots.mitigation_plot(mitigated()),
    "selection": lambda: plots.selection_plot(audit(), 0.05),
    "selection, small groups": lambda: plots.selection_plot(audit(rows=60), 0.05),
}


@pytest.mark.parametrize("name", PICTURES)
def test_plot_is_a_small_png_of_one_size(name: str) -> None:
    picture = PICTURES[name]()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", picture[16:24]) == (640, 420)
    assert len(picture) < 80_000


@pytest.mark.parametrize("name", ["roc", "slices", "selection", "mitigation"])
def test_plot_of_same_figures_has_same_bytes(name: str) -> None:
    assert PICTURES[name]() == PICTURES[name]()


def test_plots_leave_no_figure_in_pyplot() -> None:
    import matplotlib.pyplot as plt

    plots.roc_plot(Y, P)
    assert plt.get_fignums() == []


def test_curve_of_many_scores_keeps_ends_and_500_points() -> None:
    selected, found, positives, rows = plots._curve(Y, P)
    assert len(selected) == plots.CURVE_POINTS
    assert (selected[-1], found[-1]) == (rows, positives) == (len(Y), Y.sum())


def test_curve_of_no_rows_is_empty() -> None:
    assert PICTURES["roc"]() != plots.roc_plot([], [])
    assert len(plots._curve([], [])[0]) == 0


def test_scores_outside_range_are_refused() -> None:
    with pytest.raises(DataError, match="not probabilities"):
        plots.confusion_plot([0, 1], [0.2, 1.7], 0.5)
