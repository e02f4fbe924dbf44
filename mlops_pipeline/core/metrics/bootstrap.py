"""The bootstrap over entities: a resample draws entities, and all rows of one come with it.

Rows of one entity over overlapping periods are not independent. Belongs here: entities as codes,
the draws, and the percentile interval of what is computed on them.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlops_pipeline.core.metrics.metrics import Estimate
from mlops_pipeline.core.metrics.ranked_scores import Floats
from mlops_pipeline.errors import ConfigError, DataError

MIN_COMPUTABLE_SHARE = 0.9  # of the resamples; fewer would be an interval of the easy ones
ONE_ENTITY = "interval not computable: fewer than 2 entities"
MISSING = -1
Codes = NDArray[np.intp]


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
    distinct, first, inverse = np.unique(array, return_index=True, return_inverse=True)
    order = np.argsort(first)
    if array.dtype.kind in "fmM" and len(distinct) and distinct[-1] != distinct[-1]:
        order = order[order != len(distinct) - 1]  # NaN and NaT sort last
    numbered = np.full(len(distinct), MISSING, dtype=np.intp)
    numbered[order] = np.arange(len(order))
    return numbered[inverse], list(distinct[order])


def entity_codes(entities: ArrayLike | None, rows: int) -> tuple[Codes, int]:
    """Return each row's entity as a number, and how many there are; None: each row is its own."""
    if entities is None:
        return np.arange(rows), rows
    codes, distinct = factorize(entities)
    if len(codes) != rows or (codes < 0).any():
        found = f"{len(codes)} entities, {int((codes < 0).sum())} missing"
        raise DataError(
            "Entities do not fit the rows", expected=f"{rows}, none missing", found=found
        )
    return codes, len(distinct)


def check_replicates(replicates: int) -> None:
    """Refuse a number of resamples that makes no interval."""
    if replicates < 2:
        raise ConfigError(
            "A bootstrap needs replicates", expected="replicates >= 2", found=f"{replicates}"
        )


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

    Where a part of all entities was resampled, `reference` is the figure of that part: deviations
    from it are scaled by `scale` = sqrt(entities resampled / all) and moved to the value.
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
