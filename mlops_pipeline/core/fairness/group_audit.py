"""What a fairness audit of one attribute says, as plain data; and whether it is within a limit.

Belongs here: the records and their JSON. They are measured in fairness.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from mlops_pipeline.config.fairness import is_intersection
from mlops_pipeline.core.fairness.group_calibration import GroupCalibration
from mlops_pipeline.core.metrics.metrics import Estimate

FOUR_FIFTHS = 0.8  # of the parity ratio; US Uniform Guidelines on Employee Selection, 1978
RATES = ("selection_rate", "tpr", "fpr", "precision")
DISPARITIES = (
    "demographic_parity_difference",
    "demographic_parity_ratio",
    "equalized_odds_difference",
    "equal_opportunity_difference",
)


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

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Rebuild what `asdict` returned; KeyError if a field is absent."""
        found = fields["calibration"]
        calibration = None if found is None else GroupCalibration.from_dict(found)
        rates = {rate: Estimate.from_dict(fields[rate]) for rate in RATES}
        return cls(**{**fields, **rates, "calibration": calibration})


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

    def to_dict(self) -> dict[str, Any]:
        """Return the audit as plain JSON values."""
        return asdict(self) | {"groups": [asdict(group) for group in self.groups]}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Rebuild what `to_dict` returned; KeyError if a field is absent."""
        groups = tuple(GroupRates.from_dict(group) for group in fields["groups"])
        disparities = {name: Estimate.from_dict(fields[name]) for name in DISPARITIES}
        return cls(attribute=fields["attribute"], groups=groups, **disparities)


@dataclass(frozen=True)
class Parity:
    """Whether selection rates are within a limit. `passed` is None when none is computable.

    `value` is the largest demographic parity difference, `above` the attributes beyond the limit.
    """

    passed: bool | None
    value: float | None
    above: tuple[str, ...]
    reason: str


def judge_parity(
    audits: Sequence[GroupAudit], at_most: float, attributes: Sequence[str] = ()
) -> Parity:
    """Hold the demographic parity difference of each attribute against a limit.

    Parameters
    ----------
    attributes : sequence of str
        Those that are judged. Default: every single one; intersections only when named, because
        the largest of many differences between small groups is large by chance.
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
