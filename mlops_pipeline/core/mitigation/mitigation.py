"""Mitigation of a disparity for which the gate refused a model: when, and which variant.

Belongs here: whether the refusal is about fairness only, the validation figures of every variant,
and the choice. Everything is learned on the train and the validation part; the test part is not
seen. How a variant is made belongs to `methods`, the rule that chooses to `variants`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlops_pipeline.config.modelling import CROSSED, Costs
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.frame import LabelledFrame, Parts
from mlops_pipeline.core.evaluation.gates import Gate
from mlops_pipeline.core.fairness.audit import attribute_values
from mlops_pipeline.core.fairness.variants import (
    BASE,
    Mitigated,
    Variant,
    choose_variant,
    selection_difference,
)
from mlops_pipeline.core.metrics.metrics import point_metrics
from mlops_pipeline.core.mitigation.context import (
    Candidate,
    GroupedRows,
    MitigationContext,
    MitigationRecipe,
    method_of,
)
from mlops_pipeline.core.modelling.scoring import Floats, ScoringModel
from mlops_pipeline.core.modelling.selection import decision_cost
from mlops_pipeline.spec.rules import ParityRule


@dataclass(frozen=True)
class MitigationTrigger:
    """Attributes above their limits, and the limits of all that a blocking rule protects.

    Either may name an intersection ("gender x region").
    """

    because: str
    above: tuple[str, ...]
    limits: Mapping[str, float]

    @property
    def attributes(self) -> tuple[str, ...]:
        """The single attributes that those above their limits are made of."""
        parts = (part for name in self.above for part in name.split(CROSSED))
        return tuple(dict.fromkeys(parts))


def mitigation_trigger(use_case: UseCase, gate: Gate) -> MitigationTrigger | None:
    """Return what has to be mitigated, if every rule that blocks is a parity rule.

    A rule that a person has excepted for a time asks for nothing.
    """
    judged = list(zip(use_case.gates, gate.rules, strict=True))
    failed = [(rule, result) for rule, result in judged if result.blocks]
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
    return MitigationTrigger(because, tuple(above), limits)


def mitigate(
    use_case: UseCase,
    base: ScoringModel,
    frame: LabelledFrame,
    parts: Parts,
    trigger: MitigationTrigger,
    *,
    importance: Mapping[str, float],
    threads: int,
) -> tuple[Mitigated, Candidate | None]:
    """Make every variant, measure it on the validation part, and choose one or none.

    Frame and parts are those of the base model's training; the test part is left alone.
    """
    rule = use_case.fairness.mitigation
    within = {name: limit * (1 - rule.margin) for name, limit in trigger.limits.items()}
    context = MitigationContext(
        use_case, base, frame, parts, attributes=trigger.attributes, threads=threads
    )
    unchanged = context.calibrated(BASE, base, importance, MitigationRecipe("none", context.groups))
    tried = [unchanged]
    aim = min(within[name] for name in trigger.above)
    for method in rule.methods if len(context.groups) > 1 else ():
        tried += method_of(method).variants(context, unchanged, aim)
    measured = [_measured(item, context.held, within, use_case) for item in tried]
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
    recipe: MitigationRecipe,
    *,
    threads: int,
) -> ScoringModel:
    """Fit a chosen variant on every row given, with the same mitigation."""
    every = np.arange(len(frame))
    rows = GroupedRows.of(use_case, model, frame, every, recipe.groups, threads=threads)
    return method_of(recipe.method).refit(rows, recipe)


def decision_figures(
    label: npt.NDArray[np.int8], probability: Floats, threshold: Floats, costs: Costs
) -> dict[str, float | None]:
    """Return every metric of scores and decisions, and the mean cost of a decision."""
    metrics = point_metrics(label, probability, threshold)
    cost = decision_cost(label, probability >= threshold, costs)
    return {**{name: item.value for name, item in metrics.items()}, "expected_cost": cost}


def _measured(
    item: Candidate, held: LabelledFrame, within: Mapping[str, float], use_case: UseCase
) -> Variant:
    costs, min_rows = use_case.training.costs, use_case.fairness.min_group_rows
    decision = item.probability >= item.threshold
    return Variant(
        name=item.name,
        method=item.recipe.method,
        uses_attribute=bool(item.model.attributes),
        figures=decision_figures(held.label, item.probability, item.threshold, costs),
        disparities={
            name: selection_difference(decision, attribute_values(held.protected, name), min_rows)
            for name in within
        },
    )
