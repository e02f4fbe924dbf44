"""From a stored training with a passed gate to a registered version."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mlops_pipeline.core.data.frame import LabelledFrame
from mlops_pipeline.core.documents.metadata import Metadata
from mlops_pipeline.core.documents.records import EvaluatedTraining
from mlops_pipeline.core.mitigation.methods import Recipe, refit_variant
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.core.modelling.train import refit
from mlops_pipeline.lifecycle.context import AcceptedSource, Context, Snapshot
from mlops_pipeline.lifecycle.features.offline import load_frame
from mlops_pipeline.lifecycle.mitigated import read_mitigated
from mlops_pipeline.lifecycle.release import Release, read_metadata, register
from mlops_pipeline.lifecycle.trained import read_training
from mlops_pipeline.stores.models.registry import Registry
from mlops_pipeline.stores.models.tracking import open_tracking


@dataclass(frozen=True)
class Released:
    """A registered version with its documents."""

    version: int
    mlflow_run_id: str
    metadata: Metadata
    card: str


def refused_verdict(champion: int | None, stored: EvaluatedTraining) -> str:
    """Return the sentence that says what happens after a refusal, and why."""
    gate, tried = stored.gate, stored.evaluation.mitigation
    kept = f"champion kept (version {champion})" if champion else "no champion"
    reasons = "; ".join(f"{rule.name}: {rule.reason}" for rule in gate.rules if rule.blocks)
    mitigation = f". Mitigation: {tried.reason}" if tried else ""
    return f"the gate refused the model: {kept}. {reasons}{mitigation}"


def release_trained(
    context: Context,
    trained: Mapping[str, Any],
    stored: EvaluatedTraining,
    *,
    champion_version: int | None,
    dagster_run_id: str,
    now: datetime,
) -> Released:
    """Refit when the configuration says so, register, and return the version."""
    use_case = context.use_case
    folder = Path(trained["folder"])
    facts, model = read_training(folder)
    accepted = {name: AcceptedSource.from_dict(item) for name, item in trained["accepted"].items()}
    registry = Registry(open_tracking(context.settings, use_case.name), use_case.name)
    found = registry.find(facts.fingerprint)
    if found is None:
        tried = stored.evaluation.mitigation
        recipe = None
        if tried:  # the gate let a variant pass, not the model that was trained
            model, recipe = read_mitigated(folder)
        final = refitted(
            context,
            accepted,
            facts.as_of,
            model,
            train_periods=len(facts.parts["train"].periods),
            recipe=recipe,
        )
        release = Release(
            use_case=use_case,
            settings=context.settings,
            model=final.model,
            facts=facts,
            accepted=accepted,
            evaluation=stored.evaluation,
            folder=folder,
            mlflow_run_id=str(trained["mlflow_run_id"]),
            dagster_run_id=dagster_run_id,
            refit_rows=final.rows,
            mitigation=tried.chosen if tried else None,
            previous=champion_version,
        )
        found = register(registry, release, final.frame, now=now)
    metadata = read_metadata(found)
    card = Path(metadata.model_card_uri).read_text(encoding="utf-8")
    return Released(found.version, found.mlflow_run_id, metadata, card)


@dataclass(frozen=True)
class Refitted:
    """The model that is registered, the rows that were read for it, and how many it was fitted on.

    `rows` is None where the evaluated model itself is registered.
    """

    model: ScoringModel
    frame: LabelledFrame
    rows: int | None


def refitted(
    context: Context,
    accepted: Mapping[str, AcceptedSource],
    as_of: datetime,
    model: ScoringModel,
    *,
    train_periods: int,
    recipe: Recipe | None = None,
) -> Refitted:
    """Fit the evaluated model's recipe again, as `training.refit` says.

    Parameters
    ----------
    train_periods : int
        How many periods the evaluated model was trained on.
    recipe : Recipe, optional
        Of a mitigated model: the mitigation is repeated.
    """
    fitted_on = context.use_case.training.refit
    newest = train_periods if fitted_on == "newest" else None
    frame = load_frame(context, Snapshot(as_of, accepted), newest=newest)
    if fitted_on == "none":
        return Refitted(model, frame, None)
    threads = context.settings.threads
    if recipe is not None:
        again = refit_variant(context.use_case, frame, model, recipe, threads=threads)
    else:
        again = refit(context.use_case, frame, model, threads=threads)
    return Refitted(again, frame, len(frame))
