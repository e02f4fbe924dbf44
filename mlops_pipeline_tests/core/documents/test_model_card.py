"""The model card: what its sections say of hand-made documents of a version."""

import dataclasses
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from mlops_pipeline.config import load_use_case
from mlops_pipeline.core.documents.model_card import Standing, model_card
from mlops_pipeline.core.documents.pages import MINUS
from mlops_pipeline.core.documents.records import GroupThresholds, SourceFacts, from_plain
from mlops_pipeline.core.evaluation.evaluation import ReviewBand
from mlops_pipeline.core.evaluation.records import GateException
from mlops_pipeline.core.fairness.audit import GroupCalibration
from mlops_pipeline.core.fairness.variants import Mitigated, Variant
from mlops_pipeline.core.metrics.metrics import Estimate
from mlops_pipeline.core.modelling.explanations import AttributionComparison, DirectionCheck
from mlops_pipeline.core.monitoring.cost import CostSheet
from mlops_pipeline.stores.settings import PACKAGE_PARENT
from mlops_pipeline_tests.core.documents.card_example import (
    a_slice,
    audit,
    evaluation,
    explanation,
    facts,
    figure,
    gate,
    group,
    metadata,
    snapshot,
    training,
)
from mlops_pipeline_tests.core.documents.card_sections import SECTIONS, section


def test_card_has_every_section_in_order() -> None:
    assert re.findall(r"^## (.+)$", model_card(facts()), flags=re.M) == SECTIONS


def test_summary_says_what_for_whom_how_good_and_what_to_watch_for() -> None:
    card = model_card(facts())
    (summary,) = (part for part in card.split("\n\n") if part.startswith("This model"))
    for text in [
        "assigns every customer a probability",
        "Which customers leave within 90 days.",
        "Intended use: Ranking customers for a retention offer, once a month.",
        "On 1,000 cases it had not seen, it ranks well: a positive case (a row in bills within "
        "90 days) scores higher than a negative one in 81 of 100 pairs (ROC AUC 0.812, 95 % "
        "interval 0.790 to 0.830).",
        "Out of 1,000 typical cases, 80 are positive; the model selects 100, of which 40 are "
        "positive, and misses 40.",
        "Watch for: region: selection rates differ by 10.0 percentage points (a ratio of 0.70, "
        "below four fifths), more than the 5.0 allowed; it ranks worst for plan = basic (ROC AUC "
        "0.752); it suffers most in the stress case “out of range” (ROC AUC 0.600).",
    ]:
        assert text in summary, text


def test_card_of_an_event_grid_speaks_of_events_not_of_entities() -> None:
    fraud = load_use_case(PACKAGE_PARENT / "configs" / "fraud.yaml")
    written = snapshot({"transactions": SourceFacts(0, 10_000)})
    card = model_card(facts(use_case=fraud, snapshot=written))
    assert "This model assigns every row of transactions a probability." in card
    assert "For every row of transactions the model returns the probability of that" in card
    assert "A case is one row of transactions, at its own time." in card


@pytest.mark.parametrize(
    ("auc", "word"), [(0.55, "weakly"), (0.7, "acceptably"), (0.8, "well"), (0.95, "very well")]
)
def test_quality_in_words_follows_the_roc_auc(auc: float, word: str) -> None:
    measured = evaluation(metrics={"roc_auc": figure(auc)})
    assert f"it ranks {word}: " in model_card(facts(evaluation=measured))


def test_outcomes_are_whole_cases_that_add_up() -> None:
    text = section(model_card(facts()), "From probability to decision")
    assert "| selected | 40 | 60 (false positives) |" in text
    assert "| not selected | 40 (missed) | 860 |" in text


def test_outcomes_of_rare_events_use_more_cases() -> None:
    measured = evaluation(metrics={"selection_rate": figure(0.003)})
    text = model_card(facts(training=training(test_rate=0.002), evaluation=measured))
    assert (
        "Out of 10,000 typical cases, 20 are positive; the model selects 30, of which 10 are"
        in text
    )


def test_figures_under_a_hundredth_keep_two_digits() -> None:
    measured = evaluation(metrics={"brier": figure(0.00217, 0.00162, 0.0281)})
    assert "| Brier | 0.0022 (0.0016 to 0.0281) |" in model_card(facts(evaluation=measured))


