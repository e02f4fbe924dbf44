"""Metrics with intervals, and the difference of two models on the same rows.

Belongs here: metrics resampled by the bootstrap over entities (bootstrap.py). The closed form for
the ROC AUC is delong.py's, whether a difference is enough to promote a model the gate's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlops_pipeline.core.metrics.bootstrap import (
    ONE_ENTITY,
    Codes,
    check_replicates,
    entity_codes,
    multiplicities,
    percentile_interval,
)
from mlops_pipeline.core.metrics.delong import delong_difference, normal_quantile
from mlops_pipeline.core.metrics.metrics import Estimate, evaluate, known_metrics, point_metrics
from mlops_pipeline.core.metrics.ranked_scores import Floats, binary_labels, rank_scores
from mlops_pipeline.errors import ConfigError
from mlops_pipeline.spec.metrics import METRICS

MAX_ROWS = 200_000


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
    """How resamples are drawn: the settings of the public functions, checked."""

    replicates: int
    seed: int
    level: float
    max_rows: int = MAX_ROWS

    def __post_init__(self) -> None:
        normal_quantile(self.level)
        check_replicates(self.replicates)
        if self.max_rows < 1:
            raise ConfigError(
                "A bootstrap needs rows", expected="max_rows >= 1", found=f"{self.max_rows}"
            )


@dataclass(frozen=True)
class Resampled:
    """Metrics of the resamples, (n_replicates, n_models, n_metrics), NaN where not computable.

    `reference` are the same metrics on the resampled population itself, (n_models, n_metrics), and
    `scale` sqrt(entities resampled / all entities): 1 without a subsample.
    """

    values: Floats
    reference: Floats
    scale: float


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

    With 500 replicates the standard error of either end of a 95 % interval is 3 % of its width.
    Beyond `max_rows` entities are subsampled; values always use all rows. There is no interval with
    fewer than 2 entities, or when over a tenth of the resamples lack the metric. Resampling adds
    noise to `ece`, which cannot fall below 0: its interval lies high and may exclude the value.

    Efron & Tibshirani 1993, ch. 13 (percentile); Field & Welsh, JRSS B 69(3), 2007 (clusters);
    Bickel, Goetze & van Zwet, Statistica Sinica 7, 1997 (fewer than n, rescaled).
    """
    names = known_metrics(metrics)
    plan = Resampling(replicates, seed, level, max_rows)
    labels = binary_labels(y)
    estimates = point_metrics(labels, p, threshold, metrics=names)
    codes, count = entity_codes(entities, len(labels))
    if count < 2:
        return {name: _without_interval(estimate) for name, estimate in estimates.items()}
    values = {name: one.value for name, one in estimates.items() if one.value is not None}
    model = Scored(np.asarray(p, dtype=np.float64), threshold)
    drawn = _resample(labels, [model], codes, tuple(values), plan)
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

    Both see the same resamples, so that what they share cancels. For `roc_auc` with one row per
    entity and at most 200,000 rows it is `delong_difference`, without resampling. The sign is that
    of the metric: above 0, the challenger is worse in log loss.
    """
    plan = Resampling(replicates, seed, level)
    labels = binary_labels(y)
    point_a = point_metrics(labels, p_a, threshold_a, metrics=[metric])[metric]
    point_b = point_metrics(labels, p_b, threshold_b, metrics=[metric])[metric]
    if point_a.value is None or point_b.value is None:
        named = {"challenger": point_a.reason, "champion": point_b.reason}
        reasons = [f"{model}: {reason}" for model, reason in named.items() if reason]
        return Estimate(None, reason="; ".join(reasons))
    codes, count = entity_codes(entities, len(labels))
    if metric == "roc_auc" and count == len(labels) <= MAX_ROWS:
        return delong_difference(labels, p_a, p_b, level=level)
    value = point_a.value - point_b.value
    if count < 2:
        return Estimate(value, reason=ONE_ENTITY)
    models = [
        Scored(np.asarray(p_a, dtype=np.float64), threshold_a),
        Scored(np.asarray(p_b, dtype=np.float64), threshold_b),
    ]
    drawn = _resample(labels, models, codes, [metric], plan)
    differences = drawn.values[:, 0, 0] - drawn.values[:, 1, 0]
    reference = float(drawn.reference[0, 0] - drawn.reference[1, 0])
    return percentile_interval(value, differences, reference, scale=drawn.scale, level=level)


def _without_interval(estimate: Estimate) -> Estimate:
    return estimate if estimate.value is None else replace(estimate, reason=ONE_ENTITY)


def _resample(
    y: Floats, models: Sequence[Scored], codes: Codes, names: Sequence[str], plan: Resampling
) -> Resampled:
    """Draw entities with replacement; each draw is one weight vector shared by all models."""
    rng = np.random.default_rng(plan.seed)
    population = count = int(codes.max()) + 1
    if len(y) > plan.max_rows:
        kept = _subsample(codes, count, plan.max_rows, rng)
        codes, count = entity_codes(codes[kept], int(kept.sum()))
        y, models = y[kept], [model.take(kept) for model in models]
    ranked = [rank_scores(y, model.p, model.threshold) for model in models]

    def metrics(weights: Floats | None) -> list[list[float]]:
        return [list(evaluate(one, weights, names).values()) for one in ranked]

    values = np.empty((plan.replicates, len(models), len(names)))
    for replicate, times in enumerate(multiplicities(count, plan.replicates, rng)):
        values[replicate] = metrics(times[codes])
    return Resampled(values, np.array(metrics(None)), (count / population) ** 0.5)


def _subsample(
    codes: Codes, count: int, max_rows: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Keep random entities, as many as fit into max_rows (at least 2)."""
    sizes = np.bincount(codes, minlength=count)
    shuffled = rng.permutation(count)
    fitting = int((np.cumsum(sizes[shuffled]) <= max_rows).sum())
    chosen = np.zeros(count, dtype=np.bool_)
    chosen[shuffled[: max(fitting, 2)]] = True
    kept: NDArray[np.bool_] = chosen[codes]
    return kept
