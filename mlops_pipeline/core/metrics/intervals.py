"""Bootstrap intervals of metrics, and of the difference of two models on the same rows.

Belongs here: resampling of entities. The metrics and their sums belong to `metrics` and
`ranked_scores`, the closed form for the ROC AUC to `delong`, whether a difference is enough to
promote a model to the gates.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mlops_pipeline.core.metrics.delong import delong_auc, delong_difference, normal_quantile
from mlops_pipeline.core.metrics.metrics import (
    Estimate,
    evaluate,
    known_metrics,
    point_metrics,
)
from mlops_pipeline.core.metrics.ranked_scores import Floats, binary_labels, rank_scores
from mlops_pipeline.errors import ConfigError, DataError
from mlops_pipeline.spec.metrics import METRICS

__all__ = [
    "bootstrap_metrics",
    "delong_auc",
    "delong_difference",
    "paired_difference",
    "percentile_interval",
]

MAX_ROWS = 200_000
MIN_COMPUTABLE_SHARE = 0.9  # of the replicates; fewer would be an interval of the easy resamples


@dataclass(frozen=True)
class Scored:
    """The scores of one model and its decision threshold, one for all rows or one for each."""

    p: Floats
    threshold: ArrayLike | None

    def take(self, rows: NDArray[np.bool_]) -> "Scored":
        """Return the given rows."""
        by_row = self.threshold is not None and np.ndim(self.threshold)
        return Scored(self.p[rows], np.asarray(self.threshold)[rows] if by_row else self.threshold)


@dataclass(frozen=True)
class Resampling:
    """How replicates are drawn: the settings of the public functions, checked."""

    replicates: int
    seed: int
    level: float
    max_rows: int = MAX_ROWS

    def __post_init__(self) -> None:
        normal_quantile(self.level)
        if self.replicates < 2 or self.max_rows < 1:
            raise ConfigError(
                "A bootstrap needs replicates and rows",
                expected="replicates >= 2 and max_rows >= 1",
                found=f"replicates={self.replicates}, max_rows={self.max_rows}",
            )


@dataclass(frozen=True)
class Clusters:
    """Which entity each row belongs to, as a code in 0..count-1."""

    codes: NDArray[np.intp]
    count: int


@dataclass(frozen=True)
class Replicates:
    """Metrics of the resamples, (n_replicates, n_models, n_metrics), NaN where not computable.

    `reference` are the same metrics on the resampled population itself, (n_models, n_metrics), and
    `scale` sqrt(entities resampled / all entities): 1 without a subsample.
    """

    values: Floats
    reference: Floats
    scale: float


def _clusters(entities: ArrayLike | None, rows: int) -> Clusters:
    if entities is None:
        return Clusters(np.arange(rows), rows)
    codes, uniques = pd.factorize(np.asarray(entities))
    if len(codes) != rows or (codes < 0).any():
        found = f"{len(codes)} entities, {int((codes < 0).sum())} missing"
        raise DataError(
            "Entities do not fit the rows", expected=f"{rows}, none missing", found=found
        )
    return Clusters(codes, len(uniques))


def _subsample(clusters: Clusters, max_rows: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Keep random entities, as many as fit into max_rows (at least 2)."""
    sizes = np.bincount(clusters.codes, minlength=clusters.count)
    shuffled = rng.permutation(clusters.count)
    fitting = int((np.cumsum(sizes[shuffled]) <= max_rows).sum())
    chosen = np.zeros(clusters.count, dtype=np.bool_)
    chosen[shuffled[: max(fitting, 2)]] = True
    kept: NDArray[np.bool_] = chosen[clusters.codes]
    return kept


