from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mlops_pipeline.core.metrics.delong import delong_difference
from mlops_pipeline.core.metrics.references import ScoreReference, score_reference
from mlops_pipeline.core.rollout.evidence import Counts, GuardrailResult, Pairs, Rules
from mlops_pipeline.core.rollout.guardrails import GUARDRAILS, judge, judge_fast
from mlops_pipeline.core.rollout.sequential import mean_lower, share_lower, share_upper
from mlops_pipeline_tests.core.rollout.logged import alike, evidence, pairs, rules, scored

ALL = 4_000
RULES = rules()
SCORES = alike(ALL).champion.probability


def _judged(name: str, logged: Pairs, share: float = 0.0, terms: Rules = RULES) -> GuardrailResult:
    return next(one for one in judge(evidence(logged, share), terms) if one.name == name)


def _with_faults(share: float, champion: float = 0.0, **columns: Any) -> Pairs:
    """The first so many of 4,000 rows fail."""
    versions = [
        scored(SCORES, is_error=np.arange(ALL) < each * ALL, **columns)
        for each in (champion, share)
    ]
    return pairs(versions[0], versions[1])


def test_guardrails_use_all_of_alpha_and_no_more() -> None:
    assert sum(one.of_alpha for one in GUARDRAILS.values()) == pytest.approx(1)


