"""features and online_features of a use case."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.orchestration.asset_run import (
    TRIGGERED_BY,
    asset_run,
    is_whole_lifecycle,
    use_case_asset,
)
from mlops_pipeline.stores.settings import parse_time

if TYPE_CHECKING:
    from mlops_pipeline.lifecycle.features.leak_check import CheckedFeatures

NO_LEAK = "no_leak"  # the asset check of `features`


class AsOf(dg.Config):
    """Run config of `features`: the time that the run looks from."""

    as_of: str | None = None


def feature_assets(use_case: UseCase) -> list[dg.AssetsDefinition]:
    """Return the assets from accepted versions to features, and their newest values online."""
    return [_features(use_case), _online_features(use_case)]


def _features(use_case: UseCase) -> dg.AssetsDefinition:
    key = dg.AssetKey([use_case.name, "features"])

    @use_case_asset(
        use_case,
        "features",
        group="data",
        kinds={"delta", "ibis", "duckdb"},
        description="Point-in-time features on the as_of grid: what was known strictly "
        "before each as_of. Only new periods are computed.",
        after=("validated_data",),
        check_specs=[
            dg.AssetCheckSpec(
                NO_LEAK,
                asset=key,
                blocking=True,
                description="Computed again with noise for a future, the newest period is the "
                "same: no feature looks ahead.",
            )
        ],
    )
    def features(
        context: dg.AssetExecutionContext, config: AsOf
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[Any]]:
        from mlops_pipeline.lifecycle.features.leak_check import (
            accept_features,
            begin_lifecycle,
            build_checked,
            snapshot_for,
        )

        with asset_run(context, use_case) as run:
            snapshot = snapshot_for(run, parse_time(config.as_of) if config.as_of else None)
            if is_whole_lifecycle(context, use_case):
                tags = context.run.tags
                trigger = tags.get("mlops/trigger", "manual")
                begin_lifecycle(run, snapshot, trigger, tags.get(TRIGGERED_BY))
            checked = build_checked(run, snapshot)
            yield _leak_result(key, checked)
            accept_features(run, checked)
            built = checked.built
            yield dg.MaterializeResult(
                data_version=dg.DataVersion(f"{built.definitions}-{built.content_hash}"),
                metadata={
                    "dagster/row_count": sum(item.rows for item in built.periods),
                    "as_of": dg.MetadataValue.text(snapshot.as_of.date().isoformat()),
                    "periods_built": len(built.built),
                    "periods": len(built.periods),
                    "table_version": built.version,
                    "features": len(use_case.features),
                },
            )

    return features


def _leak_result(key: dg.AssetKey, checked: "CheckedFeatures") -> dg.AssetCheckResult:
    """Return the check result; only an error blocks what comes after."""
    found, severity = checked.leaks, dg.AssetCheckSeverity
    is_warning = not found.passed and not checked.is_blocked
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=NO_LEAK,
        passed=found.passed,
        severity=severity.WARN if is_warning else severity.ERROR,
        description=checked.reason,
        metadata={
            "period": found.period,
            "cut": found.cut.isoformat(),
            "rows_compared": found.rows_compared,
            "leaking": dg.MetadataValue.json(list(found.leaking)),
            "outdated": dg.MetadataValue.json(list(found.outdated)),
        },
    )


def _online_features(use_case: UseCase) -> dg.AssetsDefinition:
    @use_case_asset(
        use_case,
        "online_features",
        group="data",
        kinds={"sqlite", "redis"},
        description="The newest values of every entity in the online store, and the recent events "
        "of views that are counted from them. What is there already is not written again.",
        after=("features",),
    )
    def online_features(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        from mlops_pipeline.lifecycle.features.online.materialize import (
            materialize_accepted,
            open_writer,
        )

        with asset_run(context, use_case) as run, open_writer(run.settings) as store:
            done = materialize_accepted(run, run.ops, store, now=run.now)
            time = "none stored" if done.feature_time is None else done.feature_time.isoformat()
            return dg.MaterializeResult(
                data_version=dg.DataVersion(f"{done.table}-{done.feature_time}"),
                metadata={
                    "dagster/row_count": done.entities,
                    "feature_time": dg.MetadataValue.text(time),
                    "rows_written": done.rows,
                    "events_written": done.events,
                    "stale_views": dg.MetadataValue.json(list(done.stale_views)),
                    "online_table": done.table,
                },
            )

    return online_features