def test_figure_that_is_not_computable_says_why_and_leaves_out_the_outcomes() -> None:
    measured = evaluation(metrics={"recall": figure(None)})
    card = model_card(facts(evaluation=measured))
    assert "| recall | not computable: no positive row | Share of the positive cases" in card
    assert "typical cases" not in card


def test_reading_compares_with_the_base_rate() -> None:
    text = section(model_card(facts()), "How good it is")
    assert "picking blindly gives 8.0%." in text
    assert "saying 8.0% for everyone gives 0.279." in text  # -.08 ln .08 - .92 ln .92
    assert "saying 8.0% for everyone gives 0.074." in text  # .08 x .92
    assert "| recall | 50.0% (45.0% to 55.0%) |" in text


def test_gate_shows_rules_in_plain_words_with_their_thresholds() -> None:
    rules = gate(
        ("roc_auc better than the champion by 0.02", "not computable", "review", "too few rows")
    )
    card = model_card(facts(gate=rules))
    assert (
        "| ROC AUC better than the champion by 0.02 | not computable | too few rows | a person "
        "must approve |"
    ) in card
    assert "the rule “ROC AUC better than the champion by 0.02” did not pass" in card


def test_data_tell_sources_versions_quarantine_and_periods() -> None:
    text = section(model_card(facts()), "Training data")
    for line in [
        "As of 2025-01-01: 9,821 cases with a known outcome, described by 2 inputs. A "
        "case is one customer at the start of a month.",
        "| bills | not provided | 1,204,551 | 312 | 4 |",
        "| train | fitting the candidates | 2024-01-01 to 2024-06-01 | 7,000 | 8.1% |",
        "| test | measuring, once | 2024-12-01 | 1,000 | 8.0% |",
        "321 cases between the parts were left out",
        "- input left out: fax (constant)",
    ]:
        assert line in text, line


def test_making_tells_candidates_choice_and_what_was_fitted_again() -> None:
    text = section(model_card(facts()), "How it was made")
    assert (
        "| boosted (chosen) | gradient-boosted decision trees (LightGBM) | 0.2400 | 0.8151 |"
        in text
    )
    assert "| floor | the base rate for everyone | 0.2800 | not computable |" in text
    assert "refitted on the 9,821 labelled cases" in text
    evaluated = metadata(training={"refit": "none", "rows": 7_000})
    assert "the model that was measured, unchanged" in model_card(facts(metadata=evaluated))


def test_threshold_that_is_not_the_costs_is_said() -> None:
    assert (
        "minimises the expected cost when a false positive costs 1 and a false negative 4."
        in model_card(facts())
    )
    groups = ((("east",), ("west",)), (("south",),))
    rule = GroupThresholds("by_group", (0.18, 0.31), ("region",), groups)
    model = dataclasses.replace(facts().model, threshold=0.31, thresholds=rule)
    card = model_card(facts(model=model))
    assert "(false positive 1, false negative 4) would give 0.200." in card
    assert "Where region is known" in card
    assert ": east or west 0.180, south 0.310. Deciding requires knowing the group." in card
    rule = dataclasses.replace(rule, kind="by_estimated_group")
    card = model_card(facts(model=dataclasses.replace(model, thresholds=rule)))
    assert "has its own threshold, from 0.180 to 0.310: the mean of the groups' thresholds" in card
    assert "Cases with a probability" not in card
    assert (
        "Without case-specific thresholds, cases with a probability of at least 0.310 would be"
        in card
    )


def test_slices_are_ordered_by_roc_auc_and_skip_what_is_not_computable() -> None:
    slices = [a_slice("plan", str(i), auc) for i, auc in enumerate([0.8, None, 0.7, 0.8122])]
    text = section(model_card(facts(evaluation=evaluation(slices=slices))), "Where it is weaker")
    shown = re.findall(r"^\| plan = (\d) \| 400 \| 10.0% \| .* \| (\S+) \|$", text, flags=re.M)
    assert shown == [("2", f"{MINUS}0.112"), ("0", f"{MINUS}0.012"), ("3", "0.000")]


def test_ranges_are_explained_where_there_are_some() -> None:
    hint = "(1, 2] means above 1 and up to 2."
    assert hint not in model_card(facts())
    slices = [a_slice("tenure", "(30, 90]", 0.7)]
    assert hint in model_card(facts(evaluation=evaluation(slices=slices)))


def test_stress_cases_are_ordered_by_what_they_cost() -> None:
    text = section(model_card(facts()), "Limitations found by stress cases")
    assert text.index("out of range") < text.index("view billing arrives empty")
    assert f"| view billing arrives empty | 400 | 0.710 | {MINUS}0.102 |" in text


