import base64
import dataclasses
import html
import json
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest

from mlops_pipeline.core.documents.pages import (
    Headline,
    headline,
    number,
    parity_limits,
    render_report,
    share,
    signed,
)
from mlops_pipeline.core.documents.records import EvaluatedTraining, from_plain
from mlops_pipeline.core.evaluation.evaluation import Evaluation, worst_slices
from mlops_pipeline.core.evaluation.gates import evaluate_gate
from mlops_pipeline.core.evaluation.outcomes import Gate, RuleResult
from mlops_pipeline.core.metrics.metrics import Estimate
from mlops_pipeline.core.modelling.explanations import Explanation
from mlops_pipeline_tests.core.evaluation import example_evaluation as example

PARITY: dict[str, Any] = {"rule": "demographic_parity", "at_most": 0.05}


@cache
def measured(has_champion: bool = True) -> Evaluation:
    return example.evaluation(champion=example.comparison() if has_champion else None)


def page(**changes: Any) -> str:
    return html.unescape(render_report(example.facts(measured=measured(), **changes)))


def verdict(
    *rules: dict[str, Any], evaluation: Evaluation | None = None, **changes: Any
) -> Headline:
    case = example.use_case(rules, **changes)
    gate = evaluate_gate(case.gates, evaluation or measured())
    return headline(gate, case)


def auc(at_least: float, effect: str = "block") -> dict[str, Any]:
    return {"rule": "metric", "metric": "roc_auc", "at_least": at_least, "effect": effect}


@pytest.mark.parametrize(
    ("rules", "tone", "sentence"),
    [
        ([auc(0.6)], "good", "Accepted: every rule passed (1)."),
        (
            [auc(0.6), PARITY],
            "good",
            "Accepted, with a warning: “demographic parity difference at most 0.05” did not pass.",
        ),
        (
            [auc(0.99), auc(0.98), PARITY],
            "bad",
            "Refused: “roc_auc at least 0.99” and “roc_auc at least 0.98” failed "
            "(1 more is a warning).",
        ),
        (
            [auc(0.99, "review")],
            "review",
            "Needs a person's approval: “roc_auc at least 0.99” did not pass.",
        ),
        ([auc(0.99), auc(0.9, "review")], "bad", "Refused: “roc_auc at least 0.99” failed."),
    ],
)
def test_headline_says_verdict_and_failed_rules(
    rules: Sequence[dict[str, Any]], tone: str, sentence: str
) -> None:
    found = verdict(*rules)
    assert (found.tone, found.sentence) == (tone, sentence)


def test_headline_asks_when_every_version_needs_approval() -> None:
    found = verdict(auc(0.6), rollout={"approval": "always"})
    assert found.tone == "review"
    first = verdict(auc(0.6), evaluation=measured(False), rollout={"approval": "always"})
    assert first.tone == "review"  # also where there is no champion yet


def test_report_opens_with_the_verdict_and_shows_every_rule() -> None:
    text = page()
    assert text.index("Needs a person's approval") < text.index("The gate, rule by rule")
    case = example.facts(measured=measured())
    for rule in case.gate.rules:
        assert rule.name in text
        assert rule.reason in text


def test_failed_rules_are_red_also_those_that_only_warn() -> None:
    rows = re.findall(r'<tr class="failed"><td>([^<]+)</td>', page())
    assert rows == [
        "roc_auc better than the champion by 0.02",
        "demographic parity difference at most 0.05",
    ]


def test_disparity_above_the_limit_is_red_and_below_is_not() -> None:
    text = page()
    region, gender = text[text.index("<h3>region") :].split("<h3>gender")
    assert '<td class="n red">' in region
    assert '<td class="n red">' not in gender.split("</section>")[0]


def test_groups_show_intervals_and_calibration() -> None:
    region = measured().fairness[0]
    south = next(group for group in region.groups if group.group == "south")
    section = page().split('<section id="fairness">')[1]
    row = next(item for item in section.split("<tr><td>") if item.startswith("south</td>"))
    for figure in (south.selection_rate, south.tpr, south.fpr, south.precision):
        assert f"[{share(figure.low)}, {share(figure.high)}]" in row
    assert south.calibration is not None
    assert share(south.calibration.mean_score.value) in row
    assert number(south.calibration.ece.value) in row
    assert number(south.calibration.difference.value) in row


def test_intersections_are_one_row_each_with_the_worst_pair() -> None:
    text = page().split("<h3>Intersections</h3>")[1].split("</section>")[0]
    pair = measured().fairness[2]
    assert pair.extremes is not None
    least, most = pair.extremes
    assert (pair.attribute, most.group[:5]) == ("region x gender", "south")
    assert "<h3>region x gender" not in page()
    assert text.index(least.group) < text.index(most.group)
    assert number(pair.demographic_parity_difference.value) in text


