"""Exceptions from a failed rule, on a real evaluation whose south is selected more often."""

import json
from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Any, get_args

import numpy as np
import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.core.documents.records import from_plain, plain
from mlops_pipeline.core.evaluation.evaluation import (
    ChampionComparison,
    Evaluation,
    compare_missing,
    compared_metrics,
)
from mlops_pipeline.core.evaluation.gates import evaluate_gate, evaluate_rule
from mlops_pipeline.core.evaluation.outcomes import Gate, RuleResult
from mlops_pipeline.core.evaluation.records import GateException, check_exception, rule_key
from mlops_pipeline.core.metrics.metrics import Estimate
from mlops_pipeline.errors import ConfigError, MlopsError, StateError
from mlops_pipeline.spec.rules import GateRule
from mlops_pipeline_tests.core.evaluation import example_evaluation as example
from mlops_pipeline_tests.stores.ops.timestamps import NOON, later

DAY = 86_400
PARITY: dict[str, Any] = {"rule": "demographic_parity", "at_most": 0.05, "effect": "block"}
AUC: dict[str, Any] = {"rule": "metric", "metric": "roc_auc", "at_least": 0.99}


@cache
def evaluation() -> Evaluation:
    return example.evaluation()


def judged(*exceptions: GateException, rules: Any = (PARITY,), seconds: float = 0) -> Gate:
    case = example.use_case(rules)
    return evaluate_gate(case.gates, evaluation(), exceptions, now=later(seconds))


def exception(**changes: Any) -> GateException:
    fields: dict[str, Any] = {
        "id": 1,
        "use_case": "churn",
        "rule": "demographic_parity",
        "attribute": None,
        "by": "Ann",
        "reason": "the south is being mended",
        "granted_at": NOON,
        "expires_at": later(DAY),
    }
    return GateException(**(fields | changes))


def test_failed_blocking_rule_without_exception_blocks() -> None:
    gate = judged()
    assert (gate.passed, gate.needs_review) == (False, False)
    assert gate.rules[0].failing == ("region",)
    assert gate.rules[0].blocks


def test_excepted_rule_failed_does_not_block_and_asks_for_review() -> None:
    gate = judged(exception())
    (rule,) = gate.rules
    assert (gate.passed, gate.needs_review) == (True, True)
    assert (rule.outcome, rule.excepted, rule.blocks) == ("failed", True, False)
    assert rule.reason.endswith("; excepted by Ann until 2024-05-02: the south is being mended")
    assert gate.failed == (rule,)


@pytest.mark.parametrize(
    "ended",
    [
        {"expires_at": NOON},
        {"granted_at": later(1), "expires_at": later(DAY)},
        {"revoked_at": NOON, "revoked_by": "Bob", "revocation": "no"},
        {"rule": "metric:roc_auc"},
        {"attribute": "gender"},
    ],
)
def test_exception_that_is_not_in_force_or_for_something_else_does_not_count(
    ended: dict[str, Any],
) -> None:
    gate = judged(exception(**ended))
    assert not gate.passed
    assert not gate.rules[0].excepted


def test_exception_counts_until_the_moment_it_expires() -> None:
    assert judged(exception(), seconds=DAY - 1).passed
    assert not judged(exception(), seconds=DAY).passed


def test_exception_counts_for_a_failed_attribute_and_has_to_cover_each() -> None:
    assert judged(exception(attribute="region")).passed
    strict = ({**PARITY, "at_most": 0.0},)
    assert not judged(exception(attribute="region"), rules=strict).passed
    both = (exception(attribute="region"), exception(attribute="gender", by="Bob"))
    gate = judged(*both, rules=strict)
    assert gate.passed
    assert "excepted for region by Ann" in gate.rules[0].reason
    assert "excepted for gender by Bob" in gate.rules[0].reason


def test_exception_leaves_the_other_rules_alone() -> None:
    gate = judged(exception(), rules=(PARITY, AUC))
    assert not gate.passed
    assert [rule.blocks for rule in gate.rules] == [False, True]


def test_exception_changes_nothing_about_a_rule_that_passes_or_only_warns() -> None:
    passing = judged(exception(), rules=({**PARITY, "at_most": 1.0},))
    assert passing == judged(rules=({**PARITY, "at_most": 1.0},))
    warning = ({**PARITY, "effect": "warn"},)
    assert judged(exception(), rules=warning) == judged(rules=warning)


def test_parity_rule_judges_an_intersection_only_when_it_names_it() -> None:
    assert judged().rules[0].failing == ("region",)
    named = judged(rules=({**PARITY, "attributes": ["region x gender"]},))
    assert named.rules[0].failing == ("region x gender",)


