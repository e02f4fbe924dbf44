"""The audit of decisions by group: rates and calibration of groups, disparities between them.

Whether a disparity is within a limit is parity.py's. A count array ends in the axes (group, label,
decision): label 0, 1 or 2 (not known yet), decision 0 or 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlops_pipeline.config.modelling import CROSSED, Fairness, attribute_pairs
from mlops_pipeline.core.data.frame import Columns, Values
from mlops_pipeline.core.fairness import disparities
from mlops_pipeline.core.metrics import intervals
from mlops_pipeline.core.metrics.metrics import Estimate, Floats, binary_labels, probabilities
from mlops_pipeline.core.metrics.shares import ONE_SIDED, Z_ONE_SIDED, Z_TWO_SIDED
from mlops_pipeline.errors import DataError

FOUR_FIFTHS = 0.8  # of the parity ratio; US Uniform Guidelines on Employee Selection, 1978
RATES = {  # why one is not defined
    "selection_rate": "no rows",
    "tpr": "no positive row",
    "fpr": "no negative row",
    "precision": "no selected row",
}
MISSING_GROUP = "(missing)"
UNKNOWN_LABEL = 2
LABELS, DECISIONS = 3, 2
CELLS = LABELS * DECISIONS  # of a group


@dataclass(frozen=True)
class GroupCalibration:
    """Mean score, observed rate, observed minus mean score (0: calibrated in the large), ECE."""

    mean_score: Estimate
    observed_rate: Estimate
    difference: Estimate
    ece: Estimate


@dataclass(frozen=True)
class GroupRates:
    """Rates of one group, with 95 % intervals; only `rows` of one too small to hide anybody in."""

    group: str
    rows: int
    labelled: int  # rows whose label is known: all but the selection rate is of these
    positives: int | None
    selection_rate: Estimate
    tpr: Estimate
    fpr: Estimate
    precision: Estimate
    calibration: GroupCalibration | None
    excluded: str | None  # why the group is left out of the disparities


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


def audit_attributes(
    settings: Fairness,
    protected: Mapping[str, ArrayLike],
    y: ArrayLike,
    decisions: ArrayLike,
    **options: Any,
) -> tuple[GroupAudit, ...]:
    """Audit every protected attribute and, if the settings say so, every pair of them."""
    columns = {name: np.asarray(item, object) for name, item in protected.items()}
    pairs = attribute_pairs(tuple(columns)) if settings.intersections else ()
    return tuple(
        audit_groups(
            y,
            decisions,
            attribute_values(columns, name),
            attribute=name,
            min_group_rows=settings.min_group_rows,
            **options,
        )
        for name in (*columns, *pairs)
    )


def attribute_values(protected: Columns, name: str) -> Values:
    """Return the values of an attribute, or of a pair: it is missing where either one is."""
    if CROSSED not in name:
        return protected[name]
    first, second = (intervals.factorize(protected[each]) for each in name.split(CROSSED))
    texts = [f"{one}{CROSSED}{other}" for one in first[1] for other in second[1]]
    pairs = np.asarray([*texts, None], dtype=object)  # one object for each distinct pair
    crossed = first[0] * len(second[1]) + second[0]
    crossed[(first[0] < 0) | (second[0] < 0)] = -1
    values: Values = pairs[crossed]
    return values


def audit_groups(
    y: ArrayLike,
    decisions: ArrayLike,
    groups: ArrayLike,
    *,
    attribute: str,
    scores: ArrayLike | None = None,
    known: ArrayLike | None = None,
    min_group_rows: int = 100,
    entities: ArrayLike | None = None,
) -> GroupAudit:
    """Audit the decisions (1: selected) by the groups of one sensitive attribute.

    Selection rates are of all rows; all else is of those whose label is `known` (default: all), and
    calibration needs `scores`. Rows without a group form "(missing)", which is shown but left out
    of the disparities; so are groups under `min_group_rows` rows, of which nothing is computed.
    Intervals count the rows of one of the `entities` (default: rows) as one draw.
    """
    intervals.check_at_least(1, min_group_rows=min_group_rows)
    codes, distinct = intervals.factorize(groups)
    texts = [repr(text) if text == MISSING_GROUP else text for text in map(str, distinct)]
    texts += [MISSING_GROUP] if (codes < 0).any() else []
    names, position = np.unique(np.asarray(texts, dtype=str), return_inverse=True)
    rows = _Rows(position[codes], y, decisions, scores=scores, known=known, entities=entities)
    table = _Table(rows, names, least=min_group_rows)
    calibration = _calibrate(rows, table)
    return GroupAudit(
        attribute=attribute,
        groups=tuple(table.group(code, calibration.get(code)) for code in range(len(names))),
        **{name: table.disparity(name) for name in disparities.DISPARITIES},
    )


class _Rows:
    """The checked input of an audit as codes: groups, labels, decisions, entities."""

    def __init__(
        self,
        group: intervals.Codes,
        y: ArrayLike,
        decisions: ArrayLike,
        *,
        scores: ArrayLike | None,
        known: ArrayLike | None,
        entities: ArrayLike | None,
    ) -> None:
        size = len(group)
        given = {"labels": y, "decisions": decisions, "scores": scores, "known": known}
        given["entities"] = entities
        lengths = {name: len(np.asarray(item)) for name, item in given.items() if item is not None}
        if set(lengths.values()) != {size}:
            found = ", ".join(f"{length} {name}" for name, length in lengths.items())
            found = f"{size} groups, {found}"
            raise DataError("The inputs of an audit differ in length", found=found)
        is_known = np.ones(size, bool) if known is None else np.asarray(known, dtype=bool)
        labels = binary_labels(np.where(is_known, y, 0))
        self.group = group
        self.label = np.where(is_known, labels, UNKNOWN_LABEL).astype(np.intp)
        self.decision = binary_labels(decisions).astype(np.intp)
        self.entity = intervals.entity_codes(entities, size)[0]
        self.scores = None if scores is None else probabilities(scores, size)


class _Table:
    """Counts of an audit's groups, and their rates with the standard errors over entities."""

    def __init__(self, rows: _Rows, names: NDArray[np.str_], *, least: int) -> None:
        self.names, self.least = names, least
        cell = rows.label * DECISIONS + rows.decision
        counts = np.bincount(rows.group * CELLS + cell, minlength=len(names) * CELLS)
        self.counts = counts.reshape(-1, LABELS, DECISIONS)
        is_large = self.counts.sum(axis=(1, 2)) >= least
        large = np.where(is_large[:, None, None], self.counts, 0)
        self.point = _rates(large)
        self.shares = {rate: _share(rate, rows, value) for rate, value in self.point.items()}

    def too_small(self, code: int, *, labelled: bool) -> str | None:
        rows, known = int(self.counts[code].sum()), int(self.counts[code, :UNKNOWN_LABEL].sum())
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
        if self.names[code] == MISSING_GROUP:
            excluded = "the group of these rows is not known"
        is_too_small = self.too_small(code, labelled=True) is not None
        return GroupRates(
            group=str(self.names[code]),
            rows=int(self.counts[code].sum()),
            labelled=int(self.counts[code, :UNKNOWN_LABEL].sum()),
            positives=None if is_too_small else int(self.counts[code, 1].sum()),
            **{rate: self.estimate(rate, code) for rate in RATES},
            calibration=calibration,
            excluded=f"not computable: {excluded}" if excluded else None,
        )

    def estimate(self, rate: str, code: int) -> Estimate:
        reason = self.why_not(rate, code)
        if reason is not None:
            return Estimate(None, reason=reason)
        share = self.shares[rate].take([code])
        value = float(share.value[0])
        if share.entities[0] < 2:
            return Estimate(value, reason=intervals.ONE_ENTITY)
        ((low,), (high,)), ((lower,), (upper,)) = map(share.bounds, (Z_TWO_SIDED, Z_ONE_SIDED))
        return Estimate(value, float(low), float(high), lower=float(lower), upper=float(upper))

    def disparity(self, name: str) -> Estimate:
        """Return a disparity between the groups that are compared."""
        needed = disparities.DISPARITIES[name]
        labelled = needed != ("selection_rate",)
        known = [code for code, group in enumerate(self.names) if group != MISSING_GROUP]
        compared = [code for code in known if not self.too_small(code, labelled=labelled)]
        if len(compared) < 2:
            rows = "labelled rows" if labelled else "rows"
            reason = f"{len(compared)} groups with enough {rows}, a disparity needs 2"
            return Estimate(None, reason=reason)
        for code in compared:
            for rate in needed:
                lacking = self.why_not(rate, code)
                if lacking is not None:
                    return Estimate(None, reason=f"group {self.names[code]}: {lacking}")
        shares = [self.shares[rate].take(compared) for rate in needed]
        value = disparities.spread(name, [share.value for share in shares])
        if np.isnan(value):
            return Estimate(None, reason="no row is selected in any group")
        if min(share.entities.min() for share in shares) < 2:
            return Estimate(value, reason="interval not computable: a group has 1 entity")
        (low, high), (lower, upper) = (
            disparities.disparity_bounds(name, shares, level) for level in (0.975, ONE_SIDED)
        )
        return Estimate(
            value,
            low,
            high,
            lower=lower,
            upper=upper,
            by_chance=disparities.chance_disparity(name, shares),
        )


