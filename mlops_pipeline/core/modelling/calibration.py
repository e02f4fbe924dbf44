"""Calibration maps as plain data, the threshold that follows from costs, the reliability curve.

Belongs here: what turns a score into a probability and a probability into a decision. A
calibration is stored as numbers, not as a pickled estimator: scoring.py applies it with numpy
alone. The calibration error is in `metrics`; the plot belongs to the report.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from mlops_pipeline.core.data.frame import Labels, Values
from mlops_pipeline.core.metrics import metrics
from mlops_pipeline.core.modelling.scoring import Flags, Floats, apply_calibration, logit, sigmoid
from mlops_pipeline.errors import ConfigError, DataError

Kind = Literal["isotonic", "sigmoid", "none"]
Calibration = dict[str, Any]  # kind; x and y of an isotonic one, a and b of a sigmoid
FOLDS = 5  # of the validation part, when a calibration is judged on rows it did not see
MAX_STEPS = 100
ISOTONIC_ROWS = 1_000  # below which isotonic calibration overfits, by the same reference


def fit_calibration(kind: Kind, scores: ArrayLike, y: ArrayLike) -> Calibration:
    """Fit a calibration on rows of both classes that the model was not trained on.

    Isotonic (Zadrozny & Elkan 2002) needs about ISOTONIC_ROWS or more, below that it overfits
    (Niculescu-Mizil & Caruana 2005): knots, x strictly increasing, y not decreasing, linear between
    them and constant beyond, as sklearn's IsotonicRegression(out_of_bounds="clip"). Sigmoid (Platt
    1999; Lin, Lin & Weng 2007) fits two numbers: 1 / (1 + exp(a * logit(score) + b)). Both keep the
    order of the scores: where that of these rows is the reverse, every score gets their base rate.
    """
    if kind not in get_args(Kind):
        known = ", ".join(get_args(Kind))
        raise ConfigError("Unknown calibration", expected=known, found=str(kind))
    labels = metrics.binary_labels(y)
    checked = metrics.probabilities(scores, len(labels))
    found: Calibration = {"kind": kind, "x": [], "y": [], "a": None, "b": None}
    if kind == "none":
        return found
    if len(np.unique(labels)) < 2:
        rows = f"{len(labels)} rows, {int(labels.sum())} positive"
        raise DataError("A calibration needs rows of both classes", found=rows)
    if kind == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        fitted = IsotonicRegression(out_of_bounds="clip").fit(checked, labels)
        knots = {"x": fitted.X_thresholds_.tolist(), "y": fitted.y_thresholds_.tolist()}
        return {**found, **knots}
    a, b = _fit_sigmoid(logit(checked), labels)
    return {**found, "a": a, "b": b}


def calibration_notes(kind: Kind, rows: int, positives: int) -> list[str]:
    """Say what to know of a calibration that learned from so many rows."""
    if kind != "isotonic" or rows >= ISOTONIC_ROWS:
        return []
    return [
        f"Isotonic calibration learned from {rows:,} rows of the validation part, {positives:,} of "
        f"them positive. Below about {ISOTONIC_ROWS:,} rows it tends to follow their noise "
        "(Niculescu-Mizil & Caruana 2005); training.calibration: sigmoid has two numbers to learn."
    ]


def _fit_sigmoid(logits: Floats, labels: Floats) -> tuple[float, float]:
    """Minimise the log loss of Platt's smoothed targets by Newton steps with halving.

    The targets are (n+ + 1) / (n+ + 2) and 1 / (n- + 2), which keeps a and b finite when the
    scores separate the classes. The ridge is on the step only, so that there is one when all
    scores are equal.
    """
    positives = labels.sum()
    negatives = len(labels) - positives
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.column_stack([logits, np.ones_like(logits)])

    def loss(ab: Floats) -> float:
        z = design @ ab
        return float(np.sum(targets * z + np.logaddexp(0, -z)))

    ab = np.array([0.0, math.log((negatives + 1) / (positives + 1))])
    for _ in range(MAX_STEPS):
        predicted = sigmoid(-(ab[0] * logits + ab[1]))
        gradient = design.T @ (targets - predicted)
        curvature = design.T @ (design * (predicted * (1 - predicted))[:, None])
        ridge = 1e-10 * np.trace(curvature) * np.eye(2)
        step = np.linalg.solve(curvature + ridge, gradient)
        size = 1.0
        while loss(ab - size * step) > loss(ab) and size > 1e-10:
            size /= 2
        ab = ab - size * step
        if np.abs(size * step).max() < 1e-10:
            break
    if ab[0] > 0:  # high scores are less often positive: of maps that keep the order, the best
        return 0.0, -float(logit(np.array([targets.mean()]))[0])
    return float(ab[0]), float(ab[1])


def folds(label: Labels, entity: Values) -> list[tuple[Flags, Flags]]:
    """Return five (inside, rest) divisions by entity; none when a rest has one class only."""
    names, codes = np.unique(entity, return_inverse=True)
    fold = np.random.default_rng(0).permutation(len(names))[codes] % FOLDS
    divided = [(fold == number, fold != number) for number in range(FOLDS)]
    divided = [(inside, rest) for inside, rest in divided if inside.any()]
    return divided if all(len(np.unique(label[rest])) == 2 for _, rest in divided) else []


def cross_fitted(kind: Kind, scores: Floats, label: Labels, entity: Values) -> Floats:
    """Return each row's probability, calibrated by other folds; the scores where there are none."""
    result = scores.copy()
    for inside, rest in folds(label, entity):
        calibration = fit_calibration(kind, scores[rest], label[rest])
        result[inside] = apply_calibration(calibration, scores[inside])
    return result


def threshold_from_costs(false_positive: float, false_negative: float) -> float:
    """Return c_fp / (c_fp + c_fn), the threshold of least expected cost (Elkan 2001, eq. 2)."""
    for name, cost in (("false_positive", false_positive), ("false_negative", false_negative)):
        if not (math.isfinite(cost) and cost > 0):
            raise ConfigError(
                "A cost is wrong", where=name, expected="a finite number above 0", found=str(cost)
            )
    return false_positive / (false_positive + false_negative)


@dataclass(frozen=True)
class ReliabilityCurve:
    """Per bin, by ascending score: mean score, observed share of positives, number of rows."""

    mean_score: tuple[float, ...]
    observed_rate: tuple[float, ...]
    rows: tuple[int, ...]


def reliability_curve(y: ArrayLike, p: ArrayLike, bins: int = 10) -> ReliabilityCurve:
    """Return a reliability diagram by bins of about equal numbers of rows; ties stay in one bin."""
    if bins < 1:
        raise ConfigError("A reliability curve needs bins", expected="bins >= 1", found=str(bins))
    labels = metrics.binary_labels(y)
    scores = metrics.probabilities(p, len(labels))
    if len(labels) == 0:
        raise DataError("A reliability curve needs rows", found="0 rows")
    bin_of = metrics.equal_mass_bins(scores, bins)
    rows = np.bincount(bin_of)
    return ReliabilityCurve(
        mean_score=tuple((np.bincount(bin_of, weights=scores) / rows).tolist()),
        observed_rate=tuple((np.bincount(bin_of, weights=labels) / rows).tolist()),
        rows=tuple(rows.tolist()),
    )
