"""raw_data, validated_data and features of a use case."""

from collections.abc import Iterator
from datetime import datetime
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
    from mlops_pipeline.lifecycle.features.offline import BuiltFeatures

NO_LEAK = "no_leak"  # the asset check of `features`


class AsOf(dg.Config):
    """Run config of `features`: the moment the run looks from."""

    as_of: str | None = None


def data_assets(use_case: UseCase) -> list[dg.AssetsDefinition]:
    """Return the assets from source files to point-in-time features."""
    return [_raw_data(use_case), _validated_data(use_case), _features(use_case)]


def check_name(source: str) -> str:
    """Return the name of a source's asset check."""
    return f"{source}_rules"


def _raw_data(use_case: UseCase) -> dg.AssetsDefinition:
    @use_case_asset(
        use_case,
        "raw_data",
        group="data",
        kinds={"delta", "duckdb"},
        description="Every source, ingested incrementally into versioned Delta tables. "
        "A second run on the same files adds nothing.",
        after=(),
    )
    def raw_data(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        from mlops_pipeline.lifecycle.compliance.tombstones import forgotten_pseudonyms
        from mlops_pipeline.lifecycle.features.offline import finished_through
        from mlops_pipeline.lifecycle.ingest.ingestion import ingest

        with asset_run(context, use_case) as run:
            finished = finished_through(run)
            erased = forgotten_pseudonyms(run.ops, use_case.name, use_case.entity.name)
            done = []
            for name in use_case.sources:
                done.append(
                    ingest(
                        run,
                        name,
                        now=run.now,
                        finished_through=finished,
                        erased=erased,
                    )
                )
                context.log.info(f"{name}: {done[-1].rows_added:,} of {done[-1].rows:,} rows new")
            columns = ["source", "version", "rows", "added", "late", "revised", "too_late", "hash"]
            table = [
                dg.TableRecord(
                    dict(
                        zip(
                            columns,
                            (
                                item.source,
                                item.version,
                                item.rows,
                                item.rows_added,
                                item.rows_late,
                                item.rows_revised,
                                item.rows_too_late,
                                item.content_hash,
                            ),
                            strict=True,
                        )
                    )
                )
                for item in done
            ]
            late = {item.source: item.rows_too_late for item in done if item.rows_too_late}
            left_out = {item.source: item.rows_erased for item in done if item.rows_erased}
            return dg.MaterializeResult(
                data_version=dg.DataVersion(
                    "+".join(f"{item.version}-{item.content_hash[:8]}" for item in done)
                ),
                metadata={
                    "dagster/row_count": sum(item.rows for item in done),
                    "rows_added": sum(item.rows_added for item in done),
                    "sources": dg.MetadataValue.table(table),
                    **({"too_late_rows": dg.MetadataValue.json(late)} if late else {}),
                    **({"forgotten": dg.MetadataValue.json(left_out)} if left_out else {}),
                },
            )

    return raw_data


def _validated_data(use_case: UseCase) -> dg.AssetsDefinition:
    key = dg.AssetKey([use_case.name, "validated_data"])
    checks = [
        dg.AssetCheckSpec(
            check_name(name),
            asset=key,
            blocking=True,
            description=f"Every rule of source {name}, over all of its rows.",
        )
        for name in use_case.sources
    ]

    @use_case_asset(
        use_case,
        "validated_data",
        group="data",
        kinds={"delta", "duckdb", "greatexpectations"},
        description="The rules of the configuration, judged over all rows. Rows that break "
        "one go to quarantine; then the accepted pointer moves. Downstream reads accepted "
        "versions only.",
        after=("raw_data",),
        check_specs=checks,
    )
    def validated_data(
        context: dg.AssetExecutionContext,
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[Any]]:
        from mlops_pipeline.lifecycle.ingest.validation import judge, quarantine_examples
        from mlops_pipeline.orchestration.assets.validation_results import check_result, refused

        with asset_run(context, use_case) as run:
            judgements = [judge(run, name, now=run.now) for name in use_case.sources]
            for judgement in judgements:
                examples = quarantine_examples(run, judgement)
                yield check_result(key, check_name(judgement.source), judgement, examples)
            if not all(judgement.passed for judgement in judgements):
                raise refused(judgements)
            accepted = {item.source: item.accepted.to_dict() for item in judgements}
            run.set_pointer("accepted", accepted)
            yield dg.MaterializeResult(
                data_version=dg.DataVersion(
                    "+".join(
                        f"{item.accepted.version}-{item.accepted.quarantine_version}"
                        for item in judgements
                    )
                ),
                metadata={
                    "dagster/row_count": sum(item.accepted.rows for item in judgements),
                    "quarantined": sum(item.accepted.quarantined for item in judgements),
                    "accepted": dg.MetadataValue.json(accepted),
                },
            )

    return validated_data


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
        from mlops_pipeline.lifecycle.bookkeeping import record_feature_use, start_lifecycle
        from mlops_pipeline.lifecycle.features.catalogue import (
            model_inputs,
            refuse_deleted_features,
        )
        from mlops_pipeline.lifecycle.features.offline import build_features
        from mlops_pipeline.lifecycle.ingest.accepted import accepted_sources, take_snapshot
        from mlops_pipeline.orchestration.assets.leak_results import check_leaks

        with asset_run(context, use_case) as run:
            models = model_inputs(run.ops, run.lake, use_case)
            refuse_deleted_features(use_case, models)
            given = parse_time(config.as_of) if config.as_of else None
            snapshot = take_snapshot(
                use_case, accepted_sources(run.ops, use_case), given, now=run.now
            )
            as_of = snapshot.as_of
            if is_whole_lifecycle(context, use_case):
                start_lifecycle(
                    run.ops,
                    use_case.name,
                    run.run_id,
                    as_of=as_of,
                    trigger=context.run.tags.get("mlops/trigger", "manual"),
                    triggered_by=context.run.tags.get(TRIGGERED_BY),
                    now=run.now,
                )
            built = build_features(
                run,
                snapshot,
                progress=lambda name, rows: context.log.info(f"period {name}: {rows:,} rows"),
            )
            judged = check_leaks(run, snapshot, built)
            yield judged.result(key, NO_LEAK)
            judged.refuse_if_blocked()
            run.set_pointer("features", _features_pointer(built, as_of))
            record_feature_use(
                run.ops, use_case.name, use_case.features, "computation", now=run.now
            )
            yield dg.MaterializeResult(
                data_version=dg.DataVersion(f"{built.definitions}-{built.content_hash}"),
                metadata={**_features_metadata(built, as_of), "features": len(use_case.features)},
            )

    return features


def _features_pointer(built: "BuiltFeatures", as_of: datetime) -> dict[str, Any]:
    return {
        "as_of": as_of.isoformat(),
        "version": built.version,
        "definitions": built.definitions,
        "content_hash": built.content_hash,
    }


def _features_metadata(built: "BuiltFeatures", as_of: datetime) -> dict[str, Any]:
    return {
        "dagster/row_count": sum(item.rows for item in built.periods),
        "as_of": dg.MetadataValue.text(as_of.date().isoformat()),
        "periods_built": len(built.built),
        "periods": len(built.periods),
        "table_version": built.version,
    }