def test_fairness_holds_each_attribute_against_the_limit() -> None:
    text = section(model_card(facts()), "Fairness")
    below = "(a ratio of 0.70, below four fifths)"
    for attribute, gap, word in (("region", "10.0", "more than"), ("gender", "1.2", "within")):
        expected = f"{attribute}: selection rates differ by {gap} percentage points {below}, {word}"
        assert f"- {expected} the 5.0 allowed" in text
    fair = audit("region", 0.01, ratio=0.8)
    text = section(model_card(facts(evaluation=evaluation(fairness=[fair]))), "Fairness")
    assert "differ by 1.0 percentage points, within the 5.0 allowed" in text
    assert "The model is not given these attributes." in text
    assert "| a | 500 | 10.0% | 50.0% | 5.0% | 40.0% |" in text
    assert "calibration error" not in text
    assert "None recorded." in text


def test_fairness_of_an_intersection_shows_the_groups_furthest_apart() -> None:
    crossed = audit(
        "gender x region",
        0.3,
        *(group(name, rate) for name, rate in [("b", 0.2), ("c", None), ("a", 0.1), ("d", 0.4)]),
    )
    text = section(model_card(facts(evaluation=evaluation(fairness=[crossed]))), "Fairness")
    assert "### By gender x region: the two furthest apart" in text
    assert re.findall(r"^\| ([a-d]) \| 500", text, flags=re.M) == ["a", "d"]
    assert "- gender x region: selection rates differ by 30.0 percentage points\n" in text


def test_fairness_shows_calibration_of_groups_and_why_one_is_left_out() -> None:
    measured = GroupCalibration(*[figure(0.03, 0.01, 0.05)] * 4)
    groups = [
        group("a", 0.1, calibration=measured),
        group("b", None, calibration=None, excluded="12 rows"),
    ]
    found = evaluation(fairness=[audit("region", None, *groups)])
    text = section(model_card(facts(evaluation=found)), "Fairness")
    assert "- region: not computable: no positive row" in text
    assert "| a | 500 | 10.0% | 50.0% | 5.0% | 40.0% | 0.030 |" in text
    assert "| b (12 rows) | 500 | not computable | 50.0% | 5.0% | 40.0% | not computable |" in text


def test_fairness_without_a_protected_attribute_says_so() -> None:
    text = section(model_card(facts(evaluation=evaluation(fairness=[]))), "Fairness")
    assert text.strip() == "No protected attribute is declared, so none was tested."


def test_exceptions_are_shown_with_reason_and_expiry() -> None:
    at, end = datetime(2025, 1, 11, tzinfo=UTC), datetime(2025, 6, 1, tzinfo=UTC)
    granted = GateException(
        1, "churn", "demographic_parity", "region", "Ann", "known", granted_at=at, expires_at=end
    )
    revoked = dataclasses.replace(
        granted, attribute=None, revoked_at=at, revoked_by="Ben", revocation="a mistake"
    )
    standing = Standing("champion", at, None, exceptions=[granted, revoked])
    text = section(model_card(facts(standing=standing)), "Fairness")
    said = "granted by Ann on 2025-01-11 until 2025-06-01: known"
    assert f"- demographic_parity (region): {said}\n" in text
    assert f"- demographic_parity: {said}; revoked by Ben on 2025-01-11: a mistake\n" in text


def test_mitigation_shows_every_variant_and_the_choice() -> None:
    given: dict[str, Any] = {"method": "reweighing", "uses_attribute": False, "disparity": 0.041}
    given["disparities"] = {"region": 0.041}
    base = Variant(**given, name="as it is", figures={"roc_auc": None}, reason="above the limit")
    fair = Variant(
        **given, name="reweighed", figures={"roc_auc": 0.8}, passes=True, chosen=True, reason=""
    )
    found = Mitigated(
        because="region 0.081",
        attributes=("region",),
        limit=0.05,
        limits={"region": 0.05},
        within={"region": 0.05},
        prefer="roc_auc",
        variants=(base, fair),
        chosen="reweighed",
        reason="the most accurate that passes",
    )
    card = model_card(facts(evaluation=evaluation(mitigation=found)))
    assert "used twice: for the model chosen first" in section(card, "How good it is")
    text = section(card, "Mitigation")
    for line in [
        "the gate refused the model on fairness only: region 0.081 (limit 0.050; region).",
        "| variant | method | ROC AUC | disparity | result |",
        "| as it is | reweighing | not computable | 0.041 | failed: above the limit |",
        "| reweighed (chosen) | reweighing | 0.800 | 0.041 | passed |",
        "Chosen: reweighed (the most accurate that passes).",
    ]:
        assert line in text, line


