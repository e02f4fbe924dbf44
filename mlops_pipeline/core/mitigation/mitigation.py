"""Mitigation of a disparity for which the gate refused a model: when, and which variant.

Belongs here: whether the refusal is about fairness only, the validation figures of every variant,
and the choice. The test part is not seen. How a variant is made belongs to the methods, what they
work with to methods.py, the rule that chooses to `variants`.
"""

from collections.abc import Mapping

import numpy as np

from mlops_pipeline.config.modelling import Costs
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.frame import LabelledFrame, Labels
from mlops_pipeline.core.evaluation.outcomes import Gate, RuleResult
from mlops_pipeline.core.fairness.audit import attribute_values
from mlops_pipeline.core.fairness.variants import (
    BASE,
    Limits,
    Mitigated,
    Variant,
    choose_variant,
    selection_difference,
)
from mlops_pipeline.core.metrics.metrics import point_metrics
from mlops_pipeline.core.mitigation import methods
from mlops_pipeline.core.modelling.scoring import Floats, ScoringModel
from mlops_pipeline.spec.rules import GateRule, ParityRule


def mitigation_trigger(use_case: UseCase, gate: Gate) -> methods.MitigationTrigger | None:
    """Return what has to be mitigated, if every rule that blocks is a parity rule.

    So is one that cannot tell, or that the champion breaks by more, where the figure is beyond the
    limit. A rule that a person has excepted for a time asks for nothing.
    """
    judged = list(zip(use_case.gates, gate.rules, strict=True))
    failed = [pair for pair in judged if pair[1].blocks or _is_beyond(*pair)]
    is_fairness_only = failed and all(isinstance(rule, ParityRule) for rule, _ in failed)
    if not is_fairness_only or not use_case.fairness.mitigation.methods:
        return None
    limits: dict[str, float] = {}
    for rule, result in judged:
        if isinstance(rule, ParityRule) and rule.effect == "block" and not result.excepted:
            for name in rule.attributes or use_case.protected:
                limits[name] = min(rule.at_most, limits.get(name, rule.at_most))
    because = "; ".join(f"{result.name}: {result.reason}" for _, result in failed)
    above = dict.fromkeys(name for _, result in failed for name in result.failing)
    return methods.MitigationTrigger(because, tuple(above), limits)


def _is_beyond(rule: GateRule, result: RuleResult) -> bool:
    is_open = result.outcome in ("uncertain", "failed") and not result.excepted
    is_blocking = rule.effect == "block" and result.effect != "warn"
    return isinstance(rule, ParityRule) and is_open and is_blocking and bool(result.failing)


def mitigate(
    context: methods.MitigationContext, *, importance: Mapping[str, float]
) -> tuple[Mitigated, methods.Candidate | None]:
    """Make every variant, measure it on the validation part, and choose one or none."""
    rule, trigger = context.use_case.fairness.mitigation, context.trigger
    within = {name: limit * (1 - rule.margin) for name, limit in trigger.limits.items()}
    unchanged = context.calibrated(
        BASE, context.base, importance, methods.MitigationRecipe("none", context.groups)
    )
    tried = [unchanged]
    for method in rule.methods if len(context.groups) > 1 else ():
        tried += methods.method_of(method).variants(context, unchanged, within)
    measured = [_measured(item, context, within) for item in tried]
    variants, chosen, reason = choose_variant(measured, within, trigger.above, rule)
    outcome = Mitigated(
        because=trigger.because,
        attributes=trigger.above,
        limit=min(trigger.limits[name] for name in trigger.above),
        limits=trigger.limits,
        within=within,
        prefer=rule.prefer,
        variants=variants,
        chosen=chosen,
        reason=reason,
    )
    return outcome, next((item for item in tried if item.name == chosen), None)


def refit_variant(
    use_case: UseCase,
    frame: LabelledFrame,
    model: ScoringModel,
    recipe: methods.MitigationRecipe,
    *,
    threads: int,
) -> ScoringModel:
    """Fit a chosen variant on every row given, with the same mitigation."""
    every = np.arange(len(frame))
    rows = methods.GroupedRows(use_case, model, frame, every, recipe.groups, threads=threads)
    return methods.method_of(recipe.method).refit(rows, recipe)


def decision_figures(
    label: Labels, probability: Floats, threshold: Floats, costs: Costs
) -> dict[str, float | None]:
    """Return every metric of scores and decisions, and the mean cost of a decision."""
    metrics = point_metrics(label, probability, threshold)
    decision = probability >= threshold
    wrong = costs.false_positive * np.sum(decision & (label == 0))
    missed = costs.false_negative * np.sum(~decision & (label == 1))
    cost = float(wrong + missed) / len(label)
    return {**{name: item.value for name, item in metrics.items()}, "expected_cost": cost}


def _measured(
    item: methods.Candidate, context: methods.MitigationContext, within: Limits
) -> Variant:
    held, min_rows = context.held, context.use_case.fairness.min_group_rows
    decision = item.probability >= item.threshold
    return Variant(
        name=item.name,
        method=item.recipe.method,
        uses_attribute=bool(item.model.attributes),
        figures=decision_figures(held.label, item.probability, item.threshold, context.costs),
        disparities={
            name: selection_difference(decision, attribute_values(held.protected, name), min_rows)
            for name in within
        },
    )