def test_rule_result_survives_json_and_reads_what_was_stored_before_exceptions() -> None:
    gate = judged(exception())
    assert from_plain(Gate, json.loads(json.dumps(plain(gate)))) == gate
    before = {"name": "a", "value": 1.0, "threshold": 1.0, "outcome": "passed", "effect": "block"}
    found = from_plain(RuleResult, {**before, "reason": "b"})
    assert (found.failing, found.excepted) == ((), False)


def test_compared_metrics_are_those_shown_and_those_of_rules_about_the_champion() -> None:
    shown = ("roc_auc", "pr_auc", "log_loss", "brier", "ece")
    assert compared_metrics(case().gates) == shown
    rules = ({"rule": "not_worse_than_champion", "metric": "mcc"}, {**AUC, "metric": "f1"})
    assert compared_metrics(example.use_case(rules).gates) == (*shown, "mcc")


def test_rule_about_a_metric_of_the_table_is_judged_by_its_figure() -> None:
    names = ("lift_top_decile", "accuracy", "balanced_accuracy", "mcc")
    gate = judged(
        rules=tuple({"rule": "metric", "metric": name, "at_least": 0.1} for name in names)
    )
    assert [rule.value for rule in gate.rules] == [evaluation().metrics[n].value for n in names]
    assert gate.passed


def test_every_rule_of_the_configuration_is_evaluated() -> None:
    assert set(get_args(get_args(GateRule)[0])) == set(evaluate_rule.registry) - {object}


# what may be granted


def case() -> UseCase:
    return example.use_case((PARITY, AUC, {"rule": "worst_slice", "at_least": 0.6}))


@pytest.mark.parametrize(
    ("rule", "attribute"),
    [("demographic_parity", None), ("demographic_parity", "region"), ("metric:roc_auc", None)],
)
def test_check_exception_of_an_existing_blocking_rule_passes(
    rule: str, attribute: str | None
) -> None:
    check_exception(case(), rule, attribute, later(1), now=NOON)
    assert rule in {rule_key(item) for item in case().gates}


@pytest.mark.parametrize(
    ("rule", "attribute", "days", "kind", "text"),
    [
        ("demografic_parity", None, 1, ConfigError, "demographic_parity, metric:roc_auc"),
        ("worst_slice:roc_auc", None, 1, ConfigError, "a rule that blocks"),
        ("demographic_parity", "plan", 1, ConfigError, "region, gender"),
        ("metric:roc_auc", "region", 1, ConfigError, "no attribute"),
        ("demographic_parity", None, 0, StateError, "still to come"),
    ],
)
def test_check_exception_that_could_never_count_is_refused(
    rule: str, attribute: str | None, days: int, kind: type[MlopsError], text: str
) -> None:
    with pytest.raises(kind, match=text):
        check_exception(case(), rule, attribute, NOON + timedelta(days=days), now=NOON)


def test_configuration_with_an_unknown_intersection_is_refused() -> None:
    with pytest.raises(ValueError, match="known: region, gender, region x gender"):
        example.use_case(({**PARITY, "attributes": ["gender x region"]},))
    with pytest.raises(ValueError, match="no audited attribute"):
        example.use_case(
            ({**PARITY, "attributes": ["region x gender"]},), fairness={"intersections": False}
        )


# pass, fail or uncertain


def gate_of(figure: Estimate, champion: ChampionComparison | None = None, **rule: Any) -> Gate:
    changed = replace(
        evaluation(), metrics={**evaluation().metrics, "roc_auc": figure}, champion=champion
    )
    return evaluate_gate(example.use_case(({**AUC, **rule},)).gates, changed)


def champion(**changes: Any) -> ChampionComparison:
    gain = Estimate(0.0, -0.02, 0.02, lower=-0.02, upper=0.02)
    return replace(ChampionComparison(3, 400, {"roc_auc": gain}, None), **changes)


def auc(value: float, half: float = 0.02) -> Estimate:
    return Estimate(
        *(value, value - 1.2 * half, value + 1.2 * half), lower=value - half, upper=value + half
    )


@pytest.mark.parametrize(
    ("figure", "outcome", "passed", "asks"),
    [
        (auc(0.75), "passed", True, False),
        (auc(0.72), "passed", True, False),  # the bound is at the limit
        (auc(0.71), "uncertain", True, False),  # enough for a first model
        (auc(0.69), "uncertain", True, True),
        (auc(0.67), "failed", False, False),
        (Estimate(0.9, reason="one entity"), "not computable", True, True),
    ],
)
def test_metric_rule_is_decided_by_the_bounds_of_the_figure(
    figure: Estimate, outcome: str, passed: bool, asks: bool
) -> None:
    gate = gate_of(figure, at_least=0.7)
    assert (gate.rules[0].outcome, gate.passed, gate.needs_review) == (outcome, passed, asks)


