"""Calibration of one group: whether what is predicted for it happens to it.

Belongs here: calibration in the large and ECE of a group, with intervals. The calibration map of a
model belongs to core/modelling/calibration.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_pipeline.core.metrics.intervals import percentile_interval
from mlops_pipeline.core.metrics.metrics import Estimate
from mlops_pipeline.core.metrics.ranked_scores import Floats, ece_bins
from mlops_pipeline.spec.metrics import ECE_BINS

MAX_ENTITIES = 50_000  # resampled; the values use all
REPLICATES = 200  # at most, as for slices


@dataclass(frozen=True)
class GroupCalibration:
    """Mean score, observed rate, observed minus mean score (0: calibrated in the large), ECE.

    Scores say too little where the difference is above 0. The ECE is biased upwards in small
    groups, and its interval lies high, as `bootstrap_metrics` says.
    """

    mean_score: Estimate
    observed_rate: Estimate
    difference: Estimate
    ece: Estimate

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Rebuild what `asdict` returned; KeyError if a field is absent."""
        names = ("mean_score", "observed_rate", "difference", "ece")
        return cls(*(Estimate.from_dict(fields[name]) for name in names))


def group_calibration(
    y: Floats, p: Floats, entities: NDArray[Any], *, replicates: int, seed: int
) -> GroupCalibration:
    """Return a group's calibration with 95 % bootstrap intervals over its entities.

    Parameters
    ----------
    y, p : float64, shape (n_samples,)
        Labels 0 or 1, and scores in [0, 1]; at least one row.
    entities : shape (n_samples,)
        Entity of each row, none missing.
    """
    codes, distinct = pd.factorize(entities)
    count, residuals = len(distinct), y - p
    # all that resamples need of an entity: its rows, and its residuals by bin of the score
    gaps = np.bincount(
        codes * ECE_BINS + ece_bins(p), weights=residuals, minlength=count * ECE_BINS
    ).reshape(count, ECE_BINS)
    rows = np.bincount(codes, minlength=count).astype(np.float64)
    value = _figures(gaps.sum(axis=0), rows.sum())
    if count < 2:
        reason = "interval not computable: fewer than 2 entities"
        difference, ece = (Estimate(one, reason=reason) for one in value)
    else:
        rng = np.random.default_rng(seed)
        kept = min(count, MAX_ENTITIES)
        chosen = np.sort(rng.permutation(count)[:kept])
        gaps, rows = gaps[chosen], rows[chosen]
        reference, drawn = _figures(gaps.sum(axis=0), rows.sum()), []
        for _ in range(min(replicates, REPLICATES)):
            times = np.bincount(rng.integers(0, kept, kept), minlength=kept).astype(np.float64)
            drawn.append(
                _figures(np.einsum("e,eb->b", times, gaps), float(np.einsum("e,e->", times, rows)))
            )
        scale = (kept / count) ** 0.5
        difference, ece = (
            percentile_interval(
                value[i],
                np.asarray(drawn)[:, i],
                reference[i],
                scale=scale,
                bounds=bounds,
            )
            for i, bounds in enumerate([(-1, 1), (0, 1)])
        )
    return GroupCalibration(Estimate(float(p.mean())), Estimate(float(y.mean())), difference, ece)


def _figures(gaps: Floats, rows: float) -> tuple[float, float]:
    """Return the mean residual and the ECE of residuals summed by bin."""
    return float(gaps.sum() / rows), float(np.abs(gaps).sum() / rows)
