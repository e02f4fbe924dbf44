"""Group fairness audit of decisions: rates per group and the disparities between groups.

Belongs here: the numbers of one sensitive attribute. Disparities are fairlearn's; their intervals
resample rows or entities. What a disparity may be belongs to the gates, what to do about one to
mitigation.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mlops_pipeline.errors import ConfigError, DataError
from mlops_pipeline.training.metrics import Estimate
from mlops_pipeline.training.ranked_scores import Floats, binary_labels

MISSING = "(missing)"
DISPARITIES = (
    "demographic_parity_difference",
    "demographic_parity_ratio",
    "equalized_odds_difference",
    "equal_opportunity_difference",
)


@dataclass(frozen=True)
class GroupRates:
    """Rates of one group, without intervals.

    `excluded` says why the group is left out of the disparities, None when it is in them.
    """

    group: str
    rows: int
    positives: int
    selection_rate: Estimate
    tpr: Estimate
    fpr: Estimate
    precision: Estimate
    excluded: str | None


@dataclass(frozen=True)
class GroupAudit:
    """Rates of every group of an attribute, and the disparities between those large enough.

    Differences are max - min over groups: 0 is parity, 1 the largest disparity. The ratio is
    min / max: 1 is parity. Equalized odds takes the larger of the TPR and FPR differences
    (Hardt, Price & Srebro 2016), equal opportunity the TPR difference.
    """

    attribute: str
    groups: tuple[GroupRates, ...]
    demographic_parity_difference: Estimate
    demographic_parity_ratio: Estimate
    equalized_odds_difference: Estimate
    equal_opportunity_difference: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Return the audit as plain JSON values."""
        return asdict(self) | {"groups": [asdict(group) for group in self.groups]}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Rebuild what `to_dict` returned; KeyError if a field is absent."""
        rates = ("selection_rate", "tpr", "fpr", "precision")
        groups = tuple(
            GroupRates(**{**group, **{rate: Estimate.from_dict(group[rate]) for rate in rates}})
            for group in fields["groups"]
        )
        disparities = {name: Estimate.from_dict(fields[name]) for name in DISPARITIES}
        return cls(attribute=fields["attribute"], groups=groups, **disparities)


def audit_groups(
    y: ArrayLike,
    decisions: ArrayLike,
    groups: "pd.Series[Any]",
    *,
    attribute: str,
    min_group_rows: int = 100,
    entities: ArrayLike | None = None,
    replicates: int = 500,
    seed: int = 0,
) -> GroupAudit:
    """Audit the decisions by the groups of one sensitive attribute.

    Parameters
    ----------
    y : array_like of {0, 1}, shape (n_samples,)
        Labels; rows whose label is not known yet do not belong in the audit.
    decisions : array_like of {0, 1}, shape (n_samples,)
        1: selected.
    groups : Series, shape (n_samples,)
        Taken by position and as text. Rows without a group form "(missing)", which is shown but
        left out of the disparities.
    attribute : str
        Name of the sensitive attribute.
    min_group_rows : int
        Smaller groups are shown, named as excluded, and left out of the disparities.
    entities : array_like, shape (n_samples,), optional
        Entity of each row; the 95 % percentile intervals then resample entities instead of rows.
    replicates, seed : int
        Number of resamples, and their seed.

    Returns
    -------
    GroupAudit
        A disparity is not computable with fewer than 2 groups left, or when a rate it needs is
        not computable in one of them. Resamples add noise to a maximum, so the interval of a
        disparity near parity lies on the side of disparity.

    Raises
    ------
    ConfigError
        If min_group_rows < 1 or replicates < 2.
    DataError
        If labels or decisions are not binary, or lengths differ.
    """
    if min_group_rows < 1 or replicates < 2:
        raise ConfigError(
            "An audit needs rows and replicates",
            expected="min_group_rows >= 1 and replicates >= 2",
            found=f"min_group_rows={min_group_rows}, replicates={replicates}",
        )
    labels, selected = binary_labels(y), binary_labels(decisions)
    clusters = np.arange(len(labels)) if entities is None else np.asarray(entities)
    lengths = [len(labels), len(selected), len(groups), len(clusters)]
    if len(set(lengths)) > 1:
        found = "{} labels, {} decisions, {} groups, {} entities".format(*lengths)
        raise DataError("The inputs of an audit differ in length", found=found)
    names = np.where(groups.isna(), MISSING, groups.astype(str)).astype(str)
    table = tuple(
        _group_rates(str(name), labels[names == name], selected[names == name], min_group_rows)
        for name in np.unique(names)
    )
    audited = [rates for rates in table if rates.excluded is None]
    kept = np.isin(names, [rates.group for rates in audited])
    frame = pd.DataFrame({"y": labels, "selected": selected, "group": names})[kept]
    kept_clusters = None if entities is None else clusters[kept]
    counts = _resampled_counts(frame, kept_clusters, replicates, np.random.default_rng(seed))
    resamples = _disparities(counts)
    return GroupAudit(
        attribute=attribute,
        groups=table,
        **{name: _disparity(name, frame, audited, resamples[name]) for name in DISPARITIES},
    )


def _rate(hits: float, of: float, missing: str) -> Estimate:
    return Estimate(hits / of) if of else Estimate(None, reason=missing)


def _group_rates(name: str, y: Floats, selected: Floats, min_group_rows: int) -> GroupRates:
    rows, positives, hits = len(y), float(y.sum()), float(y @ selected)
    excluded = f"not computable: {rows} rows, fewer than {min_group_rows}"
    if name == MISSING:
        excluded = "not computable: the group of these rows is not known"
    return GroupRates(
        group=name,
        rows=rows,
        positives=int(positives),
        selection_rate=_rate(float(selected.sum()), rows, "no rows"),
        tpr=_rate(hits, positives, "no positive row"),
        fpr=_rate(float(selected.sum()) - hits, rows - positives, "no negative row"),
        precision=_rate(hits, float(selected.sum()), "no selected row"),
        excluded=excluded if rows < min_group_rows or name == MISSING else None,
    )


def _reason(name: str, audited: list[GroupRates]) -> str | None:
    """Say why a disparity is not computable, None when it is."""
    if len(audited) < 2:
        return f"{len(audited)} groups with enough rows, a disparity needs 2"
    needed = {"equalized_odds_difference": ("tpr", "fpr"), "equal_opportunity_difference": ("tpr",)}
    for rates in audited:
        for rate in needed.get(name, ()):
            reason = getattr(rates, rate).reason
            if reason:
                return f"group {rates.group}: {reason}"
    if name == "demographic_parity_ratio" and not any(r.selection_rate.value for r in audited):
        return "no row is selected in any group"
    return None


def _disparity(
    name: str, frame: pd.DataFrame, audited: list[GroupRates], resamples: Floats
) -> Estimate:
    from fairlearn import metrics

    reason = _reason(name, audited)
    if reason:
        return Estimate(None, reason=reason)
    function = getattr(metrics, name)
    # equal rows are one weighted row: the same number, whatever the size of the frame
    cells = frame.value_counts(["y", "selected", "group"]).reset_index()
    value = float(
        function(
            cells["y"],
            cells["selected"],
            sensitive_features=cells["group"],
            sample_weight=cells["count"],
        )
    )
    computable = resamples[np.isfinite(resamples)]
    if len(computable) < 0.9 * len(resamples):
        found = f"only {len(computable)} of {len(resamples)} resamples have it"
        return Estimate(value, reason=f"interval not computable: {found}")
    low, high = np.quantile(computable, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def _resampled_counts(
    frame: pd.DataFrame,
    entities: NDArray[Any] | None,
    replicates: int,
    rng: np.random.Generator,
) -> Floats:
    """Return rows per replicate, group, label and decision: (n_replicates, n_groups, 2, 2).

    Rows drawn with replacement are one multinomial draw over these cells. An entity
    carries all its rows, each with the multiplicity of the entity.
    """
    names, group = np.unique(frame["group"], return_inverse=True)
    cell = (4 * group + 2 * frame["y"] + frame["selected"]).to_numpy(dtype=np.intp)
    cells = 4 * len(names)
    if not len(frame):
        return np.empty((replicates, 0, 2, 2))
    if entities is None:
        shares = np.bincount(cell, minlength=cells) / len(cell)
        drawn = rng.multinomial(len(cell), shares, size=replicates).astype(np.float64)
        return drawn.reshape(replicates, -1, 2, 2)
    codes, uniques = pd.factorize(entities)
    if (codes < 0).any():
        raise DataError("Entities are missing", found=f"{int((codes < 0).sum())} rows")
    table = np.bincount(codes * cells + cell, minlength=len(uniques) * cells)
    # entities with the same counts are exchangeable: one multinomial draw over the patterns
    alike = pd.DataFrame(table.reshape(-1, cells)).value_counts(sort=False).sort_index()
    patterns = alike.index.to_frame().to_numpy()
    times = rng.multinomial(len(uniques), alike.to_numpy() / len(uniques), size=replicates)
    counts: Floats = (times @ patterns).astype(np.float64)
    return counts.reshape(replicates, -1, 2, 2)


def _disparities(counts: Floats) -> dict[str, Floats]:
    """Return each disparity of each replicate, NaN where a rate it needs is not computable."""
    if counts.shape[1] < 2:
        return {name: np.full(len(counts), np.nan) for name in DISPARITIES}
    with np.errstate(invalid="ignore", divide="ignore"):
        selection = counts[..., 1].sum(axis=2) / counts.sum(axis=(2, 3))
        by_label = counts[..., 1] / counts.sum(axis=3)  # [..., 0] is the FPR, [..., 1] the TPR
        differences = np.ptp(by_label, axis=1)
        return {
            "demographic_parity_difference": np.ptp(selection, axis=1),
            "demographic_parity_ratio": selection.min(axis=1) / selection.max(axis=1),
            "equalized_odds_difference": differences.max(axis=1),
            "equal_opportunity_difference": differences[:, 1],
        }