def test_excepted_rule_says_so_and_is_not_among_the_refusals() -> None:
    reason = "region 0.3; excepted by Ann until 2025-06-30: it is being mended"
    excepted = RuleResult(
        "parity", 0.3, 0.05, "failed", "block", reason, ("region",), excepted=True
    )
    gate = Gate(passed=True, needs_review=True, rules=(excepted,))
    facts = dataclasses.replace(example.facts(measured=measured()), gate=gate)
    text = html.unescape(render_report(facts))
    assert "Needs a person's approval: “parity” did not pass." in text
    assert "failed, excepted" in text
    assert "excepted by Ann until 2025-06-30: it is being mended" in text
    failed = RuleResult("auc", 0.5, 0.7, "failed", "block", "0.5")
    refused = headline(Gate(False, False, (excepted, failed)), facts.use_case)
    assert refused.sentence == "Refused: “auc” failed."


def test_worst_slice_is_named_and_red() -> None:
    text = page()
    worst = worst_slices(measured().slices, "roc_auc", 1)[0]
    value = number(worst.metrics["roc_auc"].value)
    assert f'<strong class="red">{worst.column} = {worst.group}</strong>, {value}' in text
    assert re.search(rf'<td class="n red"><span[^>]*>{value}', text)


def test_metrics_stand_beside_interval_train_and_champion() -> None:
    text = page()
    figure = measured().metrics["roc_auc"]
    train = measured().train_metrics["roc_auc"]
    assert f"[{number(figure.low)}, {number(figure.high)}]" in text
    row = text[text.index("<tr><td>ROC AUC") :].split("</tr>")[0]
    assert number(train.value) in row
    assert "+0.0040" in row
    assert "2,480 test rows that neither has seen; intervals at 90.0%" in text


def test_not_computable_is_said_with_its_reason() -> None:
    missing = Estimate(None, reason="no row reaches the threshold")
    lacking = dataclasses.replace(
        measured(),
        metrics={**measured().metrics, "precision": missing},
        champion=dataclasses.replace(
            example.comparison(), differences={}, reason="only 12 test rows"
        ),
    )
    text = html.unescape(render_report(example.facts(measured=lacking)))
    assert "not computable: no row reaches the threshold" in text
    assert "champion v3 is not computable: only 12 test rows" in text


def test_report_shows_directions_likeness_and_slices_of_other_inputs() -> None:
    text = page().split("What moves the score")[1]
    assert "a rank correlation of <strong>0.912</strong>" in text
    assert "80.0% are the same" in text
    rows = re.findall(r"<tr[^>]*><td><code>(\w+)</code>.*creasing.*badge (\w+)", text)
    assert rows == [("amount_mean_90d", "good"), ("tenure_days", "bad"), ("visits", "soft")]
    assert "one value only" in text
    assert "<code>plan</code> 0.300" in text
    assert "+0.1667" in text  # 0.3 in the group, 0.1333 in all rows


def test_report_without_anything_optional_renders() -> None:
    bare = dataclasses.replace(
        measured(False),
        slices=(),
        stress=(),
        fairness=(),
        explanations=Explanation({}, (), None, ()),
        champion=None,
    )
    given = example.facts(gates=[auc(0.6)], measured=bare)
    training = dataclasses.replace(given.training, dropped_inputs={})
    text = render_report(dataclasses.replace(given, training=training, notes=()))
    assert "There is no champion to compare with." in text
    assert "declares no protected attribute" in text


def test_report_is_self_contained_and_shows_each_plot_once() -> None:
    given = example.facts(measured=measured())
    pictures = {name: name.encode() for name in ("roc", "fairness_region", "extra")}
    text = render_report(dataclasses.replace(given, plots=pictures))
    for picture in pictures.values():
        assert text.count(f"base64,{base64.b64encode(picture).decode()}") == 1
    assert not re.search(r"<script|<link|@import|(src|href)=\"(https?:)?//", text)
    assert 'href="evidently.html"' in text


def test_report_escapes_what_comes_from_outside() -> None:
    attack = "<script>alert(1)</script>"
    given = example.facts(measured=measured(), owner=attack)
    training = dataclasses.replace(given.training, dropped_inputs={attack: attack})
    text = render_report(dataclasses.replace(given, training=training))
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_report_of_same_facts_is_the_same() -> None:
    assert page() == page()


def document(evaluation: Evaluation) -> Any:
    gate = evaluate_gate(example.use_case().gates, evaluation)
    return json.loads(json.dumps(EvaluatedTraining(evaluation, gate).document(), allow_nan=False))


def test_evaluation_json_reads_back_as_it_was() -> None:
    evaluation = dataclasses.replace(
        example.evaluation(champion=example.comparison(), review_width=0.1),
        mitigation=example.mitigated(),
    )
    found = from_plain(EvaluatedTraining, document(evaluation))
    assert found.evaluation == evaluation
    assert found.gate == evaluate_gate(example.use_case().gates, evaluation)


