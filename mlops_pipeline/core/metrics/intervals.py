"""Metrics with intervals, and the difference of two models on the same rows.

The bootstrap draws entities: their rows over overlapping periods are not independent. Whether a
difference is enough is the gate's.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlops_pipeline.core.metrics.delong import delong_difference, normal_interval
from mlops_pipeline.core.metrics.metrics import (
    Estimate,
    Floats,
    binary_labels,
    debiased_gap,
    ece_bins,
    evaluate,
    folded_mean,
    point_metrics,
    rank_scores,
)
from mlops_pipeline.core.metrics.shares import (
    NOISE_DRAWS,
    OF_DECISIONS,
    ONE_SIDED,
    Z_ONE_SIDED,
    Z_TWO_SIDED,
    clustered_error,
    decision_interval,
)
from mlops_pipeline.errors import ConfigError, DataError
from mlops_pipeline.spec.metrics import METRICS

MAX_ROWS = 200_000
MIN_COMPUTABLE_SHARE = 0.9  # of the resamples; fewer would be an interval of the easy ones
ONE_ENTITY = "interval not computable: fewer than 2 entities"
FEW = 30  # rows of the rarer class, from which on intervals are exact enough to say nothing
SURE_GAP = 3.0  # errors of a bin, beyond which its gap has the sign that was found
TINY = 1e-12
MISSING = -1
Codes = NDArray[np.intp]


def bootstrap_metrics(
    y: ArrayLike,
    p: ArrayLike,
    threshold: ArrayLike | None,
    *,
    entities: ArrayLike | None = None,
    metrics: Iterable[str] = tuple(METRICS),
    replicates: int = 500,
    seed: int,
    max_rows: int = MAX_ROWS,
) -> dict[str, Estimate]:
    """Return each metric with its interval: of scores by a bootstrap over entities.

    Figures of decisions, and the ECE, have closed forms.

    Beyond `max_rows` entities are subsampled; values always use all rows. There is no interval with
    fewer than 2 entities, or when over a tenth of the resamples lack the metric.

    Efron & Tibshirani 1993, ch. 10 and 13; Field & Welsh, JRSS B 69(3), 2007 (clusters);
    Bickel, Goetze & van Zwet, Statistica Sinica 7, 1997 (fewer than n, rescaled).
    """
    check_at_least(2, replicates=replicates)
    check_at_least(1, max_rows=max_rows)
    labels = binary_labels(y)
    estimates = point_metrics(labels, p, threshold, metrics=metrics)
    values = {name: one.value for name, one in estimates.items() if one.value is not None}
    codes, count = entity_codes(entities, len(labels))
    if count < 2:
        return estimates | {name: Estimate(one, reason=ONE_ENTITY) for name, one in values.items()}
    scores = np.asarray(p, dtype=np.float64)
    if "ece" in values:
        estimates["ece"] = calibration_gaps(labels, scores, codes)[1]
    for name in OF_DECISIONS:
        if name in values:
            chosen = scores >= np.asarray(threshold)
            estimates[name] = decision_interval(name, values[name], labels, chosen, codes)
    resampled = tuple(name for name in values if name not in ("ece", *OF_DECISIONS))
    drawn, reference, scale = _resample(
        labels, [(p, threshold)], codes, resampled, replicates, seed=seed, max_rows=max_rows
    )
    for column, name in enumerate(resampled):
        estimates[name] = bootstrap_interval(
            values[name],
            drawn[:, 0, column],
            float(reference[0, column]),
            scale=scale,
            bounds=METRICS[name].bounds,
            behind=_behind(labels, codes),
        )
    rarer = int(min(labels.sum(), len(labels) - labels.sum()))
    return (
        estimates if rarer >= FEW else {name: _few(one, rarer) for name, one in estimates.items()}
    )


def paired_difference(  # noqa: PLR0913 - the settings are keyword-only and have defaults
    y: ArrayLike,
    p_a: ArrayLike,
    p_b: ArrayLike,
    *,
    metric: str,
    threshold_a: ArrayLike | None = None,
    threshold_b: ArrayLike | None = None,
    names: tuple[str, str] = ("challenger", "champion"),
    entities: ArrayLike | None = None,
    replicates: int = 500,
    seed: int,
    level: float = 0.95,
) -> Estimate:
    """Return metric(a) - metric(b) on the same rows, a the challenger and b the champion.

    Both see the same resamples, so that what they share cancels. `roc_auc` with one row per entity
    and at most 200,000 rows is `delong_difference`. The sign is that of the metric.
    """
    check_at_least(2, replicates=replicates)
    _check_level(level)
    labels = binary_labels(y)
    models = dict(zip(names, ((p_a, threshold_a), (p_b, threshold_b)), strict=True))
    points = {
        name: point_metrics(labels, p, threshold, metrics=[metric])[metric]
        for name, (p, threshold) in models.items()
    }
    values = [one.value for one in points.values() if one.value is not None]
    if len(values) < 2:
        reasons = [f"{name}: {one.reason}" for name, one in points.items() if one.reason]
        return Estimate(None, reason="; ".join(reasons))
    codes, count = entity_codes(entities, len(labels))
    if metric == "roc_auc" and count == len(labels) <= MAX_ROWS:
        return delong_difference(labels, np.asarray(p_a), np.asarray(p_b), level=level)
    value = values[0] - values[1]
    if count < 2:
        return Estimate(value, reason=ONE_ENTITY)
    drawn, reference, scale = _resample(
        labels, tuple(models.values()), codes, [metric], replicates, seed=seed, max_rows=MAX_ROWS
    )
    differences, of_all = drawn[:, 0, 0] - drawn[:, 1, 0], float(reference[0, 0] - reference[1, 0])
    return bootstrap_interval(
        value, differences, of_all, scale=scale, level=level, behind=_behind(labels, codes)
    )


def _behind(labels: Floats, codes: Codes) -> int:
    """Return how many entities have a row of the rarer class: so many a spread is known by."""
    return min(len(np.unique(codes[labels == label])) for label in (0, 1))


def _resample(
    y: Floats,
    models: Sequence[tuple[ArrayLike, ArrayLike | None]],
    codes: Codes,
    names: Sequence[str],
    replicates: int,
    *,
    seed: int,
    max_rows: int,
) -> tuple[Floats, Floats, float]:
    """Draw entities with replacement; each draw is one weight vector shared by all models.

    Returns the metrics of the resamples (n_replicates, n_models, n_metrics), NaN where not
    computable; of the resampled population itself (n_models, n_metrics); and
    sqrt(entities resampled / all entities), which is 1 without a subsample.
    """
    rng = np.random.default_rng(seed)
    population = count = int(codes.max()) + 1
    kept = np.ones(len(y), dtype=np.bool_)
    if len(y) > max_rows:  # as many random entities as fit, at least 2
        shuffled = rng.permutation(count)
        sizes = np.bincount(codes, minlength=count)[shuffled]
        chosen = np.zeros(count, dtype=np.bool_)
        chosen[shuffled[: max(int((np.cumsum(sizes) <= max_rows).sum()), 2)]] = True
        kept = chosen[codes]
        codes, count = entity_codes(codes[kept], int(kept.sum()))
    ranked = []
    for p, threshold in models:
        limits = None if threshold is None else np.broadcast_to(threshold, y.shape)[kept]
        ranked.append(rank_scores(y[kept], np.asarray(p)[kept], limits))

    def metrics(weights: Floats | None) -> list[list[float]]:
        return [list(evaluate(one, weights, names).values()) for one in ranked]

    drawn = np.empty((replicates, len(models), len(names)))
    for replicate, times in enumerate(multiplicities(count, replicates, rng)):
        drawn[replicate] = metrics(times[codes])
    return drawn, np.array(metrics(None)), (count / population) ** 0.5


def bootstrap_interval(
    value: float,
    resamples: Floats,
    reference: float | None = None,
    *,
    scale: float = 1.0,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    level: float = 0.95,
    behind: int,
) -> Estimate:
    """Return a value with the interval and bounds of its resamples, NaN where not computable.

    By Student's t of `behind` entities about the value less the resamples' bias, on a scale without
    ends: the logit of a figure with two bounds, the logarithm of one with one. Simulated, it covers
    better than percentiles, which are short and lean to the wrong side in small sets
    (docs/benchmarks.md).

    `reference` is the figure of the part of all entities that was resampled, where it was a part:
    deviations from it are scaled by `scale` = sqrt(entities resampled / all).
    """
    from scipy.special import stdtrit

    reference = value if reference is None else reference
    computable = resamples[np.isfinite(resamples)]
    if len(computable) < MIN_COMPUTABLE_SHARE * len(resamples) or not np.isfinite(reference):
        found = f"only {len(computable)} of {len(resamples)} resamples have this metric"
        return Estimate(value, reason=f"interval not computable: {found}")
    if value in bounds:
        return Estimate(
            value, reason="interval not computable: the figure is at an end of its range"
        )
    low, high = bounds
    margin = 1e-6 * (high - low if np.isfinite(high - low) else 1.0)
    computable = np.clip(computable, low + margin, high - margin)
    drawn = _unbounded(computable, bounds) - _unbounded(np.array([reference]), bounds)
    spread, bias = float(drawn.std()) * scale, float(drawn.mean()) * scale**2
    wide, one_sided = (
        float(stdtrit(max(1, behind - 1), one)) for one in ((1 + level) / 2, ONE_SIDED)
    )
    half = np.array([-wide, wide, -one_sided, one_sided]) * spread
    ends = _bounded(_unbounded(np.array([value]), bounds) - bias + half, bounds)
    low, high, lower, upper = (float(end) for end in ends)
    return Estimate(
        value,
        min(low, value),
        max(high, value),
        lower=min(lower, value),
        upper=max(upper, value),
    )


def _unbounded(values: Floats, bounds: tuple[float, float]) -> Floats:
    low, high = bounds
    if np.isinf(low):
        return values
    return np.log(values - low) - (np.log(high - values) if np.isfinite(high) else 0.0)


def _bounded(values: Floats, bounds: tuple[float, float]) -> Floats:
    low, high = bounds
    if np.isinf(low):
        return values
    odds = np.exp(values)
    return low + (odds * (high - low) / (1 + odds) if np.isfinite(high) else odds)


def _few(figure: Estimate, rows: int) -> Estimate:
    if figure.low is None:
        return figure
    return replace(figure, reason=f"too few to be exact: {rows} rows of the rarer class")


def check_at_least(least: int, **settings: int) -> None:
    """Refuse a setting, given by its name, that is too small."""
    for name, value in settings.items():
        if value < least:
            expected = f"{name} >= {least}"
            raise ConfigError("A statistic's setting is wrong", expected=expected, found=str(value))


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ConfigError("The level of an interval is wrong", expected="0..1", found=str(level))


def factorize(values: ArrayLike) -> tuple[Codes, list[object]]:
    """Return each value's number in order of first appearance, missing ones -1; and the values."""
    array = np.asarray(values)
    if array.dtype == object:
        numbers: dict[object, int] = {}
        codes = [
            MISSING if value is None or value != value else numbers.setdefault(value, len(numbers))  # noqa: PLR0124 # NaN
            for value in array
        ]
        return np.asarray(codes, dtype=np.intp), list(numbers)
    is_there = array == array  # noqa: PLR0124 # not NaN or NaT
    distinct, first, inverse = np.unique(array[is_there], return_index=True, return_inverse=True)
    order = np.argsort(first)
    numbered = np.full(len(array), MISSING, dtype=np.intp)
    numbered[is_there] = np.argsort(order)[inverse]  # the inverse of the permutation
    return numbered, list(distinct[order])