def _replicate(
    y: Floats,
    models: Sequence[Scored],
    clusters: Clusters,
    names: Sequence[str],
    plan: Resampling,
) -> Replicates:
    """Draw entities with replacement; each draw is one weight vector shared by all models."""
    rng = np.random.default_rng(plan.seed)
    population = clusters.count
    if len(y) > plan.max_rows:
        kept = _subsample(clusters, plan.max_rows, rng)
        y, clusters = y[kept], _clusters(clusters.codes[kept], int(kept.sum()))
        models = [model.take(kept) for model in models]
    ranked = [rank_scores(y, model.p, model.threshold) for model in models]

    def metrics(weights: Floats | None) -> list[list[float]]:
        return [list(evaluate(one, weights, names).values()) for one in ranked]

    values = np.empty((plan.replicates, len(models), len(names)))
    for replicate in range(plan.replicates):
        draws = rng.integers(0, clusters.count, clusters.count)
        multiplicity = np.bincount(draws, minlength=clusters.count).astype(np.float64)
        values[replicate] = metrics(multiplicity[clusters.codes])
    return Replicates(values, np.array(metrics(None)), (clusters.count / population) ** 0.5)


def percentile_interval(
    value: float,
    replicates: Floats,
    reference: float | None = None,
    *,
    scale: float = 1.0,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    level: float = 0.95,
) -> Estimate:
    """Return a value with the percentile interval of its resamples, NaN where not computable.

    Parameters
    ----------
    reference : float, optional
        The figure of the resampled population, when that is a part of all rows: the deviations
        from it are scaled by `scale` = sqrt(entities resampled / all) and moved to the value.
    """
    reference = value if reference is None else reference
    computable = replicates[np.isfinite(replicates)]
    if len(computable) < MIN_COMPUTABLE_SHARE * len(replicates) or not np.isfinite(reference):
        found = f"only {len(computable)} of {len(replicates)} resamples have this metric"
        return Estimate(value, reason=f"interval not computable: {found}")
    ends = np.quantile(computable, [(1 - level) / 2, (1 + level) / 2])
    if scale < 1:  # resamples of a subsample: move to the point value of all rows and narrow
        ends = np.clip(value + scale * (ends - reference), *bounds)
    return Estimate(value, float(ends[0]), float(ends[1]))


def bootstrap_metrics(  # noqa: PLR0913 - the settings are keyword-only and have defaults
    y: ArrayLike,
    p: ArrayLike,
    threshold: ArrayLike | None,
    *,
    entities: ArrayLike | None = None,
    metrics: Iterable[str] = tuple(METRICS),
    replicates: int = 500,
    seed: int,
    max_rows: int = MAX_ROWS,
    level: float = 0.95,
) -> dict[str, Estimate]:
    """Return each metric with the percentile interval of a bootstrap over entities.

    A replicate draws as many entities as there are, with replacement; all rows of an entity come
    with it, because rows of one entity over overlapping periods are not independent.

    Parameters
    ----------
    y : array_like of {0, 1}, shape (n_samples,)
    p : array_like of float in [0, 1], shape (n_samples,)
    threshold : float, array_like of float of shape (n_samples,), or None
        A row is selected when p >= threshold; with None, metrics of decisions are not computable.
    entities : array_like, shape (n_samples,), optional
        Identity of the entity of each row, none missing. Default: every row is its own.
    metrics : iterable of str
        Keys of `metrics.METRICS`.
    replicates : int
        With 500 the standard error of either end of a 95 % interval is 3 % of its width.
    seed : int
        The same seed and input give the same interval.
    max_rows : int
        With more rows, entities are subsampled to at most that, and the deviations of resamples
        scaled by sqrt(entities kept / all) around the point value, which always uses all rows.
    level : float
        Coverage of the interval.

    Returns
    -------
    dict of str to Estimate
        Without a value when the metric is not computable; without an interval with fewer than 2
        entities or when over a tenth of the resamples lack the metric. Resampling adds noise to
        `ece`, which cannot fall below 0, so its interval lies high and may exclude the value.

    Raises
    ------
    ConfigError
        If a metric is unknown or a setting out of range.
    DataError
        If labels, scores or entities cannot be used.

    References
    ----------
    Efron & Tibshirani 1993, ch. 13 (percentile); Field & Welsh, JRSS B 69(3), 2007 (clusters);
    Bickel, Goetze & van Zwet, Statistica Sinica 7, 1997 (fewer than n, rescaled).
    """
    names = known_metrics(metrics)
    plan = Resampling(replicates, seed, level, max_rows)
    labels = binary_labels(y)
    estimates = point_metrics(labels, p, threshold, metrics=names)
    clusters = _clusters(entities, len(labels))
    if clusters.count < 2:
        return {name: _without_interval(estimate) for name, estimate in estimates.items()}
    values = {name: one.value for name, one in estimates.items() if one.value is not None}
    model = Scored(np.asarray(p, dtype=np.float64), threshold)
    drawn = _replicate(labels, [model], clusters, tuple(values), plan)
    for column, (name, value) in enumerate(values.items()):
        estimates[name] = percentile_interval(
            value,
            drawn.values[:, 0, column],
            float(drawn.reference[0, column]),
            scale=drawn.scale,
            bounds=METRICS[name].bounds,
            level=level,
        )
    return estimates


