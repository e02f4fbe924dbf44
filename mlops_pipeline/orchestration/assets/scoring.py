"""batch_predictions, prediction_archive and fairness_audit: what the champion says, and how."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.orchestration.asset_run import BESIDE_SECONDS, asset_run, use_case_asset

if TYPE_CHECKING:
    from mlops_pipeline.core.fairness.parity import LiveAudit
    from mlops_pipeline.lifecycle.rollout_evidence import Looked

ARRIVES = "inputs_arrive"  # the asset check of `batch_predictions`
WITHIN_LIMITS = "fairness_within_limits"  # the asset check of `fairness_audit`


class ScoredPeriod(dg.Config):
    """Run config of `batch_predictions`: an ISO date (default: the newest), a version on trial."""

    period: str | None = None
    version: int | None = None


def scoring_assets(use_case: UseCase) -> list[dg.AssetsDefinition]:
    """Return predictions, and their audit where there is an attribute to audit."""
    audits = [_fairness_audit(use_case)] if use_case.protected else []
    return [
        _batch_predictions(use_case),
        _prediction_archive(use_case),
        _rollout_evidence(use_case),
        *audits,
    ]


def _rollout_evidence(use_case: UseCase) -> dg.AssetsDefinition:
    @use_case_asset(
        use_case,
        "rollout_evidence",
        group="serving",
        kinds={"scipy"},
        description="What the logged answers say about the version in trial: every guardrail, and "
        "what follows: the next stage, waiting, or the end. Also about a champion that its first "
        "complete labels have not judged yet.",
        after=("deployment", "validated_data"),
    )
    def rollout_evidence(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        from mlops_pipeline.lifecycle.rollout_evidence import look_at_rollout

        with asset_run(context, use_case, wait_s=BESIDE_SECONDS) as run:
            looked = look_at_rollout(run)
            return dg.MaterializeResult(metadata=_look_metadata(looked))

    return rollout_evidence


def _prediction_archive(use_case: UseCase) -> dg.AssetsDefinition:
    @use_case_asset(
        use_case,
        "prediction_archive",
        group="serving",
        kinds={"delta"},
        description="Every answer of the log of predictions, of the service and of batches, in "
        "the lake, each once; answers that are old and are in the lake leave the log.",
        after=("batch_predictions",),
    )
    def prediction_archive(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        from mlops_pipeline.lifecycle.archive import archive_predictions

        with asset_run(context, use_case, wait_s=BESIDE_SECONDS) as run:
            done = archive_predictions(run, run.lease.check)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": done.total,
                "rows_written": done.rows,
                "shadow_scores_written": done.shadows,
                "rows_removed_from_log": done.removed,
            }
        )

    return prediction_archive


def _look_metadata(looked: "Looked") -> dict[str, Any]:
    """Return the sentence, every guardrail, what was decided otherwise, the evidence over time."""
    from mlops_pipeline.core.rollout.guardrails import GUARDRAILS
    from mlops_pipeline.orchestration.assets.model import picture

    if looked.step is None:
        return {"verdict": looked.sentence}
    found, agreed = looked.document, looked.document["agreement"]
    flips = [
        dg.TableRecord({"column": column, "group": group, **counts})
        for column, groups in agreed["flips"].items()
        for group, counts in groups.items()
    ]
    return {
        "verdict": looked.sentence,
        "step": looked.step.event or "wait",
        **{name: found[name] for name in ("version", "stage", "requests", "unpaired")},
        "guardrails": dg.MetadataValue.table(
            [
                dg.TableRecord(
                    {
                        **result,
                        "needed": result["needed"] or "",
                        "means": GUARDRAILS[result["name"]].text,
                    }
                )
                for result in found["results"]
            ]
        ),
        **{name: agreed[name] for name in ("same", "difference") if agreed[name] is not None},
        **{
            f"expected_auc_{who}": agreed[who]["roc_auc"]
            for who in ("champion", "challenger")
            if agreed[who]["roc_auc"] is not None
        },
        **({"decided_otherwise": dg.MetadataValue.table(flips)} if flips else {}),
        "evidence": picture(looked.plot),
    }


def _batch_predictions(use_case: UseCase) -> dg.AssetsDefinition:
    key = dg.AssetKey([use_case.name, "batch_predictions"])

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
        check_specs=[
            dg.AssetCheckSpec(
                ARRIVES,
                asset=key,
                description="No input of the model lacks many more, or fewer, values than in "
                "training.",
            )
        ],
    )
    def batch_predictions(
        context: dg.AssetExecutionContext, config: ScoredPeriod
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[Any]]:
        from mlops_pipeline.core.evaluation.evaluation import missing_words
        from mlops_pipeline.lifecycle.predictions import predict_batch

        with asset_run(context, use_case, wait_s=BESIDE_SECONDS) as run:
            scored = predict_batch(run, config.period, config.version)
            changed = scored.changed(use_case)
            yield dg.AssetCheckResult(
                asset_key=key,
                check_name=ARRIVES,
                passed=not changed,
                severity=dg.AssetCheckSeverity.WARN,
                description=missing_words(changed) or "missing values are as in training",
            )
            yield dg.MaterializeResult(
                data_version=dg.DataVersion(f"{scored.period}-v{scored.version}"),
                metadata={
                    "dagster/row_count": scored.rows,
                    "period": scored.period,
                    "model_version": scored.version,
                    "positive_decisions": scored.positives,
                    "for_decisions": config.version is None,
                    "newly_scored": scored.is_new,
                },
            )

    return batch_predictions


def _fairness_audit(use_case: UseCase) -> dg.AssetsDefinition:
    key = dg.AssetKey([use_case.name, "fairness_audit"])

    @use_case_asset(
        use_case,
        "fairness_audit",
        group="monitoring",
        kinds={"fairlearn"},
        description="The champion's live decisions by protected attribute: selection rates of "
        "every scored row; TPR, FPR, precision and calibration of those whose label is known by "
        "now. A difference above the limit raises an alert.",
        after=("batch_predictions",),
        check_specs=[
            dg.AssetCheckSpec(
                WITHIN_LIMITS,
                asset=key,
                description="Selection rates of live decisions differ by no more than "
                f"{use_case.fairness.demographic_parity_at_most:g} between groups.",
            )
        ],
    )
    def fairness_audit(
        context: dg.AssetExecutionContext,
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[Any]]:
        from mlops_pipeline.lifecycle.compliance.fairness_audits import audit_champion

        with asset_run(context, use_case, wait_s=BESIDE_SECONDS) as run:
            audited, file = audit_champion(run)
            yield dg.AssetCheckResult(
                asset_key=key,
                check_name=WITHIN_LIMITS,
                passed=audited.action == "within_limits",
                severity=dg.AssetCheckSeverity.WARN,
                description=audited.sentence,
            )
            yield dg.MaterializeResult(
                metadata={**_audit_metadata(audited), "file": dg.MetadataValue.path(str(file))}
            )

    return fairness_audit


def _audit_metadata(audited: "LiveAudit") -> dict[str, Any]:
    """Return the outcome, the disparities of every attribute, and a plot of each single one."""
    from mlops_pipeline.core.documents.pages import singles
    from mlops_pipeline.core.documents.plots import selection_plot
    from mlops_pipeline.core.fairness.disparities import DISPARITIES
    from mlops_pipeline.orchestration.assets.model import picture

    figures = [
        {
            "attribute": audit.attribute,
            **{name: _text(getattr(audit, name)) for name in DISPARITIES},
        }
        for audit in audited.audits
    ]
    table = dg.MetadataValue.table([*map(dg.TableRecord, figures)]) if figures else None
    return {
        "verdict": audited.sentence,
        "dagster/row_count": audited.rows,
        "labelled_rows": audited.labelled,
        **({"disparities": table} if table is not None else {}),
        **{
            audit.attribute: picture(selection_plot(audit, audited.limit))
            for audit in singles(audited.audits)
        },
    }


def _text(estimate: Any) -> str:
    if estimate.value is None:
        return f"not computable: {estimate.reason}"
    interval = "" if estimate.low is None else f" [{estimate.low:.4f}, {estimate.high:.4f}]"
    return f"{estimate.value:.4f}{interval}"
