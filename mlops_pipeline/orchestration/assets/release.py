"""registry_entry and deployment of a use case."""

from collections.abc import Iterator
from typing import Any, Literal

import dagster as dg

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.orchestration.asset_run import asset_run, use_case_asset


class OnRejection(dg.Config):
    """Run config of `registry_entry`: `keep` leaves a refused run green, `fail` turns it red."""

    on_rejection: Literal["keep", "fail"] = "keep"


def release_assets(use_case: UseCase) -> list[dg.AssetsDefinition]:
    """Return the assets from a passed gate to a deployed champion."""
    return [_registry_entry(use_case), _deployment(use_case)]


def _registry_entry(use_case: UseCase) -> dg.AssetsDefinition:
    @use_case_asset(
        use_case,
        "registry_entry",
        group="release",
        kinds={"mlflow"},
        description="Only if the gate lets it, otherwise skipped: refit on labelled rows, "
        "model version, metadata document, model card, contract test in a fresh process, "
        "`complete`, alias last.",
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
