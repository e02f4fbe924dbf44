"""trained_model and evaluation_report of a use case."""

from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.orchestration.assets.describe import use_case_asset
from mlops_pipeline.orchestration.step import asset_step, mlflow_run


def model_assets(use_case: UseCase) -> list[dg.AssetsDefinition]:
    """Return the assets from features to a judged model."""
    return [_trained_model(use_case), _evaluation_report(use_case)]


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
        from mlops_pipeline.lifecycle.training_runs import train_and_store
        from mlops_pipeline.orchestration.assets.model_metadata import training_metadata

        with asset_step(context, use_case) as step:
            run = mlflow_run(context, use_case)
            as_of = datetime.fromisoformat(step.pointer("features", "features").value["as_of"])
            stored = train_and_store(
                step.work,
                step.accepted(),
                as_of,
                mlflow_run_id=run,
                now=step.now,
                report=context.log.info,
            )
            inputs = stored.training.chosen.model.input_names
            step.ops.record_feature_use(use_case.name, inputs, "training", now=step.now)
            step.set_pointer(
                "trained_model",
                {
                    "fingerprint": stored.facts.fingerprint,
                    "folder": str(stored.folder),
                    "as_of": stored.facts.as_of.isoformat(),
                    "mlflow_run_id": run,
                    "accepted": {name: item.to_dict() for name, item in step.accepted().items()},
                },
            )
            return dg.MaterializeResult(
                data_version=dg.DataVersion(stored.facts.fingerprint),
                metadata=training_metadata(stored, use_case.name),
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
        from mlops_pipeline.lifecycle.compliance.fairness_audits import tell_of_parity
        from mlops_pipeline.lifecycle.context import AcceptedSource
        from mlops_pipeline.lifecycle.costs import use_case_costs
        from mlops_pipeline.lifecycle.evaluation_runs import evaluate_and_store
        from mlops_pipeline.orchestration.assets.model_metadata import evaluation_metadata

        with asset_step(context, use_case) as step:
            trained = step.pointer("trained_model", "trained_model").value
            champion = step.ops.champion(use_case.name)
            judged = evaluate_and_store(
                step.work,
                {
                    name: AcceptedSource.from_dict(item)
                    for name, item in trained["accepted"].items()
                },
                Path(trained["folder"]),
                champion_version=champion.version if champion else None,
                exceptions=step.ops.list_exceptions(use_case.name),
                mlflow_run_id=trained["mlflow_run_id"],
                dagster_run_id=context.run_id,
                costs=use_case_costs(use_case, step.ops, step.work.lake),
                spent_s=sum(step.ops.step_seconds(use_case.name, context.run_id).values()),
                now=step.now,
            )
            step.set_pointer(
                "evaluation",
                {
                    "fingerprint": trained["fingerprint"],
                    "passed": judged.gate.passed,
                    "needs_review": judged.gate.needs_review,
                },
            )
            for rule in judged.gate.failed:
                context.log.warning(f"gate [{rule.effect}] {rule.name}: {rule.reason}")
            tell_of_parity(step.ops, use_case, judged.gate, run_id=context.run_id, now=step.now)
            return dg.MaterializeResult(
                data_version=dg.DataVersion(trained["fingerprint"]),
                metadata=evaluation_metadata(judged),
            )

    return evaluation_report