def test_explanations_show_shares_directions_and_the_champion() -> None:
    check = DirectionCheck("plan", "increasing", "mixed", 0.2, False, "falls above 3")
    champion = AttributionComparison(2, 1_500, 0.91, 0.8, None)
    unknown = DirectionCheck("visits", "increasing", None, None, None, "one value only")
    found = explanation(champion=champion, directions=(check, unknown))
    card = model_card(facts(evaluation=evaluation(explanations=found)))
    assert "plan is declared increasing, but the model goes against it" in card
    text = section(card, "What moves the score")
    assert "| amount_mean_90d | Monthly bill (EUR). | 75.0% |" in text
    assert "| plan | not provided | 25.0% |" in text
    assert "- plan: expected increasing, found mixed: failed (falls above 3)\n" in text
    assert "- visits: expected increasing: not computable (one value only)\n" in text
    assert (
        "Compared with version 2 on 1,500 cases, the rank correlation of input importance is 0.910"
        in text
    )
    found = explanation(champion=AttributionComparison(2, 0, None, None, "other inputs"))
    card = model_card(facts(evaluation=evaluation(explanations=found)))
    assert "was not compared with version 2: other inputs." in card


def test_model_without_inputs_says_so() -> None:
    assert "This model uses no inputs." in model_card(
        facts(evaluation=evaluation(explanations=explanation(shap={})))
    )


def test_review_band_and_cost_are_shown_where_they_are() -> None:
    band = ReviewBand(
        low=0.15,
        high=0.25,
        share=0.12,
        automatic={"error_rate": figure(0.05), "precision": figure(0.85)},
        inside={"error_rate": figure(0.45)},
    )
    cost = CostSheet(
        use_case="churn",
        owner="customer-analytics",
        currency="EUR",
        total=1.0,
        training_runs=1,
        per_training_run=Estimate(0.00001),
        predictions=10,
        per_1000_predictions=Estimate(0.0123),
        accepted=0,
        per_accepted_improvement=Estimate(None, reason="no version was accepted"),
    )
    standing = Standing("champion", datetime(2025, 1, 11, tzinfo=UTC), None, cost=cost)
    card = model_card(facts(evaluation=evaluation(review_band=band), standing=standing))
    text = section(card, "Human review")
    assert "Scores from 0.150 to 0.250 go to a person: 12.0% of the cases." in text
    assert "| error rate | 0.050 | 0.450 |" in text
    assert "| precision | 0.850 | not computable |" in text
    assert "| cost per training run so far | under 0.0001 EUR |" in card
    assert "| cost per 1,000 predictions so far | 0.0123 EUR |" in card
    assert "| cost per accepted version so far | not computable |" in card
    assert "| cost of fitting the candidates | 25.0 s, 0.0025 EUR |" in card


def test_calibration_compares_predicted_with_observed() -> None:
    text = section(model_card(facts()), "Can the probabilities be trusted")
    assert "calibrated (isotonic) on the validation part" in text
    assert "| 2.0% | 0.0% | 900 |\n| 20.0% | 25.0% | 100 |" in text


def test_origin_tells_licence_environment_and_commit() -> None:
    text = section(
        model_card(facts(case={"licence": "CC BY 4.0"})), "Licence, environment and cost"
    )
    for line in [
        "| licence | CC BY 4.0 |",
        "| commit | 0123abc |",
        "| libraries | lightgbm 4.6.0, numpy 2.3.1 |",
        "| hardware | Linux, x86_64, 2 threads |",
        f"| lock file (sha256) | {'ab' * 32} |",
    ]:
        assert line in text, line
    assert "| licence | not provided |" in model_card(facts())


def test_thresholds_by_estimated_group_are_facts_of_a_model() -> None:
    rule = {
        "kind": "by_estimated_group",
        "terms": ["amount"],
        "coefficients": [[0.5], [-0.5]],
        "intercepts": [0.1, -0.1],
        "limits": [0.2, 0.3],
    }
    facts = from_plain(GroupThresholds, rule)
    assert (facts.kind, facts.limits) == ("by_estimated_group", (0.2, 0.3))
