"""trained_model and evaluation_report of a use case."""

from typing import Any

import dagster as dg

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.orchestration.asset_run import asset_run, mlflow_run, use_case_asset


def model_assets(use_case: UseCase) -> list[dg.AssetsDefinition]:
    """Return the assets from features to an evaluated model."""
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
        from mlops_pipeline.lifecycle.train import train_model
        from mlops_pipeline.orchestration.assets.model_metadata import training_metadata

        with asset_run(context, use_case) as run:
            stored = train_model(run, mlflow_run_id=mlflow_run(context, use_case))
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
        from mlops_pipeline.orchestration.assets.model_metadata import evaluation_metadata

        with asset_run(context, use_case) as run:
            evaluated = evaluate_model(run)
            return dg.MaterializeResult(
                data_version=dg.DataVersion(evaluated.fingerprint),
                metadata=evaluation_metadata(evaluated),
            )

    return evaluation_report
