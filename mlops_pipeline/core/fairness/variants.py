"""Mitigated variants of a model, with their validation figures, and the rule that chooses one.

Belongs here: the choice, from figures alone. How variants are made belongs to `mitigation`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mlops_pipeline.config.fairness import Mitigation
from mlops_pipeline.spec.metrics import METRICS

BASE = "base"


@dataclass(frozen=True)
class Variant:
    """A model beside the one that the gate refused; figures are of the validation part.

    `method` is "none" of the base model, `uses_attribute` whether a decision needs to know the
    protected attribute. `disparities` are demographic parity differences by attribute, `disparity`
    the largest of those that are mitigated; None: not computable. `test` are the figures on the
    test part, for the base model and the chosen variant.
    """

    name: str
    method: str
    uses_attribute: bool
    figures: Mapping[str, float | None]
    disparities: Mapping[str, float | None]
    disparity: float | None = None
    passes: bool = False
    chosen: bool = False
    reason: str = ""
    test: Mapping[str, float | None] | None = None


@dataclass(frozen=True)
class Mitigated:
    """What was tried after a refusal on fairness only, and what came of it.

    `limits` are the gate's; `within` what the validation figures had to be within.
    """

    because: str
    attributes: tuple[str, ...]
    limit: float
    limits: Mapping[str, float]
    within: Mapping[str, float]
    prefer: str
    variants: tuple[Variant, ...]
    chosen: str | None
    reason: str


def choose_variant(
    variants: Sequence[Variant],
    within: Mapping[str, float],
    attributes: Sequence[str],
    rule: Mitigation,
) -> tuple[tuple[Variant, ...], str | None, str]:
    """Choose among variants of which the first is the base model; say why of each.

    Of those whose every disparity is at most `within`, the best by `rule.prefer` is chosen, the
    least disparate on a tie, unless it loses more than `rule.max_loss` against the base model.
    Returned are the variants with their outcome, the name chosen or None, and why.
    """
    judged = tuple(_judged(variant, within, attributes) for variant in variants)
    base, fair = judged[0], [variant for variant in judged[1:] if variant.passes]
    fair = [variant for variant in fair if variant.figures[rule.prefer] is not None]
    if len(judged) == 1:
        return judged, None, "there is no variant to choose from"
    if not fair:
        return (
            judged,
            None,
            f"none of the variants is within the limits; {_closest(judged, within)}",
        )
    best = min(fair, key=lambda variant: (_badness(variant, rule.prefer), variant.disparity or 0.0))
    loss = _loss(base, best, rule.prefer)
    what = f"{rule.prefer} {best.figures[rule.prefer]:.4f} against {base.figures[rule.prefer]:.4f}"
    if loss is None or loss > rule.max_loss:
        lost = "not computable" if loss is None else f"{loss:.1%}, above {rule.max_loss:.1%}"
        return judged, None, f"{best.name} is the best within the limits, but loses {lost}: {what}"
    reason = f"{best.name} is the best of {len(fair)} variants within the limits: {what}"
    marked = (replace(item, chosen=item.name == best.name) for item in judged)
    return tuple(marked), best.name, reason


def _judged(variant: Variant, within: Mapping[str, float], attributes: Sequence[str]) -> Variant:
    wrong = [
        f"{name} is not computable"
        if value is None
        else f"{name} {value:.3f} above {within[name]:.3f}"
        for name, value in variant.disparities.items()
        if value is None or value > within[name]
    ]
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


def _loss(base: Variant, variant: Variant, metric: str) -> float | None:
    """Return how much worse the figure is than the base model's, as a share of it."""
    before = base.figures[metric]
    if before is None:
        return None
    lost = _badness(variant, metric) - _badness(base, metric)
    return lost / abs(before) if before else (0.0 if lost <= 0 else np.inf)


def _closest(judged: Sequence[Variant], within: Mapping[str, float]) -> str:
    """Name the variant that exceeds its limits least."""
    excess = [
        (
            max(
                value - within[name]
                for name, value in variant.disparities.items()
                if value is not None
            ),
            variant,
        )
        for variant in judged[1:]
        if any(value is not None for value in variant.disparities.values())
    ]
    if not excess:
        return "no disparity is computable"
    closest = min(excess, key=lambda pair: pair[0])[1]
    return f"{closest.name} comes closest: {closest.reason}"