def test_judge_in_shadow_leaves_out_what_compares_arms() -> None:
    gender = np.array(["f", "m"] * (ALL // 2), dtype=object)
    names = [one.name for one in judge(evidence(alike(ALL, protected={"gender": gender})), RULES)]

    arms = {"cost", "outcome_rate", "sample_ratio"}
    assert names == [name for name in GUARDRAILS if name not in arms]


def test_judge_of_the_same_version_is_ok_throughout() -> None:
    rng = np.random.default_rng(0)
    gender = np.array(["f", "m"] * (ALL // 2), dtype=object)
    arms = {"share": np.full(ALL, 0.25), "is_canary": rng.random(ALL) < 0.25}
    logged = alike(ALL, protected={"gender": gender}, **arms)

    results = judge(evidence(logged, 0.25), RULES)

    assert {one.name: one.outcome for one in results} == dict.fromkeys(GUARDRAILS, "ok")


def test_judge_without_a_request_waits_everywhere() -> None:
    logged = alike(0, protected={"gender": np.empty(0, dtype=object)})

    assert {one.outcome for one in judge(evidence(logged, 0.05), RULES)} == {"waiting"}


def test_error_rate_beyond_the_limit_is_harm_with_its_bounds() -> None:
    found = _judged("error_rate", _with_faults(0.05))

    alpha = 0.05 * GUARDRAILS["error_rate"].of_alpha / 2
    assert (found.outcome, found.value, found.limit, found.rows) == ("harm", 0.05, 0.01, ALL)
    assert found.lower == share_lower(200, ALL, alpha) > 0.01
    assert found.upper == share_upper(200, ALL, 1 - 0.95)
    assert found.reason.startswith("200 of 4,000 requests, at least ")


def test_error_rate_that_the_champion_shares_is_no_harm() -> None:
    found = _judged("error_rate", _with_faults(0.05, champion=0.05))

    assert found.outcome == "waiting"
    assert "the champion's is beyond it too" in found.reason


def test_error_rate_far_above_a_champion_beyond_the_limit_is_harm() -> None:
    assert _judged("error_rate", _with_faults(0.5, champion=0.05)).outcome == "harm"


def test_error_rate_of_few_requests_waits_for_those_that_would_do() -> None:
    logged = alike(100)
    found = _judged("error_rate", logged)

    assert (found.outcome, found.value, found.lower) == ("waiting", 0.0, 0.0)
    assert found.needed is not None
    assert share_upper(0, 100 + found.needed, 0.05) <= 0.01
    assert share_upper(0, 97 + found.needed, 0.05) > 0.01


def test_latency_counts_answers_that_were_timed() -> None:
    latency = np.full(ALL, -1)
    latency[:2_000] = np.where(np.arange(2_000) < 100, 200_001, 200_000)
    found = _judged("latency", pairs(SCORES, scored(SCORES, latency_us=latency)))

    assert (found.outcome, found.value, found.rows) == ("harm", 0.05, 2_000)


def test_default_rate_counts_rows_where_only_it_gives_the_default() -> None:
    ours, theirs = np.arange(ALL) < 800, np.arange(ALL) < 700
    logged = pairs(scored(SCORES, is_default=theirs), scored(SCORES, is_default=ours))

    assert _judged("default_rate", logged).value == 100 / ALL
    alone = pairs(scored(SCORES), scored(SCORES, is_default=ours))
    assert _judged("default_rate", alone).outcome == "harm"


def test_score_shift_beyond_the_limit_is_harm_unless_the_champions_is_too() -> None:
    shifted = np.sqrt(SCORES)

    alone = _judged("score_shift", pairs(SCORES, shifted))
    both = _judged("score_shift", pairs(shifted, shifted))

    assert alone.outcome == "harm"
    assert alone.lower is not None and 0.15 < alone.lower < 0.579  # noqa: PT018 # one statement
    assert both.outcome == "waiting"


def test_score_shift_counts_an_entitys_first_row() -> None:
    scores = np.where(np.arange(ALL) < ALL // 2, SCORES, 0.99)
    twice = np.array([f"e{row % (ALL // 2)}" for row in range(ALL)], dtype=object)

    assert _judged("score_shift", pairs(scores, scores, entity=twice)).rows == ALL // 2
    assert _judged("score_shift", pairs(scores, scores, entity=twice)).outcome == "ok"


@pytest.mark.parametrize("reference", [None, score_reference(np.empty(0))])
def test_score_shift_without_a_reference_is_not_computable(
    reference: ScoreReference | None,
) -> None:
    without = replace(evidence(alike(ALL)), challenger_reference=reference)
    found = next(one for one in judge(without, RULES) if one.name == "score_shift")

    assert (found.outcome, found.value) == ("not computable", None)


def test_score_shift_without_the_champions_reference_is_held_against_it() -> None:
    shifted = np.sqrt(SCORES)
    without = replace(evidence(pairs(shifted, shifted)), champion_reference=None)

    assert next(one for one in judge(without, RULES) if one.name == "score_shift").outcome == "harm"


def _worse(rows: int, noise: float) -> tuple[Pairs, NDArray[np.float64]]:
    rng = np.random.default_rng(3)
    logged = alike(rows)
    scores = (logged.champion.probability + rng.normal(0, noise, rows)).clip(0, 1)
    return replace(logged, challenger=scored(scores)), scores


def test_realised_of_a_worse_version_is_harm_with_the_difference_of_auc() -> None:
    logged, scores = _worse(20_000, 0.15)
    found = _judged("realised", logged)

    label = logged.label.astype(float)
    worse = (scores - label) ** 2 - (logged.champion.probability - label) ** 2
    alpha = 0.05 * GUARDRAILS["realised"].of_alpha
    assert found.outcome == "harm"
    assert found.value == pytest.approx(worse.mean())
    assert found.lower == pytest.approx(mean_lower(worse, alpha, most=1.0, effect=0.002))
    auc = 100 * (delong_difference(label, scores, logged.champion.probability).value or 0)
    assert f"AUC {auc:+.1f} points" in found.reason
    assert "so many tell a difference of" in found.reason


def test_realised_of_a_version_within_the_margin_is_ok_though_surely_worse() -> None:
    logged, _ = _worse(100_000, 0.025)
    found = _judged("realised", logged)

    assert found.lower is not None and found.lower > 0  # noqa: PT018 # one statement
    assert found.outcome == "ok"


def test_realised_of_few_rows_waits_for_as_many_as_are_then_enough() -> None:
    logged, _ = _worse(40_000, 0.01)
    few = _judged("realised", _head(logged, 400))

    assert few.outcome == "waiting"
    assert few.needed is not None
    # that many more are needed on average; twice as many are enough here
    assert _judged("realised", _head(logged, 400 + 2 * few.needed)).outcome == "ok"


def _head(logged: Pairs, rows: int) -> Pairs:
    entity = np.where(np.arange(len(logged)) < rows, logged.entity, logged.entity[0])
    return replace(logged, entity=entity)


def test_realised_before_any_label_says_how_many_are_needed() -> None:
    logged, _ = _worse(1_000, 0.01)
    logged = replace(logged, is_complete=np.zeros(1_000, dtype=bool))
    found = _judged("realised", logged)

    assert (found.outcome, found.rows, found.value) == ("waiting", 0, None)
    assert found.needed is not None
    assert 1_000 < found.needed < 3_000  # 3 / (0.9 x 0.002) where the scores are nearly alike


def test_realised_where_there_can_be_no_labels_says_why() -> None:
    unlabelled = replace(evidence(alike(ALL)), no_labels="the source of labels is gone")
    found = next(one for one in judge(unlabelled, RULES) if one.name == "realised")

    assert (found.outcome, found.reason) == ("not computable", "the source of labels is gone")


def test_realised_counts_complete_labels_only() -> None:
    """Positive labels come first: whoever counts what is there finds another model better."""
    logged, _ = _worse(2_000, 0.1)
    is_complete = np.arange(2_000) < 500
    early = replace(logged, is_complete=is_complete)
    changed = replace(early, label=np.where(is_complete, logged.label, 1).astype(np.int8))

    assert _judged("realised", early).rows == 500
    assert _judged("realised", early) == _judged("realised", changed)


def test_realised_leaves_out_and_counts_rows_that_one_did_not_score() -> None:
    scores = SCORES.copy()
    scores[:3] = np.nan
    found = _judged("realised", pairs(SCORES, scores))

    assert found.rows == ALL - 3
    assert "3 rows that one of them did not score are left out" in found.reason


def test_realised_with_labels_alike_says_that_auc_is_not_computable() -> None:
    found = _judged("realised", pairs(SCORES, SCORES))

    assert "AUC is not computable: all labels are alike" in found.reason


def test_judge_does_not_depend_on_the_order_of_equal_rows() -> None:
    logged = pairs(np.full(50, 0.2), np.full(50, 0.3), at_us=np.full(50, 7))
    other = replace(logged, entity=logged.entity[::-1])

    assert judge(evidence(logged), RULES) == judge(evidence(other), RULES)


def _arms(rows: int, share: float, **columns: Any) -> Pairs:
    is_canary = np.random.default_rng(5).random(rows) < share
    return alike(rows, share=np.full(rows, share), is_canary=is_canary, **columns)


def test_outcome_rate_of_changed_outcomes_is_harm() -> None:
    logged = _arms(20_000, 0.5)
    label = np.where(logged.is_canary, logged.label | (np.arange(20_000) % 5 == 0), logged.label)
    changed = replace(logged, label=label.astype(np.int8))

    found = _judged("outcome_rate", changed, 0.5)

    apart = changed.label[changed.is_canary].mean() - changed.label[~changed.is_canary].mean()
    assert found.outcome == "harm"
    assert found.value == pytest.approx(apart, abs=0.005)
    assert _judged("outcome_rate", logged, 0.5).outcome == "ok"


def test_outcome_rate_that_falls_is_harm_too() -> None:
    logged = _arms(40_000, 0.5, label=np.ones(40_000, dtype=np.int8))
    label = np.where(logged.is_canary, 0, 1).astype(np.int8)

    assert _judged("outcome_rate", replace(logged, label=label), 0.5).outcome == "harm"


def test_outcome_rate_of_a_world_that_changes_with_the_share_is_no_harm() -> None:
    """Twice as many outcomes when more are in the canary: the arms as such differ by 0.07."""
    rng = np.random.default_rng(6)
    share = np.repeat([0.05, 0.5], 10_000)
    label = (rng.random(20_000) < np.repeat([0.1, 0.3], 10_000)).astype(np.int8)
    logged = alike(20_000, share=share, is_canary=rng.random(20_000) < share, label=label)
    naive = label[logged.is_canary].mean() - label[~logged.is_canary].mean()

    found = _judged("outcome_rate", logged, 0.5)

    assert naive > 0.07
    assert found.outcome == "ok"
    assert found.lower is not None and found.lower < 0  # noqa: PT018 # one statement


def test_cost_of_a_version_that_selects_all_is_harm() -> None:
    logged = _arms(20_000, 0.5)
    selects = scored(SCORES[:1].repeat(20_000), decision=np.ones(20_000, dtype=bool))

    found = _judged("cost", replace(logged, challenger=selects), 0.5)

    positive = logged.label.mean()
    assert found.outcome == "harm"
    assert found.limit == pytest.approx(0.1 * 4 * positive, rel=0.2)  # the champion selects few
    assert found.value == pytest.approx((1 - positive) - 4 * positive, abs=0.05)
    assert _judged("cost", logged, 0.5).outcome == "ok"


def test_cost_without_complete_labels_waits() -> None:
    logged = _arms(500, 0.05, is_complete=np.zeros(500, dtype=bool))

    assert _judged("cost", logged, 0.05).outcome == "waiting"


def _selecting(champion: tuple[float, float], challenger: tuple[float, float]) -> Pairs:
    """Two groups of 2,000, of which each version selects so many."""
    gender = np.array(["f", "m"] * (ALL // 2), dtype=object)
    of_group = np.arange(ALL) // 2 / (ALL // 2)
    versions = [
        scored(SCORES, decision=of_group < np.tile(rates, ALL // 2))
        for rates in (champion, challenger)
    ]
    return pairs(versions[0], versions[1], protected={"gender": gender})


def test_fairness_beyond_the_limit_is_harm_unless_the_champion_is_too() -> None:
    alone = _judged("fairness", _selecting((0.2, 0.2), (0.2, 0.4)))
    both = _judged("fairness", _selecting((0.2, 0.3), (0.2, 0.4)))

    assert (alone.outcome, both.outcome) == ("harm", "ok")
    assert alone.value == pytest.approx(0.2, abs=0.002)
    assert alone.lower is not None and 0.05 < alone.lower < 0.2  # noqa: PT018 # one statement


def test_fairness_counts_entities_without_the_attribute() -> None:
    logged = _selecting((0.2, 0.2), (0.2, 0.2))
    gender = logged.protected["gender"].copy()
    gender[:1_000] = None
    found = _judged("fairness", replace(logged, protected={"gender": gender}))

    assert found.outcome == "ok"
    assert "1,000 of 4,000 entities without it" in found.reason


def test_fairness_without_any_attribute_value_is_not_computable() -> None:
    nothing = np.full(ALL, None, dtype=object)

    assert _judged("fairness", alike(ALL, protected={"g": nothing})).outcome == "not computable"


def test_fairness_of_small_groups_waits() -> None:
    gender = np.where(np.arange(ALL) < 50, "f", "m").astype(object)
    found = _judged("fairness", alike(ALL, protected={"gender": gender}))

    assert found.outcome == "waiting"
    assert "fewer than two groups of 100 entities" in found.reason


def test_sample_ratio_of_a_broken_assignment_waits_and_is_never_harm() -> None:
    logged = _arms(ALL, 0.25)

    assert _judged("sample_ratio", logged, 0.25).outcome == "ok"
    broken = replace(logged, is_canary=np.arange(ALL) % 2 == 0)
    found = _judged("sample_ratio", broken, 0.25)
    assert (found.outcome, found.value) == ("waiting", 0.5)
    assert "assignment is broken" in found.reason


def test_judge_fast_takes_a_failing_version_out_within_ten_requests() -> None:
    harmful = [
        requests
        for requests in range(1, 30)
        if judge_fast(1, Counts(requests, requests), Counts(requests), RULES.policy)[0].outcome
        == "harm"
    ]

    assert harmful == list(range(harmful[0], 30))
    assert harmful[0] <= 10


def test_judge_fast_names_the_guardrail_and_asks_more_of_later_windows() -> None:
    slow = Counts(requests=1_000, slow=35)

    first = judge_fast(1, slow, Counts(1_000), RULES.policy)
    later = judge_fast(100_000, slow, Counts(1_000), RULES.policy)

    outcomes = [(one.name, one.outcome) for one in first]
    assert [name for name, _ in outcomes] == ["error_rate", "latency", "default_rate"]
    assert dict(outcomes)["latency"] == "harm"
    assert later[1].outcome == "waiting"


def test_judge_fast_of_a_service_that_fails_as_a_whole_is_no_harm() -> None:
    failing = Counts(requests=200, errors=150)

    assert judge_fast(1, failing, failing, RULES.policy)[0].outcome == "waiting"


def test_judge_fast_over_many_windows_is_seldom_wrong() -> None:
    """A version exactly at a limit, looked at after each error of 300 windows."""
    rng = np.random.default_rng(8)
    wrong = 0
    for _ in range(40):
        for window in range(1, 30):
            errors = np.cumsum(rng.random(120) < 0.01)
            for requests in np.flatnonzero(np.diff(errors, prepend=1) > 0):
                counts = Counts(int(requests) + 1, int(errors[requests]))
                results = judge_fast(window, counts, Counts(120), RULES.policy)
                wrong += results[0].outcome == "harm"

    assert wrong == 0  # of 40 at most 0.05 x 0.08 x 0.5 each are expected: 0.08