def _share(rate: str, rows: _Rows, value: Floats) -> disparities.Share:
    """Return a rate by group, with the rows its clustered interval is worth; NaN: no such row."""
    counted = {
        "selection_rate": np.ones(len(rows.group), dtype=bool),
        "tpr": rows.label == 1,
        "fpr": rows.label == 0,
        "precision": (rows.label != UNKNOWN_LABEL) & (rows.decision == 1),
    }[rate] & np.isfinite(value)[rows.group]
    hit = rows.label[counted] == 1 if rate == "precision" else rows.decision[counted] == 1
    group, entity, size = rows.group[counted], rows.entity[counted], len(value)
    total = np.bincount(group, minlength=size).astype(np.float64)
    several = len(rows.entity) + 1  # more than there are entities
    each, of_pair = np.unique(group * several + entity, return_inverse=True)
    entities = np.bincount(each // several, minlength=size)
    sums = np.bincount(of_pair, weights=hit - value[group], minlength=len(each))
    squares = np.bincount(each // several, weights=sums**2, minlength=size)
    with np.errstate(invalid="ignore", divide="ignore"):
        robust = squares * entities / (entities - 1) / total**2
        worth = np.minimum(value * (1 - value) / robust, total)
    return disparities.Share(value, np.where(np.isfinite(worth), worth, entities), entities)


def _rates(counts: Values) -> dict[str, Floats]:
    """Return each rate (..., n_groups) of counts; NaN where no row is in its denominator."""
    with np.errstate(invalid="ignore", divide="ignore"):
        by_label = counts[..., 1] / counts.sum(axis=-1)
        hits, false_hits = counts[..., 1, 1], counts[..., 0, 1]
        return {
            "selection_rate": counts[..., 1].sum(axis=-1) / counts.sum(axis=(-2, -1)),
            "tpr": by_label[..., 1],
            "fpr": by_label[..., 0],
            "precision": hits / (hits + false_hits),
        }


def _calibrate(rows: _Rows, table: _Table) -> dict[int, GroupCalibration]:
    found: dict[int, GroupCalibration] = {}
    if rows.scores is None:
        return found
    order = np.argsort(rows.group, kind="stable")
    ends = np.cumsum(table.counts.sum(axis=(1, 2)))
    for code, mine in enumerate(np.split(order, ends[:-1])):
        reason = table.too_small(code, labelled=True)
        if reason is not None:
            found[code] = GroupCalibration(*[Estimate(None, reason=reason)] * 4)
            continue
        known = mine[rows.label[mine] != UNKNOWN_LABEL]
        label, scores = rows.label[known].astype(np.float64), rows.scores[known]
        found[code] = GroupCalibration(
            Estimate(float(scores.mean())),
            Estimate(float(label.mean())),
            *intervals.calibration_gaps(label, scores, rows.entity[known]),
        )
    return found
