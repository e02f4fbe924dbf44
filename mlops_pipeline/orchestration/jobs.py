"""Jobs of a use case: lifecycle, online store, batch scoring, fairness audit, card review."""

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


def lifecycle_job(use_case: UseCase) -> Any:
    """Return `<use_case>_lifecycle`: from raw data to deployment."""
    return dg.define_asset_job(
        f"{use_case.name}_lifecycle",
        selection=[dg.AssetKey([use_case.name, name]) for name in LIFECYCLE],
        description=f"{use_case.description} From raw data to deployment; a refused model leaves "
        "the champion in place.",
        tags={"use_case": use_case.name, "mlops/kind": "lifecycle"},
    )


def materialize_job(use_case: UseCase) -> Any:
    """Return `<use_case>_materialize`: the newest features into the online store."""
    return dg.define_asset_job(
        f"{use_case.name}_materialize",
        selection=[dg.AssetKey([use_case.name, "online_features"])],
        description="Brings the online store up to the newest finished features.",
        tags={"use_case": use_case.name, "mlops/kind": "materialize"},
    )


def card_review_job(use_case: UseCase) -> dg.JobDefinition:
    """Return `<use_case>_card_review`: an alert when the champion's card is due for review."""

    @dg.op(name=f"{use_case.name}__card_review", required_resource_keys={"platform"})
    def card_review(context: dg.OpExecutionContext) -> None:
        from mlops_pipeline.stores.cards import remind_of_review
        from mlops_pipeline.stores.opsdb import OpsDatabase

        settings = context.resources.platform.settings()
        with OpsDatabase.open(settings.database_url) as ops:
            context.log.info(remind_of_review(ops, use_case, now=settings.now()))

    @dg.job(
        name=f"{use_case.name}_card_review",
        description="Raises an alert when nobody reviewed the champion's model card in time.",
        tags={"use_case": use_case.name, "mlops/kind": "card_review"},
    )
    def job() -> None:
        card_review()

    return job


def batch_score_job(use_case: UseCase) -> Any:
    """Return `<use_case>_batch_score`: the champion's scores of one period."""
    return dg.define_asset_job(
        f"{use_case.name}_batch_score",
        selection=[dg.AssetKey([use_case.name, "batch_predictions"])],
        description="Scores a period with the champion, idempotent by period.",
        tags={"use_case": use_case.name, "mlops/kind": "batch_score"},
    )


def fairness_audit_job(use_case: UseCase) -> Any:
    """Return `<use_case>_fairness_audit`: the champion's live decisions by group."""
    return dg.define_asset_job(
        f"{use_case.name}_fairness_audit",
        selection=[dg.AssetKey([use_case.name, "fairness_audit"])],
        description="Audits the champion's live decisions by protected attribute.",
        tags={"use_case": use_case.name, "mlops/kind": "fairness_audit"},
    )
