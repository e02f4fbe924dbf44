"""Jobs of a use case: lifecycle, online store, batch scoring, fairness audit, card review.

They run in one process, which starts once and imports each heavy library once. For steps in
processes of their own:

    execution: {config: {multiprocess: {max_concurrent: 2}}}
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from mlops_pipeline.config.use_case import UseCase

LIFECYCLE = (
    "raw_data",
    "data_docs",
    "validated_data",
    "features",
    "online_features",
    "trained_model",
    "evaluation_report",
    "registry_entry",
    "deployment",
)
ASSETS: Mapping[str, tuple[Sequence[str], str]] = {  # by kind: what a job makes, and why
    "lifecycle": (
        LIFECYCLE,
        "From raw data to deployment; a refused model leaves the champion in place.",
    ),
    "materialize": (
        ("online_features",),
        "Brings the online store up to the newest accepted features.",
    ),
    "batch_score": (
        ("batch_predictions",),
        "Scores a period with the champion, idempotent by period.",
    ),
    "ingest": (
        ("raw_data", "validated_data"),
        "Brings in and accepts what the sources delivered, and nothing else: labels for a rollout.",
    ),
    "rollout": (
        ("rollout_evidence",),
        "Looks at the evidence about the version in trial, and lets its rollout follow.",
    ),
    "archive": (
        ("prediction_archive",),
        "Writes the log of predictions into the lake, and removes from it what is old.",
    ),
    "fairness_audit": (
        ("fairness_audit",),
        "Audits the champion's live decisions by protected attribute.",
    ),
}


def asset_job(use_case: UseCase, kind: str) -> Any:
    """Return `<use_case>_<kind>`, which materializes the assets of that kind."""
    assets, description = ASSETS[kind]
    return dg.define_asset_job(
        f"{use_case.name}_{kind}",
        selection=[dg.AssetKey([use_case.name, name]) for name in assets],
        description=f"{use_case.description} {description}",
        tags={"use_case": use_case.name, "mlops/kind": kind},
    )


def card_review_job(use_case: UseCase, platform: Any) -> dg.JobDefinition:
    """Return `<use_case>_card_review`: an alert when the champion's card is due for review.

    It is given its resource: to bind one later, Dagster would copy every sensor that has the job.
    """

    @dg.op(name=f"{use_case.name}__card_review", required_resource_keys={"platform"})
    def card_review(context: dg.OpExecutionContext) -> None:
        from mlops_pipeline.lifecycle.compliance.anchors import anchor_chain
        from mlops_pipeline.lifecycle.compliance.cards import remind_of_review
        from mlops_pipeline.stores.ops import OpsDatabase

        settings = context.resources.platform.settings()
        reason, now = f"run {context.run_id}", settings.now()
        with OpsDatabase.open(settings.database_url) as ops:
            context.log.info(remind_of_review(ops, use_case, now=now))
            anchor_chain(ops, settings, use_case, reason=reason, now=now)

    @dg.job(
        name=f"{use_case.name}_card_review",
        description="Raises an alert when nobody reviewed the champion's model card in time.",
        tags={"use_case": use_case.name, "mlops/kind": "card_review"},
        resource_defs={"platform": platform},
    )
    def job() -> None:
        card_review()

    return job


_MODES = dg.Selector(  # type: ignore[no-untyped-call] # it has no annotation
    {
        "in_process": dg.in_process_executor.config_schema.as_field(),
        "multiprocess": dg.multiprocess_executor.config_schema.as_field(),
    }
)


def _chosen(mode: dict[str, Any]) -> dict[str, Any]:
    return mode


# A fixed configuration would be the end of it: run config could not choose the other mode.
lifecycle_executor = dg.multi_or_in_process_executor.configured(
    _chosen,
    name="in_process_by_default",
    config_schema=dg.Field(_MODES, default_value={"in_process": {}}),
)
