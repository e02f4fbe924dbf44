from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from mlops_pipeline.core.rollout.evidence import Pairs, Rules
from mlops_pipeline.core.rollout.machine import TABLE
from mlops_pipeline.core.rollout.stages import (
    Progress,
    Step,
    labels_are_required,
    next_step,
    verdict,
)
from mlops_pipeline_tests.core.rollout.logged import OPENED, alike, evidence, rules, scored

DAY = timedelta(days=1)
ROWS = 12_000  # a row a minute: 8.3 days
REQUIRED = rules(evidence={"labels": "required"})
WHEN_COMPLETE = rules(evidence={"labels": "when_complete"})


def _progress(stage: int = 0, days: float = 9, delay: float = 5) -> Progress:
    now = OPENED + days * DAY
    return Progress(stage, OPENED, OPENED, now, label_delay=delay * DAY)


def _known(until: datetime, rows: int = ROWS) -> Pairs:
    """Rows of whom the label is complete up to a time."""
    logged = alike(rows)
    return replace(logged, is_complete=logged.at_us < until.timestamp() * 1e6)


def _step(logged: Pairs, progress: Progress, terms: Rules = REQUIRED) -> Step:
    return next_step(evidence(logged, terms.policy.stages[progress.stage].share), terms, progress)


def test_next_step_of_a_stage_whose_guardrails_are_ok_is_pass() -> None:
    step = _step(_known(OPENED + 4 * DAY), _progress())

    assert (step.event, step.needs) == ("pass", ())
    assert step.reason.startswith("stage shadow is passed: error_rate, latency, default_rate,")


def test_next_step_before_a_stage_that_a_person_approves_asks() -> None:
    rng = np.random.default_rng(0)
    logged = _known(OPENED + 4 * DAY)
    canary = rng.random(ROWS) < 0.05
    step = _step(replace(logged, share=np.full(ROWS, 0.05), is_canary=canary), _progress(stage=1))

    assert step.event == "ask"
    assert step.reason.endswith("a person approves 50 %")


def test_next_step_before_its_days_are_over_says_until_when() -> None:
    step = _step(_known(OPENED, rows=8_000), _progress(days=6.5))

    assert (step.event, step.needs) == (None, ())
    assert step.reason == "stage shadow: it lasts until 2026-01-08 00:00 at least"


def test_next_step_counts_the_requests_of_the_stage_only() -> None:
    entered = replace(_progress(), entered_at=OPENED + 8 * DAY, now=OPENED + 16 * DAY)
    few = alike(60 * 24 * 8 + 99)

    step = _step(few, entered)

    assert step.event is None
    assert step.reason == "stage shadow: 99 of at least 100 requests were answered in it"


def test_next_step_with_harm_is_a_breach_before_anything_else() -> None:
    logged = _known(OPENED)
    failing = scored(logged.champion.probability, is_error=np.arange(ROWS) % 10 == 0)
    for progress in (_progress(days=1), _progress(days=30)):
        step = _step(replace(logged, challenger=failing), progress)

        assert step.event == "breach"
        assert step.reason.startswith("error_rate: 1,200 of 12,000 requests")


def test_next_step_with_missing_labels_holds_and_says_how_many_are_needed() -> None:
    step = _step(_known(OPENED + 300 * timedelta(minutes=1)), _progress(delay=8.5))

    assert step.event == "miss"
    assert len(step.needs) == 1
    assert step.needs[0].startswith("realised (waiting): Brier score +0.00000")
    assert step.reason.endswith("more entities")


def test_next_step_without_what_it_needs_to_compute_holds() -> None:
    without = replace(evidence(_known(OPENED + 4 * DAY)), challenger_reference=None)
    step = next_step(without, REQUIRED, _progress())

    assert step.event == "miss"
    assert step.needs == ("score_shift (not computable): no scores on unseen rows are stored",)


def test_next_step_without_any_request_never_passes() -> None:
    terms = rules(stages=[{"share": 0}, {"share": 1}], evidence={"labels": "when_complete"})
    step = _step(alike(0), _progress(delay=90), terms)

    assert step.event == "miss"
    assert len(step.needs) == 4  # every one but the labels


def test_labels_when_complete_hold_nothing_before_they_can_be_there() -> None:
    nothing = _known(OPENED)

    assert _step(nothing, _progress(delay=9.5), WHEN_COMPLETE).event == "pass"
    assert _step(nothing, _progress(delay=9.5), REQUIRED).event == "miss"
    assert _step(nothing, _progress(delay=8.9), WHEN_COMPLETE).event == "miss"


def test_labels_that_stop_hold_and_are_named() -> None:
    """Labels are complete 5 days later; those of the last 2 days that are due are not there."""
    due = OPENED + 3 * DAY  # 9 days less 5, and one of grace
    for terms in (REQUIRED, WHEN_COMPLETE):
        step = _step(_known(due - DAY), _progress(), terms)
        assert step.event == "miss"
        assert step.needs == (
            "labels, which have stopped: of the newest 432 answers until 2026-01-04 00:00 only 0 "
            "have one",
        )
    assert _step(_known(due), _progress(), REQUIRED).event == "pass"
    monthly = replace(_progress(), grace=31 * DAY)
    assert _step(_known(due - DAY), monthly, REQUIRED).event == "pass"


def test_labels_that_there_cannot_be_are_said_once() -> None:
    unlabelled = replace(evidence(_known(OPENED)), no_labels="the source of labels is gone")

    step = next_step(unlabelled, REQUIRED, _progress())

    assert step.event == "miss"
    assert step.needs == ("realised (not computable): the source of labels is gone",)


@pytest.mark.parametrize(("delay", "is_required"), [(13, True), (14, False)])
def test_labels_are_required_where_they_come_within_the_stages(
    delay: float, is_required: bool
) -> None:
    assert labels_are_required(rules(), _progress(delay=delay)) is is_required
    assert labels_are_required(REQUIRED, _progress(delay=delay))
    assert not labels_are_required(WHEN_COMPLETE, _progress(delay=delay))


def _verdict(logged: Pairs, progress: Progress) -> Step:
    return verdict(evidence(replace(logged, share=np.ones(len(logged))), 1.0), REQUIRED, progress)


def test_verdict_of_complete_labels_is_pass() -> None:
    step = _verdict(_known(OPENED + 4 * DAY), _progress(stage=3))

    assert step.event == "pass"
    assert step.reason.startswith("the version stays: ")


def test_verdict_without_labels_waits() -> None:
    step = _verdict(_known(OPENED), _progress(stage=3, delay=20))

    assert step.event is None
    assert step.reason.startswith("the verdict waits for realised (waiting): no answer that both")


def test_verdict_of_worse_labels_is_a_breach() -> None:
    logged = _known(OPENED + 8 * DAY)
    worse = scored(np.sqrt(logged.champion.probability))
    step = _verdict(replace(logged, challenger=worse), _progress(stage=3))

    assert step.event == "breach"
    assert "realised: Brier score +0." in step.reason


def test_every_event_is_one_that_the_machine_takes() -> None:
    for event in ("breach", "miss", "pass", "ask"):
        assert ("running", event) in TABLE
        assert ("held", event) in TABLE
