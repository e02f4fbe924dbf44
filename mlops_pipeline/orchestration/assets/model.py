"""trained_model, evaluation_report, registry_entry and deployment of a use case."""

import base64
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.orchestration.asset_run import asset_run, mlflow_run, use_case_asset
from mlops_pipeline.spec.metrics import shown_in

if TYPE_CHECKING:
    from mlops_pipeline.lifecycle.evaluate import EvaluatedModel
    from mlops_pipeline.lifecycle.train import StoredTraining


class OnRejection(dg.Config):
    """Run config of `registry_entry`: `keep` leaves a refused run green, `fail` turns it red."""

    on_rejection: Literal["keep", "fail"] = "keep"


def model_assets(use_case: UseCase) -> list[dg.AssetsDefinition]:
    """Return the assets from features to an evaluated model."""
    return [_trained_model(use_case), _evaluation_report(use_case)]


def release_assets(use_case: UseCase) -> list[dg.AssetsDefinition]:
    """Return the assets from a passed gate to a deployed champion."""
    return [_registry_entry(use_case), _deployment(use_case)]


def _trained_model(use_case: UseCase) -> dg.AssetsDefinition:
    @use_case_asset(
        use_case,
        "trained_model",
        group="model",
        kinds={"lightgbm", "mlflow", "scikitlearn"},
        description="Every candidate, fitted on the train part, calibrated and compared on "
        "the validation part, as nested MLflow runs; the lowest validation log loss is chosen, "
        "on a tie the simpler.",
        after=("features",),
        mlflow=True,
    )
    def trained_model(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        from mlops_pipeline.lifecycle.train import train_model

        with asset_run(context, use_case) as run:
            stored = train_model(run, start_mlflow_run=partial(mlflow_run, context, use_case))
            return dg.MaterializeResult(
                data_version=dg.DataVersion(stored.facts.fingerprint),
                metadata=training_metadata(stored),
            )

    return trained_model


def _evaluation_report(use_case: UseCase) -> dg.AssetsDefinition:
    @use_case_asset(
        use_case,
        "evaluation_report",
        group="model",
        kinds={"evidently", "fairlearn", "shap"},
        description="The test part, touched once: metrics with 95 % intervals, slices, "
        "calibration, train/test gap, stress cases, SHAP, fairness, the comparison with the "
        "champion; then the gate, rule by rule, with reasons.",
        after=("trained_model",),
    )
    def evaluation_report(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        from mlops_pipeline.lifecycle.evaluate import evaluate_model

        with asset_run(context, use_case) as run:
            evaluated = evaluate_model(run)
            return dg.MaterializeResult(
                data_version=dg.DataVersion(evaluated.fingerprint),
                metadata=evaluation_metadata(evaluated),
            )

    return evaluation_report


def _registry_entry(use_case: UseCase) -> dg.AssetsDefinition:
    @use_case_asset(
        use_case,
        "registry_entry",
        group="release",
        kinds={"mlflow"},
        description="Only if the gate lets it, otherwise skipped: refit on labelled rows, "
        "model version, metadata document, model card, contract test in a fresh process, "
        "`complete`.",
        after=("evaluation_report",),
        output_required=False,
    )
    def registry_entry(
        context: dg.AssetExecutionContext, config: OnRejection
    ) -> Iterator[dg.MaterializeResult[Any]]:
        from mlops_pipeline.core.documents.records import plain
        from mlops_pipeline.lifecycle.release import release_model

        with asset_run(context, use_case) as run:
            released = release_model(run, must_pass=config.on_rejection == "fail")
            if released is None:
                return
            yield dg.MaterializeResult(
                data_version=dg.DataVersion(f"{use_case.name}-v{released.version}"),
                metadata={
                    "version": released.version,
                    "mlflow_run_id": released.mlflow_run_id,
                    "model_card": dg.MetadataValue.md(released.card),
                    "metadata": dg.MetadataValue.json(plain(released.metadata)),
                },
            )

    return registry_entry


def _deployment(use_case: UseCase) -> dg.AssetsDefinition:
    @use_case_asset(
        use_case,
        "deployment",
        group="release",
        kinds={"sqlalchemy"},
        description="Opens the rollout in the ops database. A version that needs a person "
        "waits for `mlops approve|reject`; another is champion at once. The rollout's state is "
        "the truth; MLflow aliases follow it.",
        after=("registry_entry",),
    )
    def deployment(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        from mlops_pipeline.lifecycle.release import deploy_model

        with asset_run(context, use_case) as run:
            rollout = deploy_model(run)
            return dg.MaterializeResult(
                data_version=dg.DataVersion(f"v{rollout.version}-{rollout.state}"),
                metadata={
                    "version": rollout.version,
                    "state": rollout.state,
                    "reason": rollout.reason,
                    **({"waiting_for": rollout.waiting_for} if rollout.waiting_for else {}),
                },
            )

    return deployment


def training_metadata(stored: "StoredTraining") -> dict[str, Any]:
    """Return what the UI shows of a training."""
    from mlops_pipeline.core.documents.records import plain

    facts = stored.facts
    table = [
        dg.TableRecord(
            {
                "candidate": item.name,
                "kind": item.kind,
                "validation_log_loss": round(item.validation_log_loss, 5),
                **{
                    name: round(value, 4)
                    for name, value in item.validation.items()
                    if value is not None and name in shown_in("interface")
                },
                "seconds": round(item.seconds, 2),
            }
        )
        for item in facts.candidates
    ]
    return {
        "chosen": facts.chosen,
        "reason": facts.reason,
        "candidates": dg.MetadataValue.table(_aligned(table)),
        "parts": dg.MetadataValue.json(plain(facts.parts)),
        "rows_purged": facts.purged,
        "cost": stored.cost,
        "fingerprint": facts.fingerprint,
        "mlflow_experiment": facts.use_case,
        "artifacts": dg.MetadataValue.path(str(stored.folder)),
        **{name.removesuffix(".png"): picture(content) for name, content in stored.plots.items()},
        **(
            {"dropped_inputs": dg.MetadataValue.json(dict(facts.dropped_inputs))}
            if facts.dropped_inputs
            else {}
        ),
    }


def evaluation_metadata(evaluated: "EvaluatedModel") -> dict[str, Any]:
    """Return what the UI shows of an evaluation: verdict, rules, figures, plots, report."""
    rules = [
        dg.TableRecord(
            {
                "rule": rule.name,
                "value": "" if rule.value is None else round(rule.value, 4),
                "threshold": rule.threshold,
                "verdict": rule.outcome,
                "effect": rule.effect,
                "reason": rule.reason,
            }
        )
        for rule in evaluated.gate.rules
    ]
    figures = {
        name: estimate.value
        for name, estimate in evaluated.evaluation.metrics.items()
        if estimate.value is not None
    }
    return {
        "verdict": evaluated.outcome,
        "gate": dg.MetadataValue.table(rules),
        **{name: value for name, value in figures.items() if name in shown_in("interface")},
        **{name: dg.MetadataValue.url(page) for name, page in evaluated.pages.items()},
        "files": dg.MetadataValue.path(str(evaluated.folder)),
        **{name: picture(content) for name, content in evaluated.plots.items()},
    }


def picture(png: bytes) -> dg.MarkdownMetadataValue:
    """Return a plot that the UI shows inline."""
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")


def _aligned(records: list[dg.TableRecord]) -> list[dg.TableRecord]:
    """Give every record the same columns."""
    columns = list(dict.fromkeys(name for record in records for name in record.data))
    return [
        dg.TableRecord({name: record.data.get(name, "") for name in columns}) for record in records
    ]
