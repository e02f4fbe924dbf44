"""The recipe: step by step as the assets run it, and as a whole, as a reproduction does."""

import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.core import recipe
from mlops_pipeline.core.data.frame import LabelledFrame
from mlops_pipeline.core.mitigation.mitigation import mitigate
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline_tests.core.mitigation.test_mitigation import biased, fairness, world

NOW = datetime(2025, 6, 1, tzinfo=UTC)


ROWS = 3_000


def read(newest: int | None = None) -> LabelledFrame:
    assert newest is None
    return world().take(np.arange(ROWS))


def silent(text: str) -> None:
    assert text


def evaluated(case: UseCase) -> tuple[recipe.Examined, recipe.Final]:
    """Train, evaluate, mitigate and refit, as three assets do."""
    frame = read()
    parts, training = recipe.train_candidates(
        case, frame, threads=1, stopwatch=lambda: 0.0, report=silent
    )
    facts = recipe.training_facts(
        case, frame, parts, training, fingerprint="0123", as_of=datetime(2025, 1, 1, tzinfo=UTC)
    )
    model = training.chosen.model
    against = recipe.Examination(frame.take(parts.test), None, (), NOW)
    examined = recipe.evaluate(case, facts, model, against)
    examined = recipe.mitigate_refused(case, facts, model, against, examined, read=read, threads=1)
    variant = examined.variant
    final = recipe.refit_final(
        case,
        read,
        model if variant is None else variant.model,
        None if variant is None else variant.recipe,
        train_periods=len(parts.periods["train"]),
        threads=1,
    )
    return examined, final


def built(case: UseCase, examined: recipe.Examined) -> ScoringModel:
    """The same in one, by what the evaluation put on record."""
    return recipe.build(
        case,
        read,
        mitigation=examined.evaluation.mitigation,
        threads=1,
        stopwatch=lambda: 0.0,
        report=silent,
    ).model


@pytest.fixture(scope="module")
def case() -> UseCase:
    return biased(**fairness(methods=["group_thresholds"], margin=0.4))


@pytest.fixture(scope="module")
def unchanged(case: UseCase) -> tuple[recipe.Examined, recipe.Final]:
    return evaluated(case)


def test_steps_one_by_one_and_the_whole_give_the_same_bytes(
    case: UseCase, unchanged: tuple[recipe.Examined, recipe.Final]
) -> None:
    examined, final = unchanged
    assert examined.gate.passed
    assert examined.variant is not None
    assert final.rows == ROWS
    assert built(case, examined).files["model.json"] == final.model.files["model.json"]


def test_variant_in_the_place_of_the_model_keeps_both_figures_on_the_test_part(
    unchanged: tuple[recipe.Examined, recipe.Final],
) -> None:
    mitigation = unchanged[0].evaluation.mitigation
    assert mitigation is not None
    base, chosen = mitigation.variants[0], next(item for item in mitigation.variants if item.chosen)
    assert base.test is not None
    assert chosen.test is not None
    limit = mitigation.limits["region"]
    before, after = base.test["disparity of region"], chosen.test["disparity of region"]
    assert before is not None
    assert after is not None
    assert before > limit >= after


def test_variant_that_the_gate_refuses_too_leaves_the_refusal_and_says_why(
    case: UseCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[recipe.Examined] = []
    evaluate = recipe.evaluate

    def refusing(*given: Any) -> recipe.Examined:
        seen.append(evaluate(*given))
        return replace(seen[-1], gate=replace(seen[0].gate, passed=False))

    monkeypatch.setattr(recipe, "evaluate", refusing)
    examined, final = evaluated(case)
    assert len(seen) == 2
    assert not examined.gate.passed
    assert examined.variant is None
    assert examined.evaluation.metrics == seen[0].evaluation.metrics
    assert examined.evaluation.mitigation is not None
    assert "on the test part the gate refuses it too" in examined.evaluation.mitigation.reason
    assert "thresholds" not in final.model.document


def test_rows_read_are_let_go_before_variants_are_made(
    case: UseCase,
    unchanged: tuple[recipe.Examined, recipe.Final],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames: list[weakref.ref[LabelledFrame]] = []
    held: list[bool] = []
    reading = read

    def watched_read(newest: int | None = None) -> LabelledFrame:
        frame = reading(newest)
        frames.append(weakref.ref(frame))
        return frame

    def watched_mitigate(*given: Any, **named: Any) -> Any:
        held.append(frames[-1]() is not None)
        return mitigate(*given, **named)

    monkeypatch.setattr(sys.modules[__name__], "read", watched_read)
    monkeypatch.setattr(recipe, "mitigate", watched_mitigate)
    evaluated(case)
    built(case, unchanged[0])
    assert held == [False, False]


@pytest.mark.parametrize("step", ["train", "mitigate", "refit_variant", "split_frame"])
def test_change_of_a_step_changes_release_and_reproduction_alike(
    step: str,
    case: UseCase,
    unchanged: tuple[recipe.Examined, recipe.Final],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    examined, before = unchanged
    monkeypatch.setattr(recipe, step, _changed(step, getattr(recipe, step)))
    _, after = evaluated(case)
    assert after.model.files["model.json"] != before.model.files["model.json"]
    assert built(case, examined).files["model.json"] == after.model.files["model.json"]


def _changed(step: str, unchanged: Callable[..., Any]) -> Callable[..., Any]:
    """The step, whose outcome is another one."""

    def with_mark(model: ScoringModel) -> ScoringModel:
        return model.revised(threshold=0.123)

    def changed(*given: Any, **named: Any) -> Any:
        found = unchanged(*given, **named)
        if step == "train":
            only = replace(found.candidates[0], model=with_mark(found.candidates[0].model))
            return replace(found, candidates=(only,))
        if step == "mitigate":
            outcome, chosen = found
            return outcome, replace(chosen, model=with_mark(chosen.model))
        if step == "refit_variant":
            return with_mark(found)
        return replace(found, train=np.sort(found.train)[: len(found.train) // 2])

    return changed