def entity_codes(entities: ArrayLike | None, rows: int) -> tuple[Codes, int]:
    """Return each row's entity as a number, and how many there are; None: each row is its own."""
    if entities is None:
        return np.arange(rows), rows
    codes, distinct = factorize(entities)
    if len(codes) != rows or (codes < 0).any():
        found = f"{len(codes)} entities, {int((codes < 0).sum())} missing"
        expected = f"{rows}, none missing"
        raise DataError("Entities do not fit the rows", expected=expected, found=found)
    return codes, len(distinct)


def multiplicities(count: int, replicates: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Yield how often each of `count` entities is drawn, for each resample."""
    for _ in range(replicates):
        draws = rng.integers(0, count, count)
        yield np.bincount(draws, minlength=count).astype(np.float64)


def calibration_gaps(y: Floats, p: Floats, entities: Codes) -> list[Estimate]:
    """Return the mean residual and the ECE of at least one row, with intervals over entities.

    Variances are cluster-robust. The ECE's bounds are of the sum of |gap + noise|. From it the
    lower one takes what noise alone would give (of its own sign in bins beyond doubt), so that it
    is 0 unless calibration is excluded. The upper one is the largest error of which 5 of 100
    samples come out so small, wherever its gaps lie.
    """
    codes, count = entity_codes(entities, len(y))
    bins, residuals, rows = ece_bins(p), y - p, len(y)
    gaps = np.bincount(bins, weights=residuals) / rows
    errors = np.sqrt(np.bincount(bins, weights=p * (1 - p))) / rows  # of calibrated scores
    mean, value = float(residuals.mean()), max(0.0, float(debiased_gap(gaps, errors).sum()))
    if count < 2:
        return [Estimate(one, reason=ONE_ENTITY) for one in (mean, value)]
    # the bins' own errors, as much larger as those of the whole are for its entities
    of_mean = clustered_error(residuals - mean, codes)
    effect = max(1.0, of_mean / max(float(np.sqrt((errors**2).sum())), TINY))
    wide = errors * effect
    noise = np.random.default_rng(0).normal(size=(NOISE_DRAWS, len(errors))) * wide
    is_sure = np.abs(gaps) > SURE_GAP * wide
    below = np.where(is_sure, noise, np.abs(noise)).sum(axis=1)
    plug_in = float(np.abs(gaps).sum())
    lower, low = np.clip(plug_in - np.quantile(below, [ONE_SIDED, 0.975]), 0, value)
    upper, high = (
        min(1.0, max(value, _largest_error(plug_in, errors, z * effect)))
        for z in (Z_ONE_SIDED, Z_TWO_SIDED)
    )
    by_chance = np.quantile(debiased_gap(noise, errors).sum(axis=1), ONE_SIDED)
    difference = normal_interval(mean, of_mean, bounds=(-1, 1))
    error = Estimate(
        value,
        float(low),
        high,
        lower=float(lower),
        upper=upper,
        by_chance=max(0.0, float(by_chance)),
    )
    return [difference, error]


def _largest_error(plug_in: float, errors: Floats, z: float) -> float:
    """Return the largest sum of |gap| of which the sum of |gap + noise| may be so small.

    That is smallest where each gap is as many of its errors as any other. Entities widen the spread
    of the sum only: their rows lie in several bins, whose own noise would make the sum larger.
    """
    from scipy.optimize import brentq

    total, spread = float(errors.sum()), float(np.sqrt((errors**2).sum()))
    if total <= TINY:
        return plug_in

    def excess(ratio: float) -> float:
        mean = float(folded_mean(np.array([ratio]))[0])
        return total * mean - z * spread * float(np.sqrt(1 + ratio**2 - mean**2)) - plug_in

    if excess(0.0) >= 0:
        return 0.0
    return total * float(brentq(excess, 0.0, (plug_in + z * spread) / total + 1))
