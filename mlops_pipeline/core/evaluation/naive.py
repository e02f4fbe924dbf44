"""Naive rules that a model has to be better than: the base rate for everyone, or one column.

A rule is learned on the train part as plain numbers; how the two are compared is gates.py's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.frame import LabelledFrame
from mlops_pipeline.core.metrics.intervals import paired_difference
from mlops_pipeline.core.metrics.metrics import Estimate, Floats
from mlops_pipeline.core.modelling.scoring import Decisions
from mlops_pipeline.spec.rules import GateRule, NaiveRule

BINS = 20  # of a column of numbers, of about equal numbers of rows
MOST_FREQUENT = 0.5  # the threshold of a rule that says of everyone what most rows are


@dataclass(frozen=True)
class NaiveScores:
    """The share of positive rows in the train part: of all, and by the value of a column.

    `edges` cut a column of numbers, and are None of texts; `shares` are by bin or text, that of
    missing values under "".
    """

    column: str | None
    share: float
    edges: tuple[float, ...] | None = None
    shares: Mapping[str, float] | None = None

    def score(self, columns: Mapping[str, npt.NDArray[Any]], rows: int) -> Floats:
        """Return each row's probability; that of all rows for a value not seen in training."""
        if self.column is None or self.shares is None:
            return np.full(rows, self.share)
        keys = _keys(columns[self.column], self.edges)
        return np.array([self.shares.get(key, self.share) for key in keys])


@dataclass(frozen=True)
class NaiveComparison:
    """The model's figure less the naive rule's, on the same rows of the test part."""

    column: str | None
    metric: str
    difference: Estimate


def naive_columns(rules: Sequence[GateRule]) -> tuple[str | None, ...]:
    """Return the column of each naive rule, None of the base rate."""
    return tuple(dict.fromkeys(rule.column for rule in rules if isinstance(rule, NaiveRule)))


def learn_naive(
    column: str | None, columns: Mapping[str, npt.NDArray[Any]], label: npt.NDArray[np.int8]
) -> NaiveScores:
    """Learn one rule from rows of the train part."""
    share = float(label.mean())
    if column is None:
        return NaiveScores(None, share)
    values, edges = columns[column], None
    if values.dtype != object:
        known = values[~np.isnan(values)].astype(np.float64)
        cuts = np.quantile(known, np.arange(1, BINS) / BINS) if len(known) else known
        edges = tuple(np.unique(cuts[cuts < known.max(initial=-np.inf)]).tolist())
    names, codes = np.unique(_keys(values, edges), return_inverse=True)
    # one row of the base rate more in each: a log loss of 0 or 1 would be anything
    shares = (np.bincount(codes, weights=label) + share) / (np.bincount(codes) + 1)
    return NaiveScores(
        column, share, edges, dict(zip(names.tolist(), shares.tolist(), strict=True))
    )


def _keys(values: npt.NDArray[Any], edges: tuple[float, ...] | None) -> npt.NDArray[np.str_]:
    if edges is None:
        return np.array(["" if value is None else str(value) for value in values], dtype=str)
    bins = np.searchsorted(np.array(edges), values, side="left").astype(str)
    return np.where(np.isnan(values), "", bins)


def compare_naive(
    use_case: UseCase, naive: Sequence[NaiveScores], rows: LabelledFrame, decided: Decisions
) -> tuple[NaiveComparison, ...]:
    """Compare a model's probabilities and decisions with those of every naive rule."""
    scores = {item.column: item.score(rows.columns, len(rows)) for item in naive}
    return tuple(
        NaiveComparison(
            rule.column,
            rule.metric,
            paired_difference(
                *(rows.label, decided.probability, scores[rule.column]),
                metric=rule.metric,
                threshold_a=decided.threshold,
                threshold_b=MOST_FREQUENT if rule.column is None else decided.threshold,
                names=("model", "naive rule"),
                entities=rows.entity,
                seed=use_case.training.seed,
            ),
        )
        for rule in use_case.gates
        if isinstance(rule, NaiveRule)
    )