def test_evaluation_json_holds_every_estimate() -> None:
    found = document(measured())["evaluation"]
    assert set(found["metrics"]["roc_auc"]) == {
        *("value", "low", "high", "reason"),
        *("lower", "upper", "by_chance"),
    }
    assert found["champion"]["differences"]["brier"]["value"] == 0.004
    assert found["fairness"][0]["groups"][0]["selection_rate"]["value"] > 0
    worst = worst_slices(measured().slices, "brier", 1)[0]
    assert found["worst_slices"]["brier"]["group"] == worst.group


def test_worst_slices_follow_the_direction_of_the_metric() -> None:
    values = [item.metrics["brier"].value for item in worst_slices(measured().slices, "brier", 3)]
    everything = [item.metrics["brier"].value or 0.0 for item in measured().slices]
    assert values == sorted(everything, reverse=True)[:3]
    assert worst_slices([], "brier") == []


def test_parity_limit_is_the_strictest_that_applies() -> None:
    rules = [
        {"rule": "demographic_parity", "at_most": 0.2},
        {"rule": "demographic_parity", "at_most": 0.1, "attributes": ["gender"]},
    ]
    assert parity_limits(example.use_case(rules)) == {"region": 0.2, "gender": 0.1}
    assert parity_limits(example.use_case([auc(0.5)])) == {}


@pytest.mark.parametrize(
    ("value", "plain", "with_sign"),
    [
        (None, "–", "–"),  # noqa: RUF001 # the dash is what is tested
        (0.0, "0.0000", "0.0000"),
        (-0.00001, "0.0000", "0.0000"),
        (0.12345, "0.1235", "+0.1235"),
        (-0.5, "\N{MINUS SIGN}0.5000", "\N{MINUS SIGN}0.5000"),
        (123.456, "123.46", "+123.46"),
        (12345.6, "12,346", "+12,346"),
    ],
)
def test_numbers_read_well(value: float | None, plain: str, with_sign: str) -> None:
    assert (number(value), signed(value)) == (plain, with_sign)


def test_shares_read_well() -> None:
    assert [share(value) for value in (0.0, 0.0012, 0.081, 1.0)] == [
        "0.0%",
        "0.12%",
        "8.1%",
        "100.0%",
    ]


# mitigation and human review


def test_report_lists_base_and_variants_with_figures_of_both_parts() -> None:
    evaluation = dataclasses.replace(measured(), mitigation=example.mitigated())
    text = html.unescape(render_report(example.facts(measured=evaluation)))
    section = text[text.index("Mitigation of region") :].split("</section>")[0]
    rows = [re.sub(r"<[^>]+>|\s+", " ", row) for row in section.split("<tr")[2:]]
    names = ["base", "grid_search 3 of 4", "on the test part", "reweighing"]
    for name, row in zip(names, rows, strict=True):
        assert name in row
    assert "chosen" in rows[1]
    assert "0.2718" in rows[1]
    assert "0.029" in rows[1]
    assert "0.031" in rows[2]
    assert "region is not computable" in rows[3]


def test_report_of_a_refused_variant_does_not_name_it_at_the_top() -> None:
    evaluation = dataclasses.replace(measured(), mitigation=example.mitigated())
    text = render_report(example.facts(measured=evaluation, gates=[auc(0.99)]))
    assert "mitigated by" not in text


def test_report_of_an_accepted_variant_names_it_at_the_top() -> None:
    evaluation = dataclasses.replace(measured(), mitigation=example.mitigated())
    rules = [{"rule": "metric", "metric": "roc_auc", "at_least": 0.6}]
    text = html.unescape(render_report(example.facts(measured=evaluation, gates=rules)))
    assert "mitigated by <strong>grid_search 3 of 4</strong>" in text


def test_report_shows_the_review_band() -> None:
    evaluation = example.evaluation(review_width=0.1)
    text = html.unescape(render_report(example.facts(measured=evaluation)))
    band = evaluation.review_band
    assert band is not None
    assert f"{share(band.share)} of the rows lie between 0.1500 and 0.2500" in text
    assert number(band.inside["error_rate"].value) in text


def test_evaluation_json_holds_mitigation_and_review_band() -> None:
    evaluation = dataclasses.replace(
        example.evaluation(review_width=0.1), mitigation=example.mitigated()
    )
    found = document(evaluation)["evaluation"]
    assert found["mitigation"]["chosen"] == "grid_search 3 of 4"
    assert {"because", "attributes", "limit", "variants", "chosen", "reason"} <= set(
        found["mitigation"]
    )
    keys = {"name", "method", "uses_attribute", "figures", "disparity", "passes", "chosen"}
    assert keys | {"reason"} <= set(found["mitigation"]["variants"][1])
    assert {"low", "high", "share", "automatic", "inside"} == set(found["review_band"])
    assert "decided" not in found
    assert document(measured())["evaluation"]["mitigation"] is None