def _without_interval(estimate: Estimate) -> Estimate:
    if estimate.value is None:
        return estimate
    return replace(estimate, reason="interval not computable: fewer than 2 entities")


def paired_difference(  # noqa: PLR0913 - the settings are keyword-only and have defaults
    y: ArrayLike,
    p_a: ArrayLike,
    p_b: ArrayLike,
    *,
    metric: str,
    threshold_a: ArrayLike | None = None,
    threshold_b: ArrayLike | None = None,
    entities: ArrayLike | None = None,
    replicates: int = 500,
    seed: int,
    level: float = 0.95,
) -> Estimate:
    """Return metric(a) - metric(b) on the same rows; a is the challenger, b the champion.

    Both models see the same resamples, so that what they share cancels. For `roc_auc` with one
    row per entity and at most 200,000 rows it is `delong_difference`, without resampling; above
    that, entities are subsampled as in `bootstrap_metrics`. The sign is that of the metric: above
    0, the challenger is worse in log loss.

    Parameters
    ----------
    y, entities, replicates, seed, level
        See `bootstrap_metrics`.
    p_a, p_b : array_like of float in [0, 1], shape (n_samples,)
    metric : str
        A key of `metrics.METRICS`.
    threshold_a, threshold_b : float or array_like of float, optional
        Each model decides with its own.

    Returns
    -------
    Estimate
        Not computable when the metric is not computable for one of the models, with whose reason.

    Raises
    ------
    ConfigError, DataError
        As `bootstrap_metrics`.
    """
    plan = Resampling(replicates, seed, level)
    labels = binary_labels(y)
    point_a = point_metrics(labels, p_a, threshold_a, metrics=[metric])[metric]
    point_b = point_metrics(labels, p_b, threshold_b, metrics=[metric])[metric]
    if point_a.value is None or point_b.value is None:
        named = {"challenger": point_a.reason, "champion": point_b.reason}
        reasons = [f"{model}: {reason}" for model, reason in named.items() if reason]
        return Estimate(None, reason="; ".join(reasons))
    clusters = _clusters(entities, len(labels))
    if metric == "roc_auc" and clusters.count == len(labels) <= MAX_ROWS:
        return delong_difference(labels, p_a, p_b, level=level)
    value = point_a.value - point_b.value
    if clusters.count < 2:
        return _without_interval(Estimate(value))
    models = [
        Scored(np.asarray(p_a, dtype=np.float64), threshold_a),
        Scored(np.asarray(p_b, dtype=np.float64), threshold_b),
    ]
    drawn = _replicate(labels, models, clusters, [metric], plan)
    differences = drawn.values[:, 0, 0] - drawn.values[:, 1, 0]
    reference = float(drawn.reference[0, 0] - drawn.reference[1, 0])
    bounds = (-np.inf, np.inf)
    return percentile_interval(
        value, differences, reference, scale=drawn.scale, bounds=bounds, level=level
    )
