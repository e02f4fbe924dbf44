"""The gate: each configured rule held against an evaluation, with its result and the reason.

A rule is a class in spec/rules.py and a function registered here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import singledispatch

from mlops_pipeline.core.evaluation.evaluation import (
    ChampionComparison,
    Evaluation,
    missing_words,
    worst_slices,
)
from mlops_pipeline.core.evaluation.outcomes import Gate, RuleResult, tells
from mlops_pipeline.core.evaluation.records import GateException, rule_key
from mlops_pipeline.core.fairness.parity import evaluate_parity
from mlops_pipeline.core.metrics.metrics import SEVERITY, Estimate, Outcome, hold
from mlops_pipeline.spec.metrics import METRICS
from mlops_pipeline.spec.rules import (
    BetterRule,
    Bounded,
    ConsistencyRule,
    DirectionRule,
    Effect,
    GapRule,
    GateRule,
    MetricRule,
    MissingRule,
    NaiveRule,
    NotWorseRule,
    ParityRule,
    SliceRule,
)

PARITY_RULE = "demographic parity"  # how the name of such a rule begins
POINT = "judged by the figure itself: it is of the model, and takes no labels"


def evaluate_gate(
    rules: Sequence[GateRule],
    evaluation: Evaluation,
    exceptions: Sequence[GateException] = (),
    *,
    now: datetime | None = None,
    is_staged: bool = False,
) -> Gate:
    """Hold every rule against the evaluation; exceptions count that are in force at `now`.

    `is_staged`: a version is tried beside the champion before it takes its place.
    """
    valid = [item for item in exceptions if now is not None and item.is_in_force(now)]
    results = tuple(
        _excepted(rule, _in_context(rule, result, evaluation, is_staged=is_staged), valid)
        for rule, result in ((rule, evaluate_rule(rule, evaluation)) for rule in rules)
    )
    blocked = any(result.blocks for result in results)
    review = any(result.asks for result in results)
    return Gate(passed=not blocked, needs_review=review and not blocked, rules=results)


@singledispatch
def evaluate_rule(rule: GateRule, _evaluation: Evaluation) -> RuleResult:
    """Hold one rule against the evaluation, by its type."""
    raise NotImplementedError(f"no function is registered for {type(rule).__name__}")


@evaluate_rule.register
def _metric(rule: MetricRule, evaluation: Evaluation) -> RuleResult:
    figure = evaluation.metrics[rule.metric]
    where = f"on {evaluation.rows:,} test rows"
    if figure.by_chance is not None:
        where += f", where calibrated scores give up to {figure.by_chance:.4f} by chance"
    return _bounded(rule, rule.metric, figure, where)


@evaluate_rule.register
def _naive(rule: NaiveRule, evaluation: Evaluation) -> RuleResult:
    what = f"{rule.column} alone" if rule.column else "the base rate"
    title = f"{rule.metric} better than {what}" + (f" by {rule.by:g}" if rule.by else "")
    found = next(
        item
        for item in evaluation.naive
        if (item.column, item.metric) == (rule.column, rule.metric)
    )
    difference = found.difference
    gain = _gain(rule.metric, difference.value, difference.lower, difference.upper)
    if gain is None:
        return _unknown(title, rule.by, rule.effect, difference.reason)
    said = f"{_words(gain)} over {what} on {evaluation.rows:,} test rows"
    return _held(title, gain, rule.by, rule.effect, said, is_floor=True)


def _gain(
    metric: str, value: float | None, low: float | None, high: float | None
) -> Estimate | None:
    """Return a difference of two models with its bounds, so that more is better."""
    if value is None or low is None or high is None:
        return None
    if METRICS[metric].greater_is_better:
        return Estimate(value, lower=low, upper=high)
    return Estimate(-value, lower=-high, upper=-low)


def _words(gain: Estimate) -> str:
    return f"a gain of {gain.value or 0.0:+.4f}{_between(gain)}"


def _bound(rule: Bounded) -> tuple[float, str]:
    if rule.at_least is not None:
        return rule.at_least, "at least"
    return rule.at_most or 0.0, "at most"


def _bounded(rule: Bounded, name: str, figure: Estimate, where: str, among: int = 1) -> RuleResult:
    threshold, word = _bound(rule)
    title = f"{name} {word} {threshold:g}"
    said = f"{name} is {figure.value or 0.0:.4f}{_between(figure)} {where}"
    is_floor = word == "at least"
    return _held(title, figure, threshold, rule.effect, said, is_floor=is_floor, among=among)


def _held(
    title: str,
    figure: Estimate,
    threshold: float,
    effect: Effect,
    said: str,
    *,
    is_floor: bool,
    among: int = 1,
) -> RuleResult:
    """Hold a figure and its one-sided bounds against a limit."""
    outcome = hold(figure, threshold, is_floor=is_floor, among=among)
    value, width = figure.value, figure.width
    if value is None or width is None:
        return _unknown(title, threshold, effect, figure.reason)
    power = tells(width, among)
    if outcome == "uncertain":
        said += f"; so few rows cannot tell: a truth better than the limit by {power:.2g} "
        said += "would pass in 80 of 100 such samples"
    clears = value >= threshold if is_floor else value <= threshold
    return RuleResult(title, value, threshold, outcome, effect, said, clears=clears, power=power)


def _between(figure: Estimate) -> str:
    if figure.lower is None or figure.upper is None:
        return ""
    return f" (bounds {figure.lower:.4f} and {figure.upper:.4f})"


@evaluate_rule.register
def _gap(rule: GapRule, evaluation: Evaluation) -> RuleResult:
    title = f"train-test gap of {rule.metric} at most {rule.at_most:g}"
    train, test = evaluation.train_metrics[rule.metric], evaluation.metrics[rule.metric]
    if train.value is None or test.value is None:
        return _unknown(title, rule.at_most, rule.effect, train.reason or test.reason)
    sign = 1 if METRICS[rule.metric].greater_is_better else -1
    ends = [sign * (train.value - end) for end in (test.lower, test.upper) if end is not None]
    gap = Estimate(
        sign * (train.value - test.value),
        reason=test.reason,
        lower=min(ends, default=None),
        upper=max(ends, default=None),
    )
    said = (
        f"{train.value:.4f} on train, {test.value:.4f} on {evaluation.rows:,} test rows: a gap of "
    )
    said += f"{gap.value:.4f}"
    said += _between(gap)
    return _held(title, gap, rule.at_most, rule.effect, said, is_floor=False)


@evaluate_rule.register
def _against_champion(rule: NotWorseRule | BetterRule, evaluation: Evaluation) -> RuleResult:
    is_better = isinstance(rule, BetterRule)
    what = (
        "better than the champion by" if is_better else "not worse than the champion by more than"
    )
    title, threshold = f"{rule.metric} {what} {rule.by:g}", rule.by if is_better else -rule.by
    comparison = evaluation.champion
    if comparison is None:
        return _without_champion(title, threshold, rule.effect)
    if comparison.reason is not None:
        return _unknown(title, threshold, rule.effect, comparison.reason)
    difference = comparison.differences[rule.metric]
    gain = _gain(rule.metric, difference.value, difference.low, difference.high)
    if gain is None:
        return _unknown(title, threshold, rule.effect, difference.reason)
    said = (
        f"{_words(gain)} over version {comparison.version} on {comparison.rows:,} rows that "
        "neither has seen"
    )
    return _held(title, gain, threshold, rule.effect, said, is_floor=True)


def _without_champion(title: str, threshold: float, effect: Effect) -> RuleResult:
    return RuleResult(title, None, threshold, "passed", effect, "there is no champion yet")


@evaluate_rule.register
def _worst_slice(rule: SliceRule, evaluation: Evaluation) -> RuleResult:
    name = f"{rule.metric} of the worst slice"
    ranked = worst_slices(evaluation.slices, rule.metric, len(evaluation.slices))
    if not ranked:
        return _unknown(name, _bound(rule)[0], rule.effect, "no slice is computable")
    many = len(ranked)
    judged = [
        _bounded(
            *(rule, name, item.metrics[rule.metric]),
            f"in {item.column} = {item.group} ({item.rows} rows), one of {many} slices",
            among=many,
        )
        for item in ranked
    ]
    return _worst(judged)


def _worst(judged: Sequence[RuleResult]) -> RuleResult:
    """Return the first of the worst outcome; it tells what the figure tells that tells least."""
    worst = min(judged, key=lambda result: SEVERITY.index(result.outcome))
    power = max((one.power for one in judged if one.power is not None), default=None)
    return replace(worst, power=power)


@evaluate_rule.register
def _parity(rule: ParityRule, evaluation: Evaluation) -> RuleResult:
    title = f"{PARITY_RULE} difference at most {rule.at_most:g}"
    found = evaluate_parity(evaluation.fairness, rule.at_most, rule.attributes)
    return RuleResult(
        *(title, found.value, rule.at_most, found.outcome, rule.effect, found.reason, found.above),
        clears=None if found.value is None else not found.above,
        power=None if found.width is None else tells(found.width, found.attributes),
    )


def _in_context(
    rule: GateRule, result: RuleResult, evaluation: Evaluation, *, is_staged: bool
) -> RuleResult:
    """Say where another effect counts than the rule's own.

    A rule that cannot tell is a note on the first model, if the figure clears the limit; whether a
    model is not worse than the champion is decided in trial, where there are stages. A model
    that breaks a limit by less than the champion (of disparities, in every attribute beyond it) is
    a person's decision: a gate must not keep the worse model longest.
    """
    champion = evaluation.champion
    if result.outcome == "uncertain" and champion is None and result.clears:
        reason = f"{result.reason}; the figure clears it, which is enough for a first model"
        return replace(result, effect="warn", reason=reason)
    if result.outcome == "uncertain" and isinstance(rule, NotWorseRule) and is_staged:
        reason = f"{result.reason}; live evidence decides: it is tried beside the champion"
        return replace(result, effect="warn", reason=reason)
    if champion is None or not result.blocks:
        return result
    pairs = _same_figures(rule, result, champion)
    sign = 1 if isinstance(rule, Bounded) and rule.at_least is not None else -1
    if not pairs or not all(
        sign * theirs < sign * result.threshold and sign * ours > sign * theirs
        for _, ours, theirs in pairs
    ):
        return result
    figures = ", ".join(
        f"{name}{theirs:.4f} where this model has {ours:.4f}" for name, ours, theirs in pairs
    )
    reason = (
        f"{result.reason}; the champion breaks it by more: {figures}, on the same "
        f"{champion.rows} rows"
    )
    return replace(result, effect="review", reason=reason)


def _same_figures(
    rule: GateRule, result: RuleResult, champion: ChampionComparison
) -> list[tuple[str, float, float]]:
    """Return the model's and the champion's figures of a rule on the same rows; empty: unknown."""
    ours, theirs = champion.challenger_metrics, champion.champion_metrics
    names: Mapping[str, str] = {}
    if isinstance(rule, MetricRule):
        names = {"": rule.metric}
    elif isinstance(rule, ParityRule):
        ours, theirs = champion.challenger_disparities, champion.champion_disparities
        names = {f"{name} ": name for name in result.failing}
    pairs = [
        (said, ours[name].value if name in ours else None, theirs[name].value)
        for said, name in names.items()
        if name in theirs
    ]
    known = [(said, a, b) for said, a, b in pairs if a is not None and b is not None]
    return known if len(known) == len(names) else []


def _excepted(
    rule: GateRule, result: RuleResult, exceptions: Sequence[GateException]
) -> RuleResult:
    """Say of a blocking rule that does not pass who lets it through, why and until when, if any.

    An exception for one attribute counts when every attribute that failed has one.
    """
    if result.effect != "block" or result.outcome not in ("failed", "uncertain"):
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
        return _without_champion(title, rule.at_least, rule.effect)
    value = found.rank_correlation
    if value is None:
        return _unknown(title, rule.at_least, rule.effect, found.reason)
    reason = (
        f"{value:.3f} against version {found.version} on {found.rows} rows; of the most important "
        f"inputs {found.top_overlap:.0%} are the same; {POINT}"
    )
    outcome: Outcome = "passed" if value >= rule.at_least else "failed"
    return RuleResult(title, value, rule.at_least, outcome, rule.effect, reason)


@evaluate_rule.register
def _directions(rule: DirectionRule, evaluation: Evaluation) -> RuleResult:
    title = f"moves against expected directions at most {rule.at_most:g}"
    checks = evaluation.explanations.directions
    known = [(item.violation, item) for item in checks if item.violation is not None]
    against = sorted((pair for pair in known if pair[0] > rule.at_most), key=lambda pair: -pair[0])
    value = max((violation for violation, _ in known), default=None)
    if against:
        reason = ", ".join(f"{item.feature} {share:.3f}" for share, item in against)
        reason += f"; {POINT}"
        return RuleResult(title, value, rule.at_most, "failed", rule.effect, reason)
    unknown = [f"{item.feature}: {item.reason}" for item in checks if item.violation is None]
    if unknown or value is None:
        reason = "; ".join(unknown) or "no feature declares one"
        return _unknown(title, rule.at_most, rule.effect, reason)
    reason = f"{len(known)} declared, the worst goes against its own by {value:.3f}; {POINT}"
    return RuleResult(title, value, rule.at_most, "passed", rule.effect, reason)


@evaluate_rule.register
def _missing(rule: MissingRule, evaluation: Evaluation) -> RuleResult:
    title = f"change of the share of missing values at most {rule.at_most:g}"
    judged = [
        _held(
            *(title, item.difference, rule.at_most, rule.effect),
            f"{missing_words([item])}, a change of {item.change:.4f}{_between(item.difference)}",
            is_floor=False,
            among=len(evaluation.missing),
        )
        for item in evaluation.missing  # the largest change first
    ]
    if not judged:
        return _unknown(title, rule.at_most, rule.effect, "no input was looked at")
    failed = "; ".join(result.reason for result in judged if result.outcome == "failed")
    worst = _worst(judged)
    return replace(worst, reason=failed or worst.reason)


def _unknown(name: str, threshold: float, effect: Effect, reason: str | None) -> RuleResult:
    return RuleResult(name, None, threshold, "not computable", effect, f"not computable: {reason}")
