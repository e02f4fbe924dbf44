"""The audit of decisions by group: rates and calibration of groups, disparities between them.

Belongs here: measuring one sensitive attribute, and whether a disparity is within a limit. Arrays
are group_figures.py's; what follows belongs to the gate, the live audit and mitigation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlops_pipeline.config.fairness import Fairness, is_intersection
from mlops_pipeline.core.fairness.group_figures import (
    CELLS,
    MISSING,
    AuditRows,
    GroupCalibration,
    by_group,
    cells_of,
    checked_rows,
    group_calibration,
    group_codes,
    group_rates,
    intersections,
)
from mlops_pipeline.core.metrics.bootstrap import (
    Codes,
    check_replicates,
    percentile_interval,
    resampled_counts,
)
from mlops_pipeline.core.metrics.metrics import Estimate
from mlops_pipeline.core.metrics.ranked_scores import Floats
from mlops_pipeline.errors import ConfigError

FOUR_FIFTHS = 0.8  # of the parity ratio; US Uniform Guidelines on Employee Selection, 1978
RATES = {  # why one is not defined
    "selection_rate": "no rows",
    "tpr": "no positive row",
    "fpr": "no negative row",
    "precision": "no selected row",
}
DISPARITIES = {  # the rates that each is made of
    "demographic_parity_difference": ("selection_rate",),
    "demographic_parity_ratio": ("selection_rate",),
    "equalized_odds_difference": ("tpr", "fpr"),
    "equal_opportunity_difference": ("tpr",),
}


@dataclass(frozen=True)
class GroupRates:
    """Rates of one group, with 95 % intervals.

    Of a group that is too small to say something, and to hide anybody in, only the number of rows
    is there. `labelled` rows are those whose label is known: TPR, FPR, precision, `positives` and
    `calibration` are theirs. `excluded` says why the group is left out of the disparities.
    """

    group: str
    rows: int
    labelled: int
    positives: int | None
    selection_rate: Estimate
    tpr: Estimate
    fpr: Estimate
    precision: Estimate
    calibration: GroupCalibration | None
    excluded: str | None


@dataclass(frozen=True)
class GroupAudit:
    """Rates of every group of an attribute, and the disparities between those large enough.

    Differences are max - min over groups: 0 is parity, 1 the largest disparity. The ratio is
    min / max: 1 is parity, below FOUR_FIFTHS the rule of that name is broken. Equalized odds takes
    the larger of the TPR and FPR differences (Hardt, Price & Srebro 2016), equal opportunity the
    TPR difference.
    """

    attribute: str
    groups: tuple[GroupRates, ...]
    demographic_parity_difference: Estimate
    demographic_parity_ratio: Estimate
    equalized_odds_difference: Estimate
    equal_opportunity_difference: Estimate

    @property
    def extremes(self) -> tuple[GroupRates, GroupRates] | None:
        """The groups with the lowest and the highest selection rate, of those compared."""
        compared = [group for group in self.groups if group.excluded is None]
        ranked = sorted(compared, key=lambda group: group.selection_rate.value or 0.0)
        return (ranked[0], ranked[-1]) if len(ranked) > 1 else None


@dataclass(frozen=True)
class Parity:
    """Whether selection rates are within a limit. `passed` is None when none is computable.

    `value` is the largest demographic parity difference, `above` the attributes beyond the limit.
    """

    passed: bool | None
    value: float | None
    above: tuple[str, ...]
    reason: str


def evaluate_parity(
    audits: Sequence[GroupAudit], at_most: float, attributes: Sequence[str] = ()
) -> Parity:
    """Hold the demographic parity difference of each attribute against a limit.

    Without `attributes`, of every single one: the largest of many differences between the small
    groups of intersections is large by chance.
    """
    figures = {
        audit.attribute: audit.demographic_parity_difference
        for audit in audits
        if (audit.attribute in attributes if attributes else not is_intersection(audit.attribute))
    }
    known = {name: one.value for name, one in figures.items() if one.value is not None}
    lacking = [
        f"{name} not computable ({one.reason})"
        for name, one in figures.items()
        if one.value is None
    ]
    if not known:
        return Parity(None, None, (), "; ".join(lacking) or "there is no protected attribute")
    ranked = sorted(known.items(), key=lambda pair: -pair[1])
    above = tuple(name for name, value in ranked if value > at_most)
    reason = ", ".join([*(f"{name} {value:.3f}" for name, value in ranked), *lacking])
    return Parity(not above, ranked[0][1], above, reason)


def audit_attributes(
    settings: Fairness,
    protected: Mapping[str, ArrayLike],
    y: ArrayLike,
    decisions: ArrayLike,
    **options: Any,
) -> tuple[GroupAudit, ...]:
    """Audit every protected attribute and, if the settings say so, every pair of them."""
    columns = {name: np.asarray(item, object) for name, item in protected.items()}
    if settings.intersections:
        columns |= intersections(columns)
    least = settings.min_group_rows
    return tuple(
        audit_groups(y, decisions, groups, attribute=name, min_group_rows=least, **options)
        for name, groups in columns.items()
    )


def audit_groups(  # noqa: PLR0913 - the settings are keyword-only and have defaults
    y: ArrayLike,
    decisions: ArrayLike,
    groups: ArrayLike,
    *,
    attribute: str,
    scores: ArrayLike | None = None,
    known: ArrayLike | None = None,
    min_group_rows: int = 100,
    entities: ArrayLike | None = None,
    replicates: int = 500,
    seed: int = 0,
) -> GroupAudit:
    """Audit the decisions (1: selected) by the groups of one sensitive attribute.

    Selection rates are of all rows; all else is of those whose label is `known` (default: all), and
    calibration needs `scores`. Rows without a group form "(missing)", which is shown but left out
    of the disparities; so are groups under `min_group_rows` rows, of which nothing is computed.
    Intervals are of a bootstrap over `entities` (default: rows); of a disparity near parity they
    lie on the side of disparity, because resamples add noise to a maximum.
    """
    check_replicates(replicates)
    if min_group_rows < 1:
        raise ConfigError(
            "An audit needs rows", expected="min_group_rows >= 1", found=f"{min_group_rows}"
        )
    names, codes = group_codes(groups)
    rows = checked_rows(y, decisions, len(codes), scores=scores, known=known, entities=entities)
    table = _measure(rows, names, codes, min_group_rows, replicates=replicates, seed=seed)
    calibration = _calibrate(rows, table, codes, replicates, seed)
    return GroupAudit(
        attribute=attribute,
        groups=tuple(table.group(code, calibration.get(code)) for code in range(len(names))),
        **{name: table.disparity(name) for name in DISPARITIES},
    )


def _measure(
    rows: AuditRows,
    names: NDArray[np.str_],
    codes: Codes,
    least: int,
    *,
    replicates: int,
    seed: int,
) -> "_Table":
    cell = cells_of(codes, rows.label, rows.decision)
    counts = by_group(np.bincount(cell, minlength=len(names) * CELLS))
    is_large = counts.sum(axis=(1, 2)) >= least
    kept, position = is_large[codes], np.cumsum(is_large) - 1
    drawn = resampled_counts(
        cells_of(position[codes[kept]], rows.label[kept], rows.decision[kept]),
        int(is_large.sum()) * CELLS,
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
        point=group_rates(np.where(is_large[:, None, None], counts, 0)),
        drawn=group_rates(by_group(drawn)),
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
        rows, known = int(self.counts[code].sum()), int(self.counts[code, :2].sum())
        if rows < self.least:
            return f"{rows} rows, fewer than {self.least}"
        if labelled and known < self.least:
            return f"{known} labelled rows, fewer than {self.least}"
        return None

    def why_not(self, rate: str, code: int) -> str | None:
        reason = self.too_small(code, labelled=rate != "selection_rate")
        return reason or (RATES[rate] if np.isnan(self.point[rate][code]) else None)

    def group(self, code: int, calibration: GroupCalibration | None) -> GroupRates:
        excluded = self.too_small(code, labelled=False)
        if self.names[code] == MISSING:
            excluded = "the group of these rows is not known"
        is_too_small = self.too_small(code, labelled=True) is not None
        return GroupRates(
            group=str(self.names[code]),
            rows=int(self.counts[code].sum()),
            labelled=int(self.counts[code, :2].sum()),
            positives=None if is_too_small else int(self.counts[code, 1].sum()),
            **{rate: self.estimate(rate, code) for rate in RATES},
            calibration=calibration,
            excluded=f"not computable: {excluded}" if excluded else None,
        )

    def estimate(self, rate: str, code: int) -> Estimate:
        reason = self.why_not(rate, code)
        if reason is not None:
            return Estimate(None, reason=reason)
        value = float(self.point[rate][code])
        if self.is_alone[code]:
            return Estimate(value, reason="interval not computable: fewer than 2 entities")
        return percentile_interval(value, self.drawn[rate][:, self.position[code]])

    def disparity(self, name: str) -> Estimate:
        """Return a disparity between the groups that are compared."""
        needed = DISPARITIES[name]
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
