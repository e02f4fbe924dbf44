"""The gate: each configured rule held against an evaluation, with its result and the reason.

A rule is a class in spec/rules.py and a function registered here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import singledispatch

from mlops_pipeline.core.evaluation.evaluation import Evaluation, worst_slices
from mlops_pipeline.core.evaluation.records import GateException, rule_key
from mlops_pipeline.core.fairness.parity import evaluate_parity
from mlops_pipeline.core.metrics.metrics import Estimate
from mlops_pipeline.spec.metrics import METRICS, shown_in
from mlops_pipeline.spec.rules import (
    BetterRule,
    Bounded,
    ConsistencyRule,
    DirectionRule,
    Effect,
    GapRule,
    GateRule,
    MetricRule,
    NotWorseRule,
    ParityRule,
    SliceRule,
)

PARITY_RULE = "demographic parity"  # how the name of such a rule begins


@dataclass(frozen=True)
class RuleResult:
    """One rule's outcome. `passed` is None when the rule is not computable: a person looks.

    `failing` are the protected attributes that fail the rule. `excepted`: it failed, and a person
    lets it through for a time; the reason says who, why and until when.
    """

    name: str
    value: float | None
    threshold: float
    passed: bool | None
    effect: Effect
    reason: str
    failing: tuple[str, ...] = ()
    excepted: bool = False

    @property
    def blocks(self) -> bool:
        """Whether it keeps the model out of the registry."""
        return self.passed is False and self.effect == "block" and not self.excepted


@dataclass(frozen=True)
class Gate:
    """The whole gate's outcome.

    `passed`: no blocking rule failed. `needs_review`: a person has to approve, because a review
    rule failed or a blocking or review rule is not computable.
    """

    passed: bool
    needs_review: bool
    rules: tuple[RuleResult, ...]

    @property
    def failed(self) -> tuple[RuleResult, ...]:
        """Every rule that did not pass."""
        return tuple(rule for rule in self.rules if rule.passed is not True)


def evaluate_gate(
    rules: Sequence[GateRule],
    evaluation: Evaluation,
    exceptions: Sequence[GateException] = (),
    *,
    now: datetime | None = None,
) -> Gate:
    """Hold every rule against the evaluation; exceptions count that are in force at `now`."""
    valid = [item for item in exceptions if now is not None and item.is_in_force(now)]
    results = tuple(_excepted(rule, evaluate_rule(rule, evaluation), valid) for rule in rules)
    blocked = any(result.blocks for result in results)
    review = any(
        (result.passed is False and (result.effect == "review" or result.excepted))
        or (result.passed is None and result.effect != "warn")
        for result in results
    )
    return Gate(passed=not blocked, needs_review=review and not blocked, rules=results)


def compared_metrics(rules: Sequence[GateRule]) -> tuple[str, ...]:
    """Return the metrics compared with the champion: those always shown, and those of rules."""
    named = [rule.metric for rule in rules if isinstance(rule, NotWorseRule | BetterRule)]
    return tuple(dict.fromkeys((*shown_in("comparison"), *named)))


def comparison_level(rules: Sequence[GateRule]) -> float:
    """Return the two-sided level whose lower end is the one-sided bound of the strictest rule."""
    confidences = [rule.confidence for rule in rules if isinstance(rule, NotWorseRule)]
    return 2 * max(confidences, default=0.95) - 1


@singledispatch
def evaluate_rule(rule: GateRule, _evaluation: Evaluation) -> RuleResult:
    """Hold one rule against the evaluation, by its type."""
    raise NotImplementedError(f"no function is registered for {type(rule).__name__}")


@evaluate_rule.register
def _metric(rule: MetricRule, evaluation: Evaluation) -> RuleResult:
    return _bounded(rule, rule.metric, evaluation.metrics[rule.metric], "on test")


def _bound(rule: Bounded) -> tuple[float, str]:
    if rule.at_least is not None:
        return rule.at_least, "at least"
    return rule.at_most or 0.0, "at most"


def _bounded(rule: Bounded, name: str, figure: Estimate, where: str) -> RuleResult:
    threshold, word = _bound(rule)
    title, value = f"{name} {word} {threshold:g}", figure.value
    if value is None:
        return _unknown(title, threshold, rule.effect, figure.reason)
    passed = value >= threshold if word == "at least" else value <= threshold
    reason = f"{name} is {value:.4f} {where}, {word} {threshold:g} is asked"
    return RuleResult(title, value, threshold, passed, rule.effect, reason)


@evaluate_rule.register
def _gap(rule: GapRule, evaluation: Evaluation) -> RuleResult:
    title = f"train-test gap of {rule.metric} at most {rule.at_most:g}"
    train, test = evaluation.train_metrics[rule.metric], evaluation.metrics[rule.metric]
    if train.value is None or test.value is None:
        return _unknown(title, rule.at_most, rule.effect, train.reason or test.reason)
    sign = 1 if METRICS[rule.metric].greater_is_better else -1
    gap = sign * (train.value - test.value)
    reason = f"{train.value:.4f} on train, {test.value:.4f} on test: a gap of {gap:.4f}"
    return RuleResult(title, gap, rule.at_most, gap <= rule.at_most, rule.effect, reason)


@evaluate_rule.register
def _against_champion(rule: NotWorseRule | BetterRule, evaluation: Evaluation) -> RuleResult:
    is_better = isinstance(rule, BetterRule)
    what = (
        "better than the champion by" if is_better else "not worse than the champion by more than"
    )
    title, threshold = f"{rule.metric} {what} {rule.by:g}", rule.by if is_better else -rule.by
    comparison = evaluation.champion
    if comparison is None:
        return RuleResult(title, None, threshold, True, rule.effect, "there is no champion yet")
    if comparison.reason is not None:
        return _unknown(title, threshold, rule.effect, comparison.reason)
    difference = comparison.differences[rule.metric]
    if difference.value is None or difference.low is None or difference.high is None:
        return _unknown(title, threshold, rule.effect, difference.reason)
    gain, floor = difference.value, difference.low
    if not METRICS[rule.metric].greater_is_better:
        gain, floor = -difference.value, -difference.high
    value = gain if is_better else floor
    reason = (
        f"better by {gain:.4f} than version {comparison.version} on {comparison.rows} rows that "
        f"neither has seen; with confidence by at least {floor:.4f}"
    )
    return RuleResult(title, value, threshold, value >= threshold, rule.effect, reason)


@evaluate_rule.register
def _worst_slice(rule: SliceRule, evaluation: Evaluation) -> RuleResult:
    name = f"{rule.metric} of the worst slice"
    for worst in worst_slices(evaluation.slices, rule.metric, 1):
        where = f"in {worst.column} = {worst.group} ({worst.rows} rows)"
        return _bounded(rule, name, worst.metrics[rule.metric], where)
    return _unknown(name, _bound(rule)[0], rule.effect, "no slice is computable")


@evaluate_rule.register
def _parity(rule: ParityRule, evaluation: Evaluation) -> RuleResult:
    title = f"{PARITY_RULE} difference at most {rule.at_most:g}"
    found = evaluate_parity(evaluation.fairness, rule.at_most, rule.attributes)
    if found.value is None:
        return _unknown(title, rule.at_most, rule.effect, found.reason)
    return RuleResult(
        title, found.value, rule.at_most, found.passed, rule.effect, found.reason, found.above
    )


def _excepted(
    rule: GateRule, result: RuleResult, exceptions: Sequence[GateException]
) -> RuleResult:
    """Say of a failed blocking rule who lets it through, why and until when, if somebody does.

    An exception for one attribute counts when every attribute that failed has one.
    """
    if result.passed is not False or result.effect != "block":
        return result
    mine = [item for item in exceptions if item.rule == rule_key(rule)]
    used = [item for item in mine if item.attribute is None][:1]
    if not used:
        by_attribute = {item.attribute: item for item in mine}
        used = [by_attribute[name] for name in result.failing if name in by_attribute]
        if not used or len(used) < len(result.failing):
            return result
    reason = "; ".join([result.reason, *(item.sentence for item in used)])
    return replace(result, reason=reason, excepted=True)


@evaluate_rule.register
def _consistency(rule: ConsistencyRule, evaluation: Evaluation) -> RuleResult:
    title = f"rank correlation of attributions with the champion at least {rule.at_least:g}"
    found = evaluation.explanations.champion
    if found is None:
        return RuleResult(title, None, rule.at_least, True, rule.effect, "there is no champion yet")
    value = found.rank_correlation
    if value is None:
        return _unknown(title, rule.at_least, rule.effect, found.reason)
    reason = (
        f"{value:.3f} against version {found.version} on {found.rows} rows; of the most important "
        f"inputs {found.top_overlap:.0%} are the same"
    )
    return RuleResult(title, value, rule.at_least, value >= rule.at_least, rule.effect, reason)


@evaluate_rule.register
def _directions(rule: DirectionRule, evaluation: Evaluation) -> RuleResult:
    title = f"moves against expected directions at most {rule.at_most:g}"
    checks = evaluation.explanations.directions
    known = [(item.violation, item) for item in checks if item.violation is not None]
    against = sorted((pair for pair in known if pair[0] > rule.at_most), key=lambda pair: -pair[0])
    value = max((violation for violation, _ in known), default=None)
    if against:
        reason = ", ".join(f"{item.feature} {share:.3f}" for share, item in against)
        return RuleResult(title, value, rule.at_most, False, rule.effect, reason)
    unknown = [f"{item.feature}: {item.reason}" for item in checks if item.violation is None]
    if unknown or value is None:
        reason = "; ".join(unknown) or "no feature declares one"
        return _unknown(title, rule.at_most, rule.effect, reason)
    reason = f"{len(known)} declared, the worst goes against its own by {value:.3f}"
    return RuleResult(title, value, rule.at_most, True, rule.effect, reason)


def _unknown(name: str, threshold: float, effect: Effect, reason: str | None) -> RuleResult:
    return RuleResult(name, None, threshold, None, effect, f"not computable: {reason}")
