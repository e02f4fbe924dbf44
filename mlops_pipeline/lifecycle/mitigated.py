"""Mitigation in the evaluation step, and where the chosen variant's files are.

    mitigated/       text and JSON of the variant that was evaluated, and recipe.json: how it is
                     fitted again

Beside `model/`, the base model's. The folder is there exactly when a variant took its place.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mlops_pipeline.core.data.frame import LabelledFrame
from mlops_pipeline.core.data.splits import split_frame
from mlops_pipeline.core.documents.records import TrainingFacts
from mlops_pipeline.core.evaluation.evaluation import Evaluation
from mlops_pipeline.core.evaluation.gates import Gate
from mlops_pipeline.core.fairness.fairness import GroupAudit
from mlops_pipeline.core.fairness.groups import Groups
from mlops_pipeline.core.fairness.variants import Mitigated
from mlops_pipeline.core.mitigation.methods import Candidate, Recipe
from mlops_pipeline.core.mitigation.mitigation import (
    Need,
    decision_figures,
    mitigate,
    mitigation_need,
)
from mlops_pipeline.core.modelling.scoring import Decisions, ScoringModel
from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.lifecycle.context import AcceptedSource, Context, Snapshot
from mlops_pipeline.lifecycle.features.offline import load_frame
from mlops_pipeline.lifecycle.trained import train_figures, write_json

FOLDER = "mitigated"


@dataclass(frozen=True)
class Judged:
    """The evaluation of a model on the test part, the gate's result, the decisions row by row."""

    evaluation: Evaluation
    gate: Gate
    decided: Decisions


def judge_training(
    context: Context,
    accepted: Mapping[str, AcceptedSource],
    folder: Path,
    facts: TrainingFacts,
    model: ScoringModel,
    *,
    test: LabelledFrame,
    judge: Callable[[TrainingFacts, ScoringModel], tuple[Evaluation, Gate, Decisions]],
) -> Judged:
    """Evaluate a training; when the gate refuses it on fairness only, mitigate it.

    One variant at most, chosen on the validation part, is then evaluated on the test part as the
    base model was. If the gate lets it pass, it takes the base model's place; if not, the refusal
    stands.

    Parameters
    ----------
    judge : callable
        Evaluates a model on the test part and holds the gate against it.
    """
    _remove(folder / FOLDER)
    base = Judged(*judge(facts, model))
    need = mitigation_need(context.use_case, base.gate)
    if need is None:
        return base
    outcome, chosen, facts = _mitigate(context, accepted, facts, model, need)
    outcome = _with_test(context, outcome, base, test)
    if chosen is None:
        return _recorded(base, outcome)
    variant = Judged(*judge(facts, chosen.model))
    outcome = _with_test(context, outcome, variant, test)
    if not variant.gate.passed:
        return _recorded(base, replace(outcome, reason=_refused_too(outcome, variant.gate)))
    _write(folder / FOLDER, chosen)
    return _recorded(variant, outcome)


def _mitigate(
    context: Context,
    accepted: Mapping[str, AcceptedSource],
    facts: TrainingFacts,
    model: ScoringModel,
    need: Need,
) -> tuple[Mitigated, Candidate | None, TrainingFacts]:
    """Return what was tried, the variant chosen, and the facts of a training that made it."""
    frame = load_frame(context, Snapshot(facts.as_of, accepted))
    parts = split_frame(context.use_case, frame)
    outcome, chosen = mitigate(
        *(context.use_case, model, frame, parts, need),
        importance=facts.importance,
        threads=context.settings.threads,
    )
    if chosen is not None:
        figures = train_figures(chosen.model, frame, parts, context.use_case.training.seed)
        facts = replace(facts, importance=dict(chosen.importance), train_metrics=figures)
    return outcome, chosen, facts


def _refused_too(outcome: Mitigated, gate: Gate) -> str:
    reasons = "; ".join(f"{rule.name}: {rule.reason}" for rule in gate.rules if rule.blocks)
    return f"{outcome.reason}; but on the test part the gate refuses it too: {reasons}"


def _recorded(judged: Judged, outcome: Mitigated) -> Judged:
    return replace(judged, evaluation=replace(judged.evaluation, mitigation=outcome))


def _with_test(
    context: Context, outcome: Mitigated, judged: Judged, test: LabelledFrame
) -> Mitigated:
    """Add the test figures of the base model, or of the chosen variant once it is evaluated."""
    decided, audits = judged.decided, judged.evaluation.fairness
    costs = context.use_case.training.costs
    figures = decision_figures(test.label, decided.probability, decided.threshold, costs)
    figures |= {f"disparity of {name}": _disparity(audits, name) for name in outcome.limits}
    is_chosen = outcome.variants[0].test is not None
    variants = tuple(
        replace(item, test=figures)
        if (item.chosen if is_chosen else item is outcome.variants[0])
        else item
        for item in outcome.variants
    )
    return replace(outcome, variants=variants)


def _disparity(audits: tuple[GroupAudit, ...], name: str) -> float | None:
    for audit in audits:
        if audit.attribute == name:
            return audit.demographic_parity_difference.value
    return None


def read_mitigated(folder: Path) -> tuple[ScoringModel, Recipe]:
    """Return the variant that took the base model's place.

    Raises
    ------
    NotFoundError
        When it is not there: an evaluation that came after was killed.
    """
    if not (folder / FOLDER).is_dir():
        raise NotFoundError(
            "the mitigated model's files are gone",
            where=str(folder / FOLDER),
            way_out="materialize evaluation_report again",
        )
    stored = json.loads((folder / FOLDER / "recipe.json").read_text(encoding="utf-8"))
    groups = stored["groups"]
    values = tuple(tuple(tuple(each) for each in group) for group in groups["values"])
    recipe = Recipe(
        method=stored["method"],
        groups=Groups(tuple(groups["attributes"]), values),
        multipliers=tuple(stored["multipliers"]),
    )
    return ScoringModel.read(folder / FOLDER), recipe


def _write(folder: Path, chosen: Candidate) -> None:
    partial = folder.with_suffix(".partial")
    _remove(partial)
    partial.mkdir()
    chosen.model.write(partial)
    write_json(partial / "recipe.json", asdict(chosen.recipe))
    partial.rename(folder)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
