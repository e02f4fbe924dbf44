"""The one recipe of a model: train, evaluate, mitigate what the gate refuses, refit.

Rows in, a model out; nothing is read or written here. The assets call the steps one by one, with
stored results between them, and `build` runs them in their order: what is changed here changes for
training, release and reproduction alike. What a step does belongs to the rooms of core.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

import numpy as np

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.frame import (
    PARTS,
    LabelledFrame,
    Parts,
    missing_shares,
    split_frame,
)
from mlops_pipeline.core.documents.records import CandidateFacts, PartFacts, TrainingFacts
from mlops_pipeline.core.evaluation.evaluation import (
    Evaluation,
    compare_missing,
    compare_with_champion,
    compared_metrics,
    comparison_level,
    evaluate_model,
)
from mlops_pipeline.core.evaluation.gates import evaluate_gate
from mlops_pipeline.core.evaluation.naive import compare_naive, learn_naive, naive_columns
from mlops_pipeline.core.evaluation.outcomes import Gate
from mlops_pipeline.core.evaluation.records import GateException
from mlops_pipeline.core.fairness.variants import Mitigated, missed_targets
from mlops_pipeline.core.metrics.metrics import Estimate, point_metrics
from mlops_pipeline.core.mitigation.methods import (
    Candidate,
    MitigationContext,
    MitigationRecipe,
    MitigationTrigger,
)
from mlops_pipeline.core.mitigation.mitigation import (
    decision_figures,
    mitigate,
    mitigation_trigger,
    refit_variant,
)
from mlops_pipeline.core.modelling.explanations import explain_model
from mlops_pipeline.core.modelling.scoring import Decisions, ScoringModel
from mlops_pipeline.core.modelling.train import Training, refit, train

FIGURE_ROWS = 200_000  # of the training part, for its metrics: their error is far below any gap


class LabelledRows(Protocol):
    """Reads the labelled rows: all, or those of the newest periods. One frame is held at a time."""

    def __call__(self, newest: int | None = None) -> LabelledFrame:
        """Return the rows in their stable order."""
        ...


@dataclass(frozen=True)
class Champion:
    """The champion at the time of the evaluation, and the as_of it was trained at."""

    version: int
    as_of: datetime
    model: ScoringModel


@dataclass(frozen=True)
class Examination:
    """What a model is held against: the test part, the champion, exceptions in force at `now`."""

    test: LabelledFrame
    champion: Champion | None
    exceptions: Sequence[GateException]
    now: datetime


@dataclass(frozen=True)
class Examined:
    """An evaluation with its gate, and the decisions row by row.

    `variant` took the place of the model that the gate refused.
    """

    evaluation: Evaluation
    gate: Gate
    decided: Decisions
    variant: Candidate | None = None


@dataclass(frozen=True)
class Final:
    """The model that is registered, the rows read for it, and how many of them it was fitted on.

    `rows` is None where the evaluated model itself is registered.
    """

    model: ScoringModel
    frame: LabelledFrame
    rows: int | None


def train_candidates(
    use_case: UseCase,
    frame: LabelledFrame,
    *,
    threads: int,
    stopwatch: Callable[[], float],
    report: Callable[[str], None],
) -> tuple[Parts, Training]:
    """Split the rows, then fit, calibrate and compare every candidate."""
    parts = split_frame(use_case, frame)
    rows = ", ".join(f"{name} {count:,}" for name, count in parts.rows().items())
    report(f"{len(frame):,} labelled rows: {rows}; {parts.purged:,} purged")
    training = train(
        use_case,
        frame,
        parts,
        threads=threads,
        stopwatch=stopwatch,
        report=lambda item: report(
            f"{item.name}: validation log loss {item.validation_log_loss:.4f} "
            f"in {item.seconds:.1f} s"
        ),
    )
    report(f"chosen: {training.choice.name}, {training.choice.reason}")
    return parts, training


def training_facts(
    use_case: UseCase,
    frame: LabelledFrame,
    parts: Parts,
    training: Training,
    *,
    fingerprint: str,
    as_of: datetime,
) -> TrainingFacts:
    """Collect the facts of a finished training."""
    chosen = training.chosen
    return TrainingFacts(
        use_case=use_case.name,
        fingerprint=fingerprint,
        as_of=as_of,
        chosen=chosen.name,
        reason=training.choice.reason,
        candidates=tuple(
            CandidateFacts(
                name=item.name,
                kind=item.model.kind,
                trees=item.fitted.trees,
                seconds=item.seconds,
                validation_log_loss=item.validation_log_loss,
                validation={name: figure.value for name, figure in item.validation.items()},
            )
            for item in training.candidates
        ),
        parts={
            name: PartFacts(
                periods=parts.periods[name],
                rows=len(getattr(parts, name)),
                positive_rate=float(np.mean(frame.label[getattr(parts, name)])),
            )
            for name in PARTS
        },
        purged=parts.purged,
        labelled_rows=len(frame),
        dropped_inputs=dict(training.inputs.dropped),
        train_metrics=_metrics(chosen.model, _train_sample(use_case, frame, parts)),
        train_maxima={
            item["name"]: float(np.nanmax(np.abs(frame.columns[item["name"]][parts.train])))
            for item in chosen.model.document["inputs"]
            if item["type"] == "number"
        },
        train_missing=missing_shares(
            {
                item["name"]: frame.columns[item["name"]][parts.train]
                for item in chosen.model.document["inputs"]
            }
        ),
        importance=dict(chosen.fitted.importance),
        naive=tuple(
            learn_naive(
                name,
                {name: frame.columns[name][parts.train]} if name else {},
                frame.label[parts.train],
            )
            for name in naive_columns(use_case.gates)
        ),
    )


def _train_sample(use_case: UseCase, frame: LabelledFrame, parts: Parts) -> LabelledFrame:
    rng = np.random.default_rng(use_case.training.seed)
    return frame.take(np.sort(rng.permutation(parts.train)[:FIGURE_ROWS]))


def _metrics(model: ScoringModel, rows: LabelledFrame) -> Mapping[str, Estimate]:
    decided = model.decide(rows.everything)
    return point_metrics(rows.label, decided.probability, decided.threshold)


def evaluate(
    use_case: UseCase, facts: TrainingFacts, model: ScoringModel, against: Examination
) -> Examined:
    """Measure a model on the test part and hold the gate against it."""
    test, champion = against.test, against.champion
    comparison = None
    if champion is not None:
        trained_at = np.datetime64(champion.as_of.replace(tzinfo=None))
        comparison = compare_with_champion(
            use_case,
            champion.version,
            model,
            champion.model,
            test,
            unseen=test.known_at > trained_at,
            metrics=compared_metrics(use_case.gates),
            level=comparison_level(use_case.gates),
        )
    pair = None if champion is None else (champion.version, champion.model)
    evaluation, decided = evaluate_model(
        use_case,
        model,
        test,
        train_metrics=facts.train_metrics,
        train_maxima=facts.train_maxima,
        importance=facts.importance,
        champion=comparison,
        explanations=explain_model(use_case, model, test, champion=pair),
    )
    evaluation = replace(
        evaluation,
        missing=compare_missing(facts.train_missing, test.columns, test.entity),
        naive=compare_naive(use_case, facts.naive, test, decided),
    )
    gate = evaluate_gate(
        use_case.gates,
        evaluation,
        against.exceptions,
        now=against.now,
        is_staged=use_case.rollout.is_staged,
    )
    return Examined(evaluation, gate, decided)


def mitigate_refused(
    use_case: UseCase,
    facts: TrainingFacts,
    model: ScoringModel,
    against: Examination,
    refused: Examined,
    *,
    read: LabelledRows,
    threads: int,
) -> Examined:
    """Mitigate a model that the gate refused on fairness only; nothing is read for another.

    One variant at most, chosen on the validation part, is evaluated on the test part as the base
    model was. If the gate lets it pass, it takes the base model's place; if not, the refusal
    stands.
    """
    trigger = mitigation_trigger(use_case, refused.gate)
    if trigger is None:
        return refused
    frame = read()
    parts = split_frame(use_case, frame)
    context = MitigationContext(use_case, model, frame, parts, trigger, threads=threads)
    sample = _train_sample(use_case, frame, parts)
    del frame  # the fits and the evaluation need what was taken of it, no more
    outcome, chosen = mitigate(context, importance=facts.importance)
    outcome = _with_test_figures(use_case, outcome, 0, refused, against.test)
    if chosen is None:
        return _recorded(refused, outcome)
    train_metrics = _metrics(chosen.model, sample)
    facts = replace(facts, importance=dict(chosen.importance), train_metrics=train_metrics)
    del context, sample
    variant = evaluate(use_case, facts, chosen.model, against)
    position = next(at for at, item in enumerate(outcome.variants) if item.chosen)
    outcome = _with_test_figures(use_case, outcome, position, variant, against.test)
    on_test = {
        audit.attribute: audit.demographic_parity_difference
        for audit in variant.evaluation.fairness
    }
    outcome = replace(outcome, reason=outcome.reason + missed_targets(outcome, on_test))
    if not variant.gate.passed:
        blocking = (rule for rule in variant.gate.rules if rule.blocks)
        reasons = "; ".join(f"{rule.name}: {rule.reason}" for rule in blocking)
        reason = f"{outcome.reason}; but on the test part the gate refuses it too: {reasons}"
        return _recorded(refused, replace(outcome, reason=reason))
    return replace(_recorded(variant, outcome), variant=chosen)


def _recorded(examined: Examined, outcome: Mitigated) -> Examined:
    return replace(examined, evaluation=replace(examined.evaluation, mitigation=outcome))


def _with_test_figures(
    use_case: UseCase, outcome: Mitigated, position: int, examined: Examined, test: LabelledFrame
) -> Mitigated:
    """Add what the base model, or the chosen variant, did on the test part."""
    decided = examined.decided
    audits = {item.attribute: item for item in examined.evaluation.fairness}
    figures = decision_figures(
        test.label, decided.probability, decided.threshold, use_case.training.costs
    )
    for name in outcome.limits:
        audit = audits.get(name)
        disparity = audit.demographic_parity_difference.value if audit is not None else None
        figures[f"disparity of {name}"] = disparity
    variants = list(outcome.variants)
    variants[position] = replace(variants[position], test=figures)
    return replace(outcome, variants=tuple(variants))


def refit_final(
    use_case: UseCase,
    read: LabelledRows,
    model: ScoringModel,
    recipe: MitigationRecipe | None,
    *,
    train_periods: int,
    threads: int,
) -> Final:
    """Fit the evaluated model again, as `training.refit` says; a mitigation is repeated.

    `train_periods` is how many periods it was trained on.
    """
    fitted_on = use_case.training.refit
    frame = read(newest=train_periods if fitted_on == "newest" else None)
    if fitted_on == "none":
        return Final(model, frame, None)
    if recipe is not None:
        again = refit_variant(use_case, frame, model, recipe, threads=threads)
    else:
        again = refit(use_case, frame, model, threads=threads)
    return Final(again, frame, len(frame))


def build(
    use_case: UseCase,
    read: LabelledRows,
    *,
    mitigation: Mitigated | None,
    threads: int,
    stopwatch: Callable[[], float],
    report: Callable[[str], None],
) -> Final:
    """Run the whole recipe on rows of one as_of, with the mitigation that is on record, if any."""
    frame = read()
    parts, training = train_candidates(
        use_case, frame, threads=threads, stopwatch=stopwatch, report=report
    )
    model, recipe, context = training.chosen.model, None, None
    if mitigation is not None:
        trigger = MitigationTrigger(mitigation.because, mitigation.attributes, mitigation.limits)
        context = MitigationContext(use_case, model, frame, parts, trigger, threads=threads)
    del frame
    if context is not None:
        outcome, chosen = mitigate(context, importance={})
        report(f"mitigation: {outcome.reason}")
        if chosen is not None:
            model, recipe = chosen.model, chosen.recipe
        del context
    periods = len(parts.periods["train"])
    return refit_final(use_case, read, model, recipe, train_periods=periods, threads=threads)
