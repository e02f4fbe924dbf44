"""Metrics with intervals, and the difference of two models on the same rows.

The bootstrap draws entities: their rows over overlapping periods are not independent. DeLong's
closed form treats rows as independent. Whether a difference is enough is the gate's.
"""

from collections.abc import Iterable, Iterator, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlops_pipeline.core.metrics.metrics import (
    Estimate,
    Floats,
    binary_labels,
    ece_bins,
    evaluate,
    point_metrics,
    rank_scores,
)
from mlops_pipeline.errors import ConfigError, DataError
from mlops_pipeline.spec.metrics import ECE_BINS, METRICS

MAX_ROWS = 200_000
MIN_COMPUTABLE_SHARE = 0.9  # of the resamples; fewer would be an interval of the easy ones
ONE_ENTITY = "interval not computable: fewer than 2 entities"
CALIBRATION_ENTITIES = 50_000  # of a group, resampled; the values use all
CALIBRATION_REPLICATES = 200  # at most, as for slices
MISSING = -1
Codes = NDArray[np.intp]


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
    check_at_least(2, replicates=replicates)
    check_at_least(1, max_rows=max_rows)
    _check_level(level)
    labels = binary_labels(y)
    estimates = point_metrics(labels, p, threshold, metrics=metrics)
    values = {name: one.value for name, one in estimates.items() if one.value is not None}
    codes, count = entity_codes(entities, len(labels))
    if count < 2:
        return estimates | {name: Estimate(one, reason=ONE_ENTITY) for name, one in values.items()}
    drawn, reference, scale = _resample(
        labels, [(p, threshold)], codes, tuple(values), replicates, seed=seed, max_rows=max_rows
    )
    for column, (name, value) in enumerate(values.items()):
        estimates[name] = percentile_interval(
            value,
            drawn[:, 0, column],
            float(reference[0, column]),
            scale=scale,
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

    Both see the same resamples, so that what they share cancels. `roc_auc` with one row per entity
    and at most 200,000 rows is `delong_difference`. The sign is that of the metric.
    """
    check_at_least(2, replicates=replicates)
    _check_level(level)
    labels = binary_labels(y)
    models = {"challenger": (p_a, threshold_a), "champion": (p_b, threshold_b)}
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
    return percentile_interval(value, differences, of_all, scale=scale, level=level)


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


def percentile_interval(
    value: float,
    resamples: Floats,
    reference: float | None = None,
    *,
    scale: float = 1.0,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    level: float = 0.95,
) -> Estimate:
    """Return a value with the percentile interval of its resamples, NaN where not computable.

    `reference` is the figure of the part of all entities that was resampled, where it was a part:
    deviations from it are scaled by `scale` = sqrt(entities resampled / all).
    """
    reference = value if reference is None else reference
    computable = resamples[np.isfinite(resamples)]
    if len(computable) < MIN_COMPUTABLE_SHARE * len(resamples) or not np.isfinite(reference):
        found = f"only {len(computable)} of {len(resamples)} resamples have this metric"
        return Estimate(value, reason=f"interval not computable: {found}")
    ends = np.quantile(computable, [(1 - level) / 2, (1 + level) / 2])
    if scale < 1:
        ends = np.clip(value + scale * (ends - reference), *bounds)
    return Estimate(value, float(ends[0]), float(ends[1]))


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


def resampled_counts(
    cell: Codes, cells: int, entities: Codes | None, replicates: int, rng: np.random.Generator
) -> Floats:
    """Return the rows in each cell under resamples, (n_replicates, n_cells).

    Rows drawn one by one are a multinomial draw over the cells. Entities with equal counts are
    exchangeable, so the draw is over the distinct counts: memory grows with the rows only.
    """
    if len(cell) == 0:
        return np.zeros((replicates, cells))
    if entities is None:
        shares = np.bincount(cell, minlength=cells) / len(cell)
        return rng.multinomial(len(cell), shares, size=replicates).astype(np.float64)
    from scipy.sparse import csr_array

    distinct, codes = np.unique(entities, return_inverse=True)
    keys, rows = np.unique(codes * cells + cell, return_counts=True)
    entity, column = np.divmod(keys, cells)
    starts = np.flatnonzero(np.diff(entity, prepend=-1))
    # equal counts have an equal sum of random numbers, and only they have
    marks = rng.integers(0, 2**63, cells, dtype=np.uint64)
    sums = np.add.reduceat(marks[column] * rows.astype(np.uint64), starts)
    _, first, alike = np.unique(sums, return_index=True, return_counts=True)
    patterns = csr_array((rows, (entity, column)), shape=(len(distinct), cells))[first]
    drawn = np.empty((replicates, cells))
    for replicate in range(replicates):
        drawn[replicate] = rng.multinomial(len(distinct), alike / len(distinct)) @ patterns
    return drawn


def calibration_gaps(
    y: Floats, p: Floats, entities: Codes, replicates: int, seed: int
) -> list[Estimate]:
    """Return the mean residual and the ECE of at least one row, with intervals over entities."""
    codes, count = entity_codes(entities, len(y))
    # all that resamples need of an entity: its rows, and its residuals by bin of the score
    cell = codes * ECE_BINS + ece_bins(p)
    gaps = np.bincount(cell, weights=y - p, minlength=count * ECE_BINS).reshape(count, ECE_BINS)
    rows = np.bincount(codes, minlength=count).astype(np.float64)
    values = _gap_figures(gaps.sum(axis=0), rows.sum())
    if count < 2:
        return [Estimate(value, reason=ONE_ENTITY) for value in values]
    rng = np.random.default_rng(seed)
    kept = min(count, CALIBRATION_ENTITIES)
    chosen = np.sort(rng.permutation(count)[:kept])
    gaps, rows = gaps[chosen], rows[chosen]
    reference = _gap_figures(gaps.sum(axis=0), rows.sum())
    resamples = multiplicities(kept, min(replicates, CALIBRATION_REPLICATES), rng)
    drawn = np.asarray(
        [
            _gap_figures(np.einsum("e,eb->b", times, gaps), float(np.einsum("e,e->", times, rows)))
            for times in resamples
        ]
    )
    scale = (kept / count) ** 0.5
    return [
        percentile_interval(value, drawn[:, i], reference[i], scale=scale, bounds=bounds)
        for i, (value, bounds) in enumerate(zip(values, [(-1, 1), (0, 1)], strict=True))
    ]


def _gap_figures(gaps: Floats, rows: float) -> tuple[float, float]:
    return float(gaps.sum() / rows), float(np.abs(gaps).sum() / rows)


def delong_difference(labels: Floats, p_a: Floats, p_b: Floats, *, level: float = 0.95) -> Estimate:
    """Return AUC(a) - AUC(b) -+ z sqrt(S10 / m + S01 / n); labels and scores are checked.

    The variances are of the differences of placements, so that the covariance of the two models is
    in it. The interval is [0, 0] when both order the rows identically.

    DeLong, DeLong & Clarke-Pearson 1988; Sun & Xu, IEEE Signal Processing Letters 21(11), 2014.
    """
    order_a, order_b = (np.unique(scores, return_inverse=True)[1] for scores in (p_a, p_b))
    if np.array_equal(order_a, order_b):
        return Estimate(0.0, 0.0, 0.0)
    positives_a, negatives_a = _placements(labels, p_a)
    positives_b, negatives_b = _placements(labels, p_b)
    value = float(positives_a.mean() - positives_b.mean())
    of_positives, of_negatives = positives_a - positives_b, negatives_a - negatives_b
    if min(len(of_positives), len(of_negatives)) < 2:
        return Estimate(value, reason="interval not computable: fewer than 2 rows of one class")
    variance = of_positives.var(ddof=1) / len(of_positives)
    variance += of_negatives.var(ddof=1) / len(of_negatives)
    if variance <= 1e-24:  # rounding of midranks; the smallest real variance is of order 1 / n^3
        return Estimate(value, reason="interval not computable: DeLong's variance is 0")
    half = NormalDist().inv_cdf((1 + level) / 2) * variance**0.5
    low, high = np.clip([value - half, value + half], -1, 1)
    return Estimate(value, float(low), float(high))


def _placements(labels: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """Return the share of negatives below each positive, and of positives above each negative.

    A tie counts half. From midranks in O(n log n) (Sun & Xu 2014, eq. 5): the rank of a positive
    among all rows less its rank among positives is the number of negatives below it.
    """
    from scipy.stats import rankdata

    positive = labels == 1
    ranks: Floats = rankdata(scores)
    within_positives: Floats = rankdata(scores[positive])
    within_negatives: Floats = rankdata(scores[~positive])
    return (
        (ranks[positive] - within_positives) / len(within_negatives),
        1 - (ranks[~positive] - within_negatives) / len(within_positives),
    )