def test_uncertain_rule_says_so_and_what_so_many_rows_could_tell() -> None:
    (rule,) = gate_of(auc(0.71), at_least=0.7).rules
    assert rule.power == pytest.approx(0.04 * (1.645 + 0.842) / (2 * 1.645), rel=0.001)
    assert rule.reason.startswith(
        "roc_auc is 0.7100 (bounds 0.6900 and 0.7300) on 4,000 test rows; so few rows cannot "
        "tell: a truth better than the limit by 0.03 would pass in 80 of 100 such samples"
    )
    assert rule.effect == "warn"


def test_uncertain_rule_asks_a_person_once_there_is_a_champion() -> None:
    gate = gate_of(auc(0.71), champion(), at_least=0.7)
    assert (gate.passed, gate.needs_review, gate.rules[0].effect) == (True, True, "block")
    assert not gate_of(auc(0.71), champion(), at_least=0.7, effect="warn").needs_review


@pytest.mark.parametrize(("theirs", "passed"), [(0.6, True), (0.66, False), (0.75, False)])
def test_limit_that_the_champion_breaks_by_more_is_a_persons_decision(
    theirs: float, passed: bool
) -> None:
    both = {"challenger_metrics": {"roc_auc": Estimate(0.65)}}
    gate = gate_of(
        auc(0.65),
        champion(**both, champion_metrics={"roc_auc": Estimate(theirs)}),
        at_least=0.7,
    )
    assert (gate.passed, gate.needs_review) == (passed, passed)
    assert ("the champion breaks it by more" in gate.rules[0].reason) == passed


def parity_gate(theirs: float | None, ours: float = 0.09, attribute: str = "region") -> Gate:
    ours_on_all = evaluation().fairness[0].demographic_parity_difference.value
    assert ours_on_all is not None
    assert ours_on_all > 0.05
    found = {} if theirs is None else {attribute: Estimate(theirs)}
    changed = replace(
        evaluation(),
        champion=champion(
            challenger_disparities={attribute: Estimate(ours)}, champion_disparities=found
        ),
    )
    return evaluate_gate(example.use_case((PARITY,)).gates, changed)


@pytest.mark.parametrize(
    ("theirs", "passed"), [(0.2, True), (0.08, False), (0.04, False), (None, False)]
)
def test_disparity_that_the_champion_exceeds_by_more_is_a_persons_decision(
    theirs: float | None, passed: bool
) -> None:
    gate = parity_gate(theirs)
    assert (gate.passed, gate.needs_review) == (passed, passed)
    words = "the champion breaks it by more: region 0.2000 where this model has 0.0900, on the same"
    assert (words in gate.rules[0].reason) == passed


def test_disparity_of_another_attribute_is_no_excuse() -> None:
    assert not parity_gate(0.2, attribute="gender").passed


def slices_gate(lower: float, count: int) -> Gate:
    one = evaluation().slices[0]
    worst = Estimate(0.6, 0.5, 0.7, lower=0.55, upper=0.69 + lower)
    good = Estimate(0.9, 0.8, 0.95, lower=0.85, upper=0.94)
    slices = [replace(one, metrics={**one.metrics, "roc_auc": figure})
              for figure in (worst, *[good] * (count - 1))]  # fmt: skip
    rule = {"rule": "worst_slice", "at_least": 0.7, "effect": "block"}
    changed = replace(evaluation(), slices=tuple(slices))
    return evaluate_gate(example.use_case((rule,)).gates, changed)


def test_worst_of_many_slices_fails_by_a_bound_that_holds_for_all_of_them() -> None:
    # alone, the upper bound of 0.69 is below 0.7; of ten, it lies 0.09 * 2.576 / 1.645 above 0.6
    assert slices_gate(0.0, 1).rules[0].outcome == "failed"
    (rule,) = slices_gate(0.0, 10).rules
    assert rule.outcome == "uncertain"
    assert "rows), one of 10 slices" in rule.reason
    # all of ten pass in 80 of 100 where each does in 97.8: z 2.012; the widest is 0.14
    assert rule.power == pytest.approx(0.14 * (1.645 + 2.012) / (2 * 1.645), rel=0.001)
    assert slices_gate(-0.04, 10).rules[0].outcome == "failed"  # 0.6 + 0.05 * 1.566 = 0.678


