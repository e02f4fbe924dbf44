"""fairness_audit of a use case: how the champion's live decisions treat groups."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.orchestration.asset_run import BESIDE_SECONDS, asset_run, use_case_asset

if TYPE_CHECKING:
    from mlops_pipeline.core.fairness.live_fairness import LiveAudit

WITHIN_LIMITS = "fairness_within_limits"  # the asset check of `fairness_audit`


def fairness_audit(use_case: UseCase) -> dg.AssetsDefinition:
    """Return the asset that audits live decisions by protected attribute."""
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
    def audit(
        context: dg.AssetExecutionContext,
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[Any]]:
        from mlops_pipeline.core.fairness.live_fairness import audit_decisions
        from mlops_pipeline.lifecycle.compliance.fairness_audits import (
            live_decisions,
            record_live_audit,
        )
        from mlops_pipeline.lifecycle.ingest.accepted import accepted_sources
        from mlops_pipeline.lifecycle.rollouts import find_champion

        with asset_run(context, use_case, wait_s=BESIDE_SECONDS) as run:
            champion, found = find_champion(run.ops, use_case.name), None
            if champion is not None:
                accepted = accepted_sources(run.ops, use_case)
                found = live_decisions(run, accepted, champion.version, now=run.now)
            audited = audit_decisions(use_case.fairness, found, seed=use_case.training.seed)
            file = record_live_audit(run, run.ops, audited, run_id=context.run_id, now=run.now)
            context.log.info(audited.sentence)
            yield dg.AssetCheckResult(
                asset_key=key,
                check_name=WITHIN_LIMITS,
                passed=audited.action == "within_limits",
                severity=dg.AssetCheckSeverity.WARN,
                description=audited.sentence,
            )
            yield dg.MaterializeResult(
                metadata={**_metadata(audited), "file": dg.MetadataValue.path(str(file))}
            )

    return audit


def _metadata(audited: "LiveAudit") -> dict[str, Any]:
    """Return the verdict, the disparities of every attribute, and a plot of each single one."""
    from mlops_pipeline.core.documents.plots import selection_plot
    from mlops_pipeline.core.documents.report import singles
    from mlops_pipeline.core.fairness.audit import DISPARITIES
    from mlops_pipeline.orchestration.assets.model import picture

    figures = [
        {
            "attribute": audit.attribute,
            **{name: _text(getattr(audit, name)) for name in DISPARITIES},
        }
        for audit in audited.audits
    ]
    return {
        "verdict": audited.sentence,
        "dagster/row_count": audited.rows,
        "labelled_rows": audited.labelled,
        **(
            {"disparities": dg.MetadataValue.table([*map(dg.TableRecord, figures)])}
            if figures
            else {}
        ),
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
