"""registry_entry and deployment of a use case."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import dagster as dg

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.orchestration.assets.describe import use_case_asset
from mlops_pipeline.orchestration.step import Step, asset_step


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
        from mlops_pipeline.errors import StateError
        from mlops_pipeline.lifecycle.evaluated import read_evaluation
        from mlops_pipeline.lifecycle.release_runs import refused_verdict, release_trained

        with asset_step(context, use_case) as step:
            trained = step.pointer("trained_model", "trained_model").value
            champion = step.ops.champion(use_case.name)
            stored = read_evaluation(Path(trained["folder"]))
            if not stored.gate.passed:
                verdict = refused_verdict(champion.version if champion else None, stored)
                context.log.warning(verdict)
                _finish(step, "refused", trained["fingerprint"], verdict)
                step.hold.let_go()  # deployment is skipped
                if config.on_rejection == "fail":
                    raise StateError(verdict, way_out="on_rejection: keep leaves the run green")
                return
            released = release_trained(
                step.work,
                trained,
                stored,
                champion_version=champion.version if champion else None,
                dagster_run_id=context.run_id,
                now=step.now,
            )
            step.set_pointer(
                "registry",
                {
                    "version": released.version,
                    "fingerprint": trained["fingerprint"],
                    "needs_review": stored.gate.needs_review,
                },
            )
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
        from mlops_pipeline.lifecycle.deployments import open_deployment

        with asset_step(context, use_case) as step:
            entry = step.pointer("registry", "registry_entry").value
            rollout = open_deployment(
                step.ops,
                step.settings,
                use_case,
                int(entry["version"]),
                needs_review=bool(entry["needs_review"]),
                now=step.now,
            )
            verdict = "champion" if rollout.state == "full" else rollout.state.replace("_", " ")
            context.log.info(f"version {rollout.version}: {rollout.state}; {rollout.reason}")
            _finish(step, verdict, str(entry["fingerprint"]), rollout.reason)
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


def _finish(step: Step, verdict: str, fingerprint: str, reason: str) -> None:
    """Write the lifecycle's end, when this run is a whole lifecycle."""
    started = step.ops.last_lifecycle(step.use_case.name)
    if started is not None and started.run_id == step.run_id:
        step.ops.finish_lifecycle(
            step.use_case.name,
            step.run_id,
            verdict=verdict,
            fingerprint=fingerprint,
            summary={"reason": reason},
            now=step.now,
        )
        _log_cost(step)
        _resolve_failures(step)
    step.ops.record_decision(
        step.use_case.name,
        "promotion",
        verdict,
        reason,
        {"fingerprint": fingerprint, "run_id": step.run_id},
        now=step.now,
        run_key=step.run_id,
    )


def _log_cost(step: Step) -> None:
    """Log to MLflow what the run cost up to here, and what the use case did: by finished assets."""
    from mlops_pipeline.lifecycle.costs import use_case_costs
    from mlops_pipeline.stores.models.tracking import open_tracking

    seconds = sum(step.ops.step_seconds(step.use_case.name, step.run_id).values())
    price = step.use_case.compute_cost
    unit_costs = use_case_costs(step.use_case, step.ops, step.work.lake).unit_costs
    open_tracking(step.settings, step.use_case.name).log(
        step.pointer("trained_model", "trained_model").value["mlflow_run_id"],
        metrics={
            "lifecycle_seconds": seconds,
            "lifecycle_cost": price.of(seconds),
            **{
                f"cost_{name}": figure.value
                for name, figure in unit_costs.items()
                if figure.value is not None
            },
        },
        tags={"cost_currency": price.currency, "owner": step.use_case.owner},
        now=step.now,
    )


def _resolve_failures(step: Step) -> None:
    for alert in step.ops.list_alerts(step.use_case.name, open_only=True):
        if alert.kind == "run_failed":
            step.ops.resolve_alert(
                step.use_case.name,
                alert.id,
                by=step.run_id,
                reason="a later lifecycle finished",
                now=step.now,
            )
