"""batch_predictions of a use case: the champion's scores of one period."""

from typing import Any

import dagster as dg

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.orchestration.asset_run import BESIDE_SECONDS, asset_run, use_case_asset


class ScoredPeriod(dg.Config):
    """Run config of `batch_predictions`.

    `period` is an ISO date, by default the newest; `version` makes trial scores of a version in
    staging instead of the champion's.
    """

    period: str | None = None
    version: int | None = None


def batch_predictions(use_case: UseCase) -> dg.AssetsDefinition:
    """Return the asset that scores a period with the champion."""

    @use_case_asset(
        use_case,
        "batch_predictions",
        group="serving",
        kinds={"delta", "lightgbm"},
        description="The champion's scores for every entity of a period. Scoring a period "
        "twice with one version changes nothing. A version in staging makes trial scores, in a "
        "table of their own.",
        after=(
            "features",
            "deployment",
        ),
    )
    def predictions(
        context: dg.AssetExecutionContext, config: ScoredPeriod
    ) -> dg.MaterializeResult[Any]:
        from mlops_pipeline.lifecycle.bookkeeping import record_feature_use
        from mlops_pipeline.lifecycle.champions import champion_model, trial_model
        from mlops_pipeline.lifecycle.predictions import score_period

        with asset_run(context, use_case, wait_s=BESIDE_SECONDS) as run:
            stores = (run.ops, run.settings, use_case)
            if config.version is None:
                version, model = champion_model(*stores, now=run.now)
            else:
                version = config.version
                model = trial_model(*stores, version, now=run.now)
            scored = score_period(
                run,
                model,
                version,
                config.period,
                run_id=context.run_id,
                is_trial=config.version is not None,
                now=run.now,
            )
            record_feature_use(
                run.ops, use_case.name, model.input_names, "batch_scoring", now=run.now
            )
            return dg.MaterializeResult(
                data_version=dg.DataVersion(f"{scored.period}-v{version}"),
                metadata={
                    "dagster/row_count": scored.rows,
                    "period": scored.period,
                    "model_version": version,
                    "positive_decisions": scored.positives,
                    "for_decisions": config.version is None,
                    "newly_scored": scored.is_new,
                },
            )

    return predictions
