"""online_features of a use case: the newest values of every entity in the online store."""

from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.orchestration.asset_run import asset_run, use_case_asset

if TYPE_CHECKING:
    from mlops_pipeline.lifecycle.features.online.materialize import Materialized


def online_features(use_case: UseCase) -> dg.AssetsDefinition:
    """Return the asset that brings the online store up to the newest features."""

    @use_case_asset(
        use_case,
        "online_features",
        group="data",
        kinds={"sqlite", "redis"},
        description="The newest values of every entity in the online store, and the recent events "
        "of views that are counted from them. What is there already is not written again.",
        after=("features",),
    )
    def online(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        from mlops_pipeline.lifecycle.features.online.materialize import (
            materialize_accepted,
            open_writer,
        )

        with asset_run(context, use_case) as run, open_writer(run.settings) as store:
            done = materialize_accepted(run, run.ops, store, now=run.now)
            return dg.MaterializeResult(
                data_version=dg.DataVersion(f"{done.table}-{done.feature_time}"),
                metadata=_metadata(done),
            )

    return online


def _metadata(done: "Materialized") -> dict[str, Any]:
    time = "none stored" if done.feature_time is None else done.feature_time.isoformat()
    return {
        "dagster/row_count": done.entities,
        "feature_time": dg.MetadataValue.text(time),
        "rows_written": done.rows,
        "events_written": done.events,
        "stale_views": dg.MetadataValue.json(list(done.stale_views)),
        "online_table": done.table,
    }