def test_models_that_so_many_rows_cannot_tell_apart_ask_a_person() -> None:
    rule = {"rule": "not_worse_than_champion", "metric": "roc_auc", "by": 0.01}
    changed = replace(evaluation(), champion=champion())
    gate = evaluate_gate(example.use_case((rule,)).gates, changed)
    assert (gate.rules[0].outcome, gate.passed, gate.needs_review) == ("uncertain", True, True)
    worse = Estimate(-0.04, -0.06, -0.02)
    changed = replace(evaluation(), champion=champion(differences={"roc_auc": worse}))
    assert not evaluate_gate(example.use_case((rule,)).gates, changed).passed


def test_models_that_cannot_be_told_apart_are_tried_beside_each_other_where_there_are_stages() -> (
    None
):
    rule = {"rule": "not_worse_than_champion", "metric": "roc_auc", "by": 0.01}
    gates = example.use_case((rule,)).gates
    uncertain = replace(evaluation(), champion=champion())
    gate = evaluate_gate(gates, uncertain, is_staged=True)
    assert (gate.passed, gate.needs_review, gate.rules[0].effect) == (True, False, "warn")
    assert gate.rules[0].reason.endswith("live evidence decides: it is tried beside the champion")
    worse = {"roc_auc": Estimate(-0.04, -0.06, -0.02)}
    refused = replace(evaluation(), champion=champion(differences=worse))
    assert not evaluate_gate(gates, refused, is_staged=True).passed


# values that are missing


def test_missing_share_rule_names_a_feature_that_stopped_arriving() -> None:
    columns = {"usage": np.array([np.nan] * 10), "plan": np.array(["a"] * 9 + [None], object)}
    found = compare_missing({"plan": 0.0, "usage": 0.18}, columns, np.arange(10))
    assert [(item.feature, item.train, item.now) for item in found] == [
        ("usage", 0.18, 1.0),
        ("plan", 0.0, 0.1),
    ]
    rule = {"rule": "missing_share", "at_most": 0.2}
    gate = evaluate_gate(example.use_case((rule,)).gates, replace(evaluation(), missing=found))
    assert (gate.passed, gate.needs_review, gate.rules[0].outcome) == (True, True, "failed")
    assert gate.rules[0].reason == (
        "usage 18% missing in training, now 100%, a change of 0.8200 (bounds 0.5611 and 0.8200)"
    )  # 0.05 ** (1 / 10) = 0.7411: what all of 10 rows leave open


def missing_rule(lacking: int, rows: int, entities: int, inputs: int = 1) -> RuleResult:
    """Judge an input that train rows lack in 10 of 100, and as many that nothing lacks."""
    lost = np.where(np.arange(rows) < lacking, np.nan, 1.0)
    columns = {f"x{at}": lost if at == 0 else np.ones(rows) for at in range(inputs)}
    train = dict.fromkeys(columns, 0.0) | {"x0": 0.1}
    found = compare_missing(train, columns, np.arange(rows) * entities // rows)
    rule = {"rule": "missing_share", "at_most": 0.2}
    return evaluate_gate(
        example.use_case((rule,)).gates, replace(evaluation(), missing=found)
    ).rules[0]


def test_missing_share_rule_judges_by_the_bounds_of_the_change() -> None:
    within = missing_rule(100, 400, 400)  # 0.25, Jeffreys' bounds 0.2158 and 0.2869 less 0.1
    assert within.outcome == "passed"
    assert within.value == pytest.approx(0.15)
    assert within.reason.endswith("(bounds 0.1158 and 0.1869)")
    assert within.power == pytest.approx(0.0711 * 0.7561, rel=0.01)
    assert missing_rule(100, 400, 40).outcome == "uncertain"  # ten rows to an entity say less
    assert missing_rule(112, 400, 400).outcome == "uncertain"
    assert missing_rule(140, 400, 400).outcome == "failed"
    assert missing_rule(140, 400, 400, inputs=40).outcome == "uncertain"  # one of 40 by chance
    assert missing_rule(0, 400, 400).reason.endswith(
        "now 0%, a change of 0.1000 (bounds 0.0925 and 0.1000)"
    )


def test_missing_share_rule_of_no_input_is_not_computable() -> None:
    (rule,) = evaluate_gate(
        example.use_case(({"rule": "missing_share"},)).gates, replace(evaluation(), missing=())
    ).rules
    assert (rule.outcome, rule.reason) == (
        "not computable",
        "not computable: no input was looked at",
    )
