"""Rows checked and counted by group, label and decision; rates, and their resamples.

Belongs here: arrays. A count array ends in the axes (group, label, decision): label 0, 1 or 2 (not
known yet), decision 0 or 1. What the numbers mean to a reader is fairness.py's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mlops_pipeline.config.fairness import CROSSED
from mlops_pipeline.core.metrics.ranked_scores import Floats, binary_labels, probabilities
from mlops_pipeline.errors import DataError

MISSING = "(missing)"
LABELS, DECISIONS = 3, 2
CELLS = LABELS * DECISIONS  # of a group
Codes = NDArray[np.intp]


@dataclass(frozen=True)
class AuditRows:
    """The checked input; `label` is 2 where it is not known, `entity` a code."""

    label: Codes
    decision: Codes
    scores: Floats | None
    entity: Codes
    is_own_entity: bool  # every row is


def checked_rows(  # noqa: PLR0917 # one caller: the columns of its rows
    y: ArrayLike,
    decisions: ArrayLike,
    groups: "pd.Series[Any]",
    scores: ArrayLike | None,
    known: ArrayLike | None,
    entities: ArrayLike | None,
) -> AuditRows:
    """Return the input of an audit as numbers; DataError if it cannot be used."""
    size = len(groups)
    given = {"labels": y, "decisions": decisions, "scores": scores, "known": known}
    given["entities"] = entities
    lengths = {name: len(np.asarray(item)) for name, item in given.items() if item is not None}
    if set(lengths.values()) != {size}:
        found = ", ".join(f"{length} {name}" for name, length in lengths.items())
        raise DataError("The inputs of an audit differ in length", found=f"{size} groups, {found}")
    is_known = np.ones(size, bool) if known is None else np.asarray(known, dtype=bool)
    labels = binary_labels(np.where(is_known, y, 0))
    entity = np.arange(size) if entities is None else pd.factorize(np.asarray(entities))[0]
    if (entity < 0).any():
        raise DataError("Entities are missing", found=f"{int((entity < 0).sum())} rows")
    return AuditRows(
        label=np.where(is_known, labels, 2).astype(np.intp),
        decision=binary_labels(decisions).astype(np.intp),
        scores=None if scores is None else probabilities(scores, size),
        entity=entity.astype(np.intp),
        is_own_entity=entities is None,
    )


def intersections(columns: "Mapping[str, pd.Series[Any]]") -> "dict[str, pd.Series[Any]]":
    """Return every pair of attributes: "gender x region" with groups "female x south".

    A pair is missing where either attribute is.
    """
    found = {}
    for (name, first), (other, second) in combinations(columns.items(), 2):
        codes, texts = pd.factorize(first)
        other_codes, other_texts = pd.factorize(second)
        names = [f"{one}{CROSSED}{two}" for one in texts for two in other_texts]
        pair = np.asarray([*names, None], dtype=object)  # one object for each distinct pair
        crossed = codes * len(other_texts) + other_codes
        crossed[(codes < 0) | (other_codes < 0)] = -1
        found[f"{name}{CROSSED}{other}"] = pd.Series(pair[crossed])
    return found


def group_codes(groups: "pd.Series[Any]") -> tuple[NDArray[np.str_], Codes]:
    """Return the groups' names, sorted, and the position of each row's; by position, as text."""
    codes, distinct = pd.factorize(groups)
    texts = [str(value) for value in distinct] + ([MISSING] if (codes < 0).any() else [])
    names, positions = np.unique(np.asarray(texts, dtype=str), return_inverse=True)
    return names, positions.astype(np.intp)[codes]


def cells_of(codes: Codes, label: Codes, decision: Codes) -> Codes:
    """Return the position of each row's cell in a flat count array."""
    return codes * CELLS + label * DECISIONS + decision


def count_cells(cell: Codes, groups: int) -> NDArray[np.int64]:
    """Return rows by (group, label, decision)."""
    return np.bincount(cell, minlength=groups * CELLS).reshape(groups, LABELS, DECISIONS)


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


def fairlearn_rates(counts: NDArray[Any]) -> dict[str, Floats]:
    """Return the rates of counts (n_groups, 3, 2) by fairlearn's MetricFrame; NaN as above.

    Equal rows are one weighted row: the same numbers, whatever the size of the data.
    """
    from fairlearn import metrics
    from sklearn.metrics import precision_score

    group, label, decision = np.nonzero(counts)
    weight, found = counts[group, label, decision], group_rates(counts)
    functions = {
        "selection_rate": metrics.selection_rate,
        "tpr": metrics.true_positive_rate,
        "fpr": metrics.false_positive_rate,
        "precision": partial(precision_score, zero_division=0),
    }
    for rates, rows in (
        (["selection_rate"], label < LABELS),
        (["tpr", "fpr", "precision"], label < 2),
    ):
        if not rows.any():
            continue
        frame = metrics.MetricFrame(
            metrics={rate: functions[rate] for rate in rates},
            y_true=label[rows],
            y_pred=decision[rows],
            sensitive_features=pd.Series(group[rows]),
            sample_params={rate: {"sample_weight": weight[rows]} for rate in rates},
        )
        by_group = frame.by_group.reindex(range(len(counts)))
        for rate in rates:
            values = by_group[rate].to_numpy(dtype=np.float64)
            found[rate] = np.where(np.isnan(found[rate]), np.nan, values)
    return found


def resampled_counts(
    cell: Codes,
    groups: int,
    entities: Codes | None,
    replicates: int,
    rng: np.random.Generator,
) -> Floats:
    """Return counts of resamples, (n_replicates, n_groups, 3, 2).

    Rows drawn with replacement are one multinomial draw over the cells. An entity carries all its
    rows, each with the multiplicity of the entity. Entities with equal counts are exchangeable,
    so the draw is over the distinct counts; memory grows with the rows, not with the groups.
    """
    cells, shape = groups * CELLS, (replicates, groups, LABELS, DECISIONS)
    if len(cell) == 0:
        return np.zeros(shape)
    if entities is None:
        shares = np.bincount(cell, minlength=cells) / len(cell)
        return rng.multinomial(len(cell), shares, size=replicates).astype(float).reshape(shape)
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
    return drawn.reshape(shape)
