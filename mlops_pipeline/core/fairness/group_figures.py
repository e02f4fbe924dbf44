"""Rows checked and counted by group, label and decision; rates and calibration of each group.

Belongs here: arrays and their resamples. A count array ends in the axes (group, label, decision):
label 0, 1 or 2 (not known yet), decision 0 or 1. What the numbers say to a reader is audit.py's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlops_pipeline.config.fairness import CROSSED
from mlops_pipeline.core.metrics.bootstrap import (
    ONE_ENTITY,
    Codes,
    entity_codes,
    factorize,
    multiplicities,
    percentile_interval,
)
from mlops_pipeline.core.metrics.metrics import Estimate
from mlops_pipeline.core.metrics.ranked_scores import (
    Floats,
    binary_labels,
    ece_bins,
    probabilities,
)
from mlops_pipeline.errors import DataError
from mlops_pipeline.spec.metrics import ECE_BINS

MISSING = "(missing)"
LABELS, DECISIONS = 3, 2
CELLS = LABELS * DECISIONS  # of a group
MAX_ENTITIES = 50_000  # of a group, resampled for its calibration; the values use all
CALIBRATION_REPLICATES = 200  # at most, as for slices


@dataclass(frozen=True)
class AuditRows:
    """The checked input; `label` is 2 where it is not known, `entity` a code."""

    label: Codes
    decision: Codes
    scores: Floats | None
    entity: Codes
    is_own_entity: bool  # every row is


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


def checked_rows(
    y: ArrayLike,
    decisions: ArrayLike,
    size: int,
    *,
    scores: ArrayLike | None,
    known: ArrayLike | None,
    entities: ArrayLike | None,
) -> AuditRows:
    """Return the input of an audit of `size` rows as numbers; DataError if it cannot be used."""
    given = {"labels": y, "decisions": decisions, "scores": scores, "known": known}
    given["entities"] = entities
    lengths = {name: len(np.asarray(item)) for name, item in given.items() if item is not None}
    if set(lengths.values()) != {size}:
        found = ", ".join(f"{length} {name}" for name, length in lengths.items())
        raise DataError("The inputs of an audit differ in length", found=f"{size} groups, {found}")
    is_known = np.ones(size, bool) if known is None else np.asarray(known, dtype=bool)
    labels = binary_labels(np.where(is_known, y, 0))
    return AuditRows(
        label=np.where(is_known, labels, 2).astype(np.intp),
        decision=binary_labels(decisions).astype(np.intp),
        scores=None if scores is None else probabilities(scores, size),
        entity=entity_codes(entities, size)[0],
        is_own_entity=entities is None,
    )


def intersections(columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return every pair of attributes: "gender x region" with groups "female x south".

    A pair is missing where either attribute is.
    """
    found = {}
    for (name, first), (other, second) in combinations(columns.items(), 2):
        codes, texts = factorize(first)
        other_codes, other_texts = factorize(second)
        names = [f"{one}{CROSSED}{two}" for one in texts for two in other_texts]
        pair = np.asarray([*names, None], dtype=object)  # one object for each distinct pair
        crossed = codes * len(other_texts) + other_codes
        crossed[(codes < 0) | (other_codes < 0)] = -1
        found[f"{name}{CROSSED}{other}"] = pair[crossed]
    return found


def group_codes(groups: ArrayLike) -> tuple[NDArray[np.str_], Codes]:
    """Return the groups' names, as text and sorted, and the position of each row's."""
    codes, distinct = factorize(groups)
    texts = [str(value) for value in distinct] + ([MISSING] if (codes < 0).any() else [])
    names, positions = np.unique(np.asarray(texts, dtype=str), return_inverse=True)
    return names, positions.astype(np.intp)[codes]


def cells_of(codes: Codes, label: Codes, decision: Codes) -> Codes:
    """Return the position of each row's cell in a flat count array."""
    return codes * CELLS + label * DECISIONS + decision


def by_group(flat: NDArray[Any]) -> NDArray[Any]:
    """Return flat counts (..., n_cells) as (..., n_groups, label, decision)."""
    return flat.reshape(*flat.shape[:-1], -1, LABELS, DECISIONS)


def group_rates(counts: NDArray[Any]) -> dict[str, Floats]:
    """Return each rate (..., n_groups); NaN where no row is in its denominator."""
    with np.errstate(invalid="ignore", divide="ignore"):
        by_label = counts[..., 1] / counts.sum(axis=-1)
        hits, false_hits = counts[..., 1, 1], counts[..., 0, 1]
        return {
            "selection_rate": counts[..., 1].sum(axis=-1) / counts.sum(axis=(-2, -1)),
            "tpr": by_label[..., 1],
            "fpr": by_label[..., 0],
            "precision": hits / (hits + false_hits),
        }


def group_calibration(
    y: Floats, p: Floats, entities: ArrayLike, *, replicates: int, seed: int
) -> GroupCalibration:
    """Return the calibration of at least one row, with 95 % intervals over entities."""
    codes, count = entity_codes(entities, len(y))
    # all that resamples need of an entity: its rows, and its residuals by bin of the score
    gaps = np.bincount(
        codes * ECE_BINS + ece_bins(p), weights=y - p, minlength=count * ECE_BINS
    ).reshape(count, ECE_BINS)
    rows = np.bincount(codes, minlength=count).astype(np.float64)
    value = _gap_figures(gaps.sum(axis=0), rows.sum())
    if count < 2:
        difference, ece = (Estimate(one, reason=ONE_ENTITY) for one in value)
    else:
        rng = np.random.default_rng(seed)
        kept = min(count, MAX_ENTITIES)
        chosen = np.sort(rng.permutation(count)[:kept])
        gaps, rows = gaps[chosen], rows[chosen]
        reference = _gap_figures(gaps.sum(axis=0), rows.sum())
        drawn = np.asarray(
            [
                _gap_figures(
                    np.einsum("e,eb->b", times, gaps), float(np.einsum("e,e->", times, rows))
                )
                for times in multiplicities(kept, min(replicates, CALIBRATION_REPLICATES), rng)
            ]
        )
        scale = (kept / count) ** 0.5
        difference, ece = (
            percentile_interval(value[i], drawn[:, i], reference[i], scale=scale, bounds=bounds)
            for i, bounds in enumerate([(-1, 1), (0, 1)])
        )
    return GroupCalibration(Estimate(float(p.mean())), Estimate(float(y.mean())), difference, ece)


def _gap_figures(gaps: Floats, rows: float) -> tuple[float, float]:
    """Return the mean residual and the ECE of residuals summed by bin."""
    return float(gaps.sum() / rows), float(np.abs(gaps).sum() / rows)
