"""Judgements of sources as Dagster check results and as the failure that refuses them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_pipeline.errors import ValidationError

if TYPE_CHECKING:
    from mlops_pipeline.lifecycle.ingest.validation import Judgement

TABLE_COLUMNS = ("rule", "passed", "value", "threshold", "rows", "reason")


def check_result(
    key: dg.AssetKey, name: str, judgement: "Judgement", examples: list[dict[str, Any]]
) -> dg.AssetCheckResult:
    """Return the check result of one source, with every rule's figures."""
    table = [
        dg.TableRecord(
            {
                column: "" if getattr(verdict, column) is None else getattr(verdict, column)
                for column in TABLE_COLUMNS
            }
        )
        for verdict in judgement.verdicts
    ]
    failed = [verdict.reason for verdict in judgement.verdicts if not verdict.passed]
    accepted = judgement.accepted
    metadata: dict[str, Any] = {
        "rows": accepted.rows,
        "quarantined": accepted.quarantined,
        "rules": dg.MetadataValue.table(table),
    }
    if examples:
        metadata["quarantined_examples"] = dg.MetadataValue.json(
            [{name: str(value) for name, value in row.items()} for row in examples]
        )
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=name,
        passed=judgement.passed,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(failed) or f"{accepted.rows:,} rows accepted",
        metadata=metadata,
    )


def refused(judgements: Sequence["Judgement"]) -> ValidationError:
    """Return the error of a run whose data were refused; the accepted pointer has not moved."""
    failed = [
        f"{verdict.source}: {verdict.rule}: {verdict.reason}"
        for judgement in judgements
        for verdict in judgement.verdicts
        if not verdict.passed
    ]
    return ValidationError(
        "the data were refused; nothing was accepted, downstream keeps the last accepted versions",
        found="; ".join(failed),
        way_out="look at the quarantined rows in the checks of validated_data, mend the source or "
        "the rule, and run again",
    )
