"""The groups that mitigation makes equal, and its variants of a model: which one is chosen.

With several attributes a group is a combination of their values: when all combinations are treated
alike, so are the values of each. How variants are made belongs to `mitigation`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mlops_pipeline.config.modelling import Mitigation
from mlops_pipeline.core.data.frame import Columns, Flags, Values
from mlops_pipeline.core.metrics.metrics import Estimate
from mlops_pipeline.spec.metrics import METRICS

BASE = "base"
NO_GROUP = -1
Limits = Mapping[str, float]  # of disparities, by attribute
Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Groups:
    """Groups of people; each is one or more combinations of the attributes' values."""

    attributes: tuple[str, ...]
    values: tuple[tuple[tuple[str, ...], ...], ...]

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self.values)

    def codes(self, protected: Columns) -> Codes:
        """Return the group of each row `(n_rows,)`, -1 where it has none."""
        found = {each: code for code, group in enumerate(self.values) for each in group}
        rows = zip(*(protected[name] for name in self.attributes), strict=True)
        codes: Codes = np.asarray([found.get(row, NO_GROUP) for row in rows], dtype=np.int64)
        return codes


def learn_groups(protected: Columns, attributes: Sequence[str], min_rows: int) -> Groups:
    """Return the groups of the rows; combinations under `min_rows` are one, if large enough."""
    rows = zip(*(protected[name] for name in attributes), strict=True)
    counts = Counter(row for row in rows if None not in row)
    large = sorted(values for values, count in counts.items() if count >= min_rows)
    small = sorted(values for values, count in counts.items() if count < min_rows)
    groups: list[tuple[tuple[str, ...], ...]] = [(values,) for values in large]
    if sum(counts[values] for values in small) >= min_rows:
        groups.append(tuple(small))
    return Groups(tuple(attributes), tuple(groups))


def selection_difference(decision: Flags, values: Values, min_rows: int) -> float | None:
    """Return the demographic parity difference of groups of `min_rows` rows; None under two."""
    rows = Counter(value for value in values if value is not None)
    selected = Counter(value for value in values[decision] if value is not None)
    rates = [selected[value] / count for value, count in rows.items() if count >= min_rows]
    return max(rates) - min(rates) if len(rates) > 1 else None


@dataclass(frozen=True)
class Variant:
    """A model beside the one that the gate refused; figures are of the validation part."""

    name: str
    method: str  # "none" of the base model
    uses_attribute: bool  # to decide it needs the protected one
    figures: Mapping[str, float | None]
    disparities: Mapping[str, float | None]  # demographic parity; None: not computable
    disparity: float | None = None  # the largest of those that are mitigated
    passes: bool = False
    chosen: bool = False
    reason: str = ""
    test: Mapping[str, float | None] | None = None  # of the base model and the chosen variant


@dataclass(frozen=True)
class Mitigated:
    """What was tried after a refusal on fairness only, and what came of it.

    `limits` are the gate's; `within` what the validation figures had to be within.
    """

    because: str
    attributes: tuple[str, ...]
    limit: float
    limits: Limits
    within: Limits
    prefer: str
    variants: tuple[Variant, ...]
    chosen: str | None
    reason: str


def choose_variant(
    variants: Sequence[Variant],
    within: Limits,
    attributes: Sequence[str],
    rule: Mitigation,
) -> tuple[tuple[Variant, ...], str | None, str]:
    """Choose among variants of which the first is the base model; say why of each.

    Of those whose every disparity is at most `within`, the best by `rule.prefer` is chosen, the
    least disparate on a tie, unless it loses more than `rule.max_loss` against the base model.
    """
    measured = tuple(_with_outcome(variant, within, attributes) for variant in variants)
    base = measured[0]
    fair = [item for item in measured[1:] if item.passes and item.figures[rule.prefer] is not None]
    if len(measured) == 1:
        return measured, None, "there is no variant to choose from"
    if not fair:
        reason = f"none of the variants is within the limits; {_closest(measured, within)}"
        return measured, None, reason
    best = min(fair, key=lambda variant: (_badness(variant, rule.prefer), variant.disparity or 0.0))
    before, loss = base.figures[rule.prefer], None  # as a share of the base model's figure
    if before is not None:
        lost = _badness(best, rule.prefer) - _badness(base, rule.prefer)
        loss = lost / abs(before) if before else (0.0 if lost <= 0 else np.inf)
    what = f"{rule.prefer} {best.figures[rule.prefer]:.4f} against {base.figures[rule.prefer]:.4f}"
    if loss is None or loss > rule.max_loss:
        much = "not computable" if loss is None else f"{loss:.1%}, above {rule.max_loss:.1%}"
        reason = f"{best.name} is the best within the limits, but loses {much}: {what}"
        return measured, None, reason
    reason = f"{best.name} is the best of {len(fair)} variants within the limits: {what}"
    marked = (replace(item, chosen=item.name == best.name) for item in measured)
    return tuple(marked), best.name, reason


def missed_targets(outcome: Mitigated, on_test: Mapping[str, Estimate]) -> str:
    """Say where thresholds by group miss what they aim at: their interval on test excludes it."""
    chosen = next((item for item in outcome.variants if item.chosen), None)
    if chosen is None or chosen.method != "group_thresholds":
        return ""
    missed = [
        f"{name} is {found.value:.3f} ({found.low:.3f} to {found.high:.3f})"
        f" where its thresholds aim at {target:.3f}"
        for name, target in outcome.within.items()
        if (found := on_test.get(name)) is not None
        if found.low is not None and found.high is not None and found.low > target
    ]
    return f"; on the test part {', '.join(missed)}: groups too small for it" if missed else ""


def _with_outcome(variant: Variant, within: Limits, attributes: Sequence[str]) -> Variant:
    wrong = []
    for name, value in variant.disparities.items():
        if value is None:
            wrong.append(f"{name} is not computable")
        elif value > within[name]:
            wrong.append(f"{name} {value:.3f} above {within[name]:.3f}")
    known = [variant.disparities[name] for name in attributes]
    largest = None if None in known else max(value or 0.0 for value in known)
    reason = "; ".join(wrong) or "within the limits"
    return replace(variant, disparity=largest, passes=not wrong, reason=reason)


def _badness(variant: Variant, metric: str) -> float:
    """Return the figure, so that less is better."""
    value = variant.figures[metric]
    if value is None:
        return np.inf
    is_greater_better = metric in METRICS and METRICS[metric].greater_is_better
    return -value if is_greater_better else value


def _closest(measured: Sequence[Variant], within: Limits) -> str:
    def excess(variant: Variant) -> float:
        known = {name: value for name, value in variant.disparities.items() if value is not None}
        return max((value - within[name] for name, value in known.items()), default=np.inf)

    closest = min(measured[1:], key=excess)
    if excess(closest) == np.inf:
        return "no disparity is computable"
    return f"{closest.name} comes closest: {closest.reason}"
