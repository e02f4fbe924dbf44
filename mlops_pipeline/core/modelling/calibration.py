"""Calibration maps as plain data, the threshold that follows from costs, the reliability curve.

Belongs here: what turns a score into a probability and a probability into a decision. A
calibration is stored as numbers, not as a pickled estimator, so that serving applies it with numpy
alone. The calibration error is in `metrics`; the plot belongs to the report.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import ArrayLike

from mlops_pipeline.core.metrics.metrics import Floats, binary_labels, probabilities
from mlops_pipeline.core.modelling.scoring import apply_calibration, logit, sigmoid
from mlops_pipeline.errors import ConfigError, DataError

Kind = Literal["isotonic", "sigmoid", "none"]
MAX_STEPS = 100


@dataclass(frozen=True)
class Calibration:
    """A monotone map from score to probability, as plain data; DataError if fields do not fit.

    Isotonic: knots, x strictly increasing, y not decreasing. Sigmoid: 1 / (1 + exp(a * logit(score)
    + b)), where a < 0 keeps the order.
    """

    kind: Kind
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()
    a: float | None = None
    b: float | None = None

    def __post_init__(self) -> None:
        increasing = bool(np.all(np.diff(self.x) > 0) and np.all(np.diff(self.y) >= 0))
        knots_fit = 0 < len(self.x) == len(self.y) and increasing and _are_finite(*self.x, *self.y)
        no_knots = not self.x and not self.y
        fits = {
            "isotonic": knots_fit and self.a is None and self.b is None,
            "sigmoid": no_knots and _are_finite(self.a, self.b),
            "none": no_knots and self.a is None and self.b is None,
        }
        if not fits.get(self.kind, False):
            knots = f"{len(self.x)} x, {len(self.y)} y"
            raise DataError(
                "The fields of a calibration do not fit its kind",
                expected="isotonic: increasing x and y; sigmoid: a and b; none: neither",
                found=f"kind={self.kind!r}, {knots}, a={self.a}, b={self.b}",
            )

    def apply(self, scores: ArrayLike) -> Floats:
        """Return the calibrated probabilities of scores in [0, 1]: float64 `(n_samples,)`.

        Isotonic: linear between knots, constant beyond them, as sklearn's
        IsotonicRegression(out_of_bounds="clip"), then clipped to [1e-6, 1 - 1e-6] so that the log
        loss stays finite where a whole step had one class. Sigmoid: scores are clipped to the same
        range before their logit.
        """
        checked = probabilities(scores)
        return apply_calibration(self.to_dict(), checked).copy()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values; floats survive a round trip exactly."""
        return asdict(self) | {"x": list(self.x), "y": list(self.y)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Rebuild what `to_dict` returned; KeyError if a field is absent, DataError if wrong."""
        return cls(fields["kind"], tuple(fields["x"]), tuple(fields["y"]), fields["a"], fields["b"])


def fit_calibration(kind: Kind, scores: ArrayLike, y: ArrayLike) -> Calibration:
    """Fit a calibration on rows of both classes that the model was not trained on.

    Isotonic (Zadrozny & Elkan 2002) needs about 1,000 rows or more, below that it overfits
    (Niculescu-Mizil & Caruana 2005); sigmoid (Platt 1999; Lin, Lin & Weng 2007) fits two numbers.
    """
    if kind not in get_args(Kind):
        raise ConfigError(
            "Unknown calibration", expected=", ".join(get_args(Kind)), found=str(kind)
        )
    labels = binary_labels(y)
    checked = probabilities(scores, len(labels))
    if kind == "none":
        return Calibration("none")
    if len(np.unique(labels)) < 2:
        found = f"{len(labels)} rows, {int(labels.sum())} positive"
        raise DataError("A calibration needs rows of both classes", found=found)
    if kind == "isotonic":
        return _fit_isotonic(checked, labels)
    return _fit_sigmoid(logit(checked), labels)


def _fit_isotonic(scores: Floats, labels: Floats) -> Calibration:
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(out_of_bounds="clip").fit(scores, labels)
    return Calibration(
        "isotonic", tuple(fitted.X_thresholds_.tolist()), tuple(fitted.y_thresholds_.tolist())
    )


def _fit_sigmoid(logits: Floats, labels: Floats) -> Calibration:
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
    return Calibration("sigmoid", a=float(ab[0]), b=float(ab[1]))


def _are_finite(*numbers: float | None) -> bool:
    return all(number is not None and math.isfinite(number) for number in numbers)


def threshold_from_costs(false_positive: float, false_negative: float) -> float:
    """Return c_fp / (c_fp + c_fn), the threshold of least expected cost (Elkan 2001, eq. 2).

    Valid for calibrated probabilities, when correct decisions cost nothing.
    """
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
    """Return the points of a reliability diagram with bins of about equal numbers of rows.

    Equal scores stay in one bin, so heavy ties give fewer than `bins` bins, none of them empty.
    """
    if bins < 1:
        raise ConfigError("A reliability curve needs bins", expected="bins >= 1", found=str(bins))
    labels = binary_labels(y)
    scores = probabilities(p, len(labels))
    if len(labels) == 0:
        raise DataError("A reliability curve needs rows", found="0 rows")
    edges = np.unique(np.quantile(scores, np.arange(1, bins) / bins, method="higher"))
    bin_of = np.unique(np.searchsorted(edges, scores, side="right"), return_inverse=True)[1]
    rows = np.bincount(bin_of)
    return ReliabilityCurve(
        mean_score=tuple((np.bincount(bin_of, weights=scores) / rows).tolist()),
        observed_rate=tuple((np.bincount(bin_of, weights=labels) / rows).tolist()),
        rows=tuple(rows.tolist()),
    )
