"""Group fairness audit of decisions: rates and calibration per group, disparities between groups.

Belongs here: measuring one sensitive attribute. Counting and resampling is group_counts.py's,
calibration group_calibration.py's, what an audit says group_audit.py's. What follows from a
disparity belongs to the gates and to the live audit, what to do about one to mitigation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mlops_pipeline.config.fairness import Fairness
from mlops_pipeline.core.fairness.group_audit import DISPARITIES, RATES, GroupAudit, GroupRates
from mlops_pipeline.core.fairness.group_calibration import GroupCalibration, group_calibration
from mlops_pipeline.core.fairness.group_counts import (
    MISSING,
    AuditRows,
    Codes,
    cells_of,
    checked_rows,
    count_cells,
    fairlearn_rates,
    group_codes,
    group_rates,
    intersections,
    resampled_counts,
)
from mlops_pipeline.core.metrics.intervals import percentile_interval
from mlops_pipeline.core.metrics.metrics import Estimate
from mlops_pipeline.core.metrics.ranked_scores import Floats
from mlops_pipeline.errors import ConfigError

__all__ = ["DISPARITIES", "GroupAudit", "GroupRates", "audit_attributes", "audit_groups"]

UNDEFINED = {
    "selection_rate": "no rows",
    "tpr": "no positive row",
    "fpr": "no negative row",
    "precision": "no selected row",
}
NEEDED = {  # rates that a disparity is made of
    "demographic_parity_difference": ("selection_rate",),
    "demographic_parity_ratio": ("selection_rate",),
    "equalized_odds_difference": ("tpr", "fpr"),
    "equal_opportunity_difference": ("tpr",),
}


def audit_groups(  # noqa: PLR0913 - the settings are keyword-only and have defaults
    y: ArrayLike,
    decisions: ArrayLike,
    groups: "pd.Series[Any]",
    *,
    attribute: str,
    scores: ArrayLike | None = None,
    known: ArrayLike | None = None,
    min_group_rows: int = 100,
    entities: ArrayLike | None = None,
    replicates: int = 500,
    seed: int = 0,
) -> GroupAudit:
    """Audit the decisions by the groups of one sensitive attribute.

    Parameters
    ----------
    y : array_like of {0, 1}, shape (n_samples,)
        Labels; of rows that are not `known`, anything.
    decisions : array_like of {0, 1}, shape (n_samples,)
        1: selected.
    groups : Series, shape (n_samples,)
        Taken by position and as text. Rows without a group form "(missing)", which is shown but
        left out of the disparities.
    attribute : str
        Name of the sensitive attribute.
    scores : array_like of float in [0, 1], shape (n_samples,), optional
        Probabilities; without them there is no calibration.
    known : array_like of bool, shape (n_samples,), optional
        Whether the label is known yet; default: of every row. Selection rates need no label.
    min_group_rows : int
        Of a smaller group nothing is computed, and it is left out of the disparities; so is, for
        figures that need labels, a group with fewer labelled rows.
    entities : array_like, shape (n_samples,), optional
        Entity of each row; the 95 % percentile intervals then resample entities instead of rows.
    replicates, seed : int
        Number of resamples (of calibration at most 200), and their seed.

    Returns
    -------
    GroupAudit
        Rates are those of fairlearn's MetricFrame. A disparity is not computable with fewer than
        2 groups left, or when a rate it needs is not computable in one of them. Resamples add
        noise to a maximum, so the interval of a disparity near parity lies on the side of
        disparity.

    Raises
    ------
    ConfigError
        If min_group_rows < 1 or replicates < 2.
    DataError
        If labels or decisions are not binary, scores no probabilities, or lengths differ.
    """
    if min_group_rows < 1 or replicates < 2:
        raise ConfigError(
            "An audit needs rows and replicates",
            expected="min_group_rows >= 1 and replicates >= 2",
            found=f"min_group_rows={min_group_rows}, replicates={replicates}",
        )
    rows = checked_rows(y, decisions, groups, scores, known, entities)
    names, codes = group_codes(groups)
    table = _measure(rows, names, codes, min_group_rows, replicates, seed)
    calibration = _calibrate(rows, table, codes, replicates, seed)
    return GroupAudit(
        attribute=attribute,
        groups=tuple(table.group(code, calibration.get(code)) for code in range(len(names))),
        **{name: table.disparity(name) for name in DISPARITIES},
    )


def audit_attributes(
    settings: Fairness,
    protected: Mapping[str, ArrayLike],
    y: ArrayLike,
    decisions: ArrayLike,
    **options: Any,
) -> tuple[GroupAudit, ...]:
    """Audit every protected attribute and, if the settings say so, every pair of them.

    Parameters
    ----------
    protected : mapping of name to array, shape (n_samples,)
    options
        Of `audit_groups`: scores, known, entities, replicates, seed.
    """
    columns = {name: pd.Series(np.asarray(item, object)) for name, item in protected.items()}
    if settings.intersections:
        columns |= intersections(columns)
    least = settings.min_group_rows
    return tuple(
        audit_groups(y, decisions, groups, attribute=name, min_group_rows=least, **options)
        for name, groups in columns.items()
    )


def _measure(  # noqa: PLR0917 # private, one caller
    rows: AuditRows, names: NDArray[np.str_], codes: Codes, least: int, replicates: int, seed: int
) -> "_Table":
    counts = count_cells(cells_of(codes, rows.label, rows.decision), len(names))
    is_large = counts.sum(axis=(1, 2)) >= least
    kept, position = is_large[codes], np.cumsum(is_large) - 1
    drawn = resampled_counts(
        cells_of(position[codes[kept]], rows.label[kept], rows.decision[kept]),
        int(is_large.sum()),
        None if rows.is_own_entity else rows.entity[kept],
        replicates,
        np.random.default_rng(seed),
    )
    lowest, highest = np.full(len(names), len(codes)), np.full(len(names), -1)
    np.minimum.at(lowest, codes, rows.entity)
    np.maximum.at(highest, codes, rows.entity)
    return _Table(
        names=names,
        counts=counts,
        is_alone=lowest >= highest,
        point=fairlearn_rates(np.where(is_large[:, None, None], counts, 0)),
        drawn=group_rates(drawn),
        position=position,
        least=least,
    )


def _calibrate(
    rows: AuditRows, table: "_Table", codes: Codes, replicates: int, seed: int
) -> dict[int, GroupCalibration]:
    """Return the calibration of every group, by its code; empty without scores."""
    found: dict[int, GroupCalibration] = {}
    if rows.scores is None:
        return found
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(table.counts.sum(axis=(1, 2)))
    for code, mine in enumerate(np.split(order, ends[:-1])):
        reason = table.too_small(code, labelled=True)
        if reason is not None:
            found[code] = GroupCalibration(*[Estimate(None, reason=reason)] * 4)
            continue
        known = mine[rows.label[mine] < 2]
        found[code] = group_calibration(
            rows.label[known].astype(np.float64),
            rows.scores[known],
            rows.entity[known],
            replicates=replicates,
            seed=seed,
        )
    return found


@dataclass(frozen=True)
class _Table:
    """Counts and rates by group; `drawn` (n_replicates, n) of the large ones, at `position`."""

    names: NDArray[np.str_]
    counts: NDArray[np.int64]
    is_alone: NDArray[np.bool_]  # its rows are of one entity: nothing to resample
    point: Mapping[str, Floats]
    drawn: Mapping[str, Floats]
    position: Codes
    least: int

    def too_small(self, code: int, *, labelled: bool) -> str | None:
        """Say why a group is too small to be shown, None when it is not."""
        rows, known = int(self.counts[code].sum()), int(self.counts[code, :2].sum())
        if rows < self.least:
            return f"{rows} rows, fewer than {self.least}"
        if labelled and known < self.least:
            return f"{known} labelled rows, fewer than {self.least}"
        return None

    def why_not(self, rate: str, code: int) -> str | None:
        """Say why a rate of a group is not computable, None when it is."""
        reason = self.too_small(code, labelled=rate != "selection_rate")
        return reason or (UNDEFINED[rate] if np.isnan(self.point[rate][code]) else None)

    def group(self, code: int, calibration: GroupCalibration | None) -> GroupRates:
        """Return what is shown of a group."""
        excluded = self.too_small(code, labelled=False)
        if self.names[code] == MISSING:
            excluded = "the group of these rows is not known"
        return GroupRates(
            group=str(self.names[code]),
            rows=int(self.counts[code].sum()),
            labelled=int(self.counts[code, :2].sum()),
            positives=None
            if self.too_small(code, labelled=True)
            else int(self.counts[code, 1].sum()),
            **{rate: self.estimate(rate, code) for rate in RATES},
            calibration=calibration,
            excluded=f"not computable: {excluded}" if excluded else None,
        )

    def estimate(self, rate: str, code: int) -> Estimate:
        """Return a rate of a group."""
        reason = self.why_not(rate, code)
        if reason is not None:
            return Estimate(None, reason=reason)
        value = float(self.point[rate][code])
        if self.is_alone[code]:
            return Estimate(value, reason="interval not computable: fewer than 2 entities")
        return percentile_interval(value, self.drawn[rate][:, self.position[code]])

    def disparity(self, name: str) -> Estimate:
        """Return a disparity between the groups that are compared."""
        needed = NEEDED[name]
        labelled = needed != ("selection_rate",)
        compared = [
            code
            for code, group in enumerate(self.names)
            if group != MISSING and self.too_small(code, labelled=labelled) is None
        ]
        if len(compared) < 2:
            rows = "labelled rows" if labelled else "rows"
            reason = f"{len(compared)} groups with enough {rows}, a disparity needs 2"
            return Estimate(None, reason=reason)
        for code in compared:
            for rate in needed:
                lacking = self.why_not(rate, code)
                if lacking is not None:
                    return Estimate(None, reason=f"group {self.names[code]}: {lacking}")
        value = float(_spread(name, {rate: self.point[rate][compared] for rate in needed}))
        if np.isnan(value):
            return Estimate(None, reason="no row is selected in any group")
        if self.is_alone[compared].any():
            return Estimate(value, reason="interval not computable: a group has 1 entity")
        at = self.position[compared]
        drawn = _spread(name, {rate: self.drawn[rate][:, at] for rate in needed})
        return percentile_interval(value, drawn)


def _spread(name: str, rates: Mapping[str, Floats]) -> Floats:
    """Return a disparity of rates (..., n_groups), NaN where a rate is."""
    if name == "demographic_parity_ratio":
        selection = rates["selection_rate"]
        with np.errstate(invalid="ignore"):
            return np.asarray(selection.min(axis=-1) / selection.max(axis=-1))
    return np.asarray(np.maximum.reduce([np.ptp(rate, axis=-1) for rate in rates.values()]))
