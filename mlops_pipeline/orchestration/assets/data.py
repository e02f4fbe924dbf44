"""raw_data, data_docs, validated_data, features and online_features of a use case."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.orchestration import asset_run
from mlops_pipeline.stores.settings import parse_time

if TYPE_CHECKING:
    from mlops_pipeline.lifecycle.features.leak_check import CheckedFeatures
    from mlops_pipeline.lifecycle.ingest.ingestion import Ingested
    from mlops_pipeline.lifecycle.ingest.validation import SourceValidation

INGESTED = {  # column shown: field
    "source": "source",
    "version": "version",
    "rows": "rows",
    "added": "rows_added",
    "late": "rows_late",
    "revised": "rows_revised",
    "too_late": "rows_too_late",
    "held_back": "rows_held_back",
    "hash": "content_hash",
}
Results = Iterator[dg.AssetCheckResult | dg.MaterializeResult[Any]]
NONE_LEFT_OUT = "no_row_left_out"  # the asset check of `raw_data`
NO_LEAK, PRECISION = "no_leak", "precision_kept"  # the asset checks of `features`
RULE = ("rule", "passed", "value", "threshold", "rows", "reason")


class Permitted(dg.Config):
    """Run config of `raw_data`: sources that may jump or be restated in this run; by whom, why."""

    accept_jump: list[str] = Field(default_factory=list)
    restate: list[str] = Field(default_factory=list)
    by: str = ""
    reason: str = ""


class AsOf(dg.Config):
    """Run config of `features`: the time that the run looks from."""

    as_of: str | None = None


def data_assets(use_case: UseCase) -> list[dg.AssetsDefinition]:
    """Return the assets from source files to accepted versions, and the pages about them."""
    return [_raw_data(use_case), _validated_data(use_case), _data_docs(use_case)]


def feature_assets(use_case: UseCase) -> list[dg.AssetsDefinition]:
    """Return the assets from accepted versions to features, and their newest values online."""
    return [_features(use_case), _online_features(use_case)]


def check_name(source: str) -> str:
    """Return the name of a source's asset check."""
    return f"{source}_rules"


def _raw_data(use_case: UseCase) -> dg.AssetsDefinition:
    @asset_run.use_case_asset(
        use_case,
        "raw_data",
        group="data",
        kinds={"delta", "duckdb"},
        description="Every source, ingested incrementally into versioned Delta tables. "
        "A second run on the same files adds nothing.",
        after=(),
        check_specs=[
            dg.AssetCheckSpec(
                NONE_LEFT_OUT,
                asset=[use_case.name, "raw_data"],
                description="No delivered row lies further behind the newest than "
                "lateness_days, and no file has the content of another.",
            )
        ],
    )
    def raw_data(context: dg.AssetExecutionContext, config: Permitted) -> Results:
        from mlops_pipeline.lifecycle.ingest.deliveries import Permits
        from mlops_pipeline.lifecycle.ingest.ingestion import ingest_sources

        with asset_run.asset_run(context, use_case) as run:
            jumps, restated = tuple(config.accept_jump), tuple(config.restate)
            done = ingest_sources(run, Permits(jumps, restated, config.by, config.reason))
            version = "+".join(f"{item.version}-{item.content_hash[:8]}" for item in done)
            yield _left_out(done)
            yield dg.MaterializeResult(
                data_version=dg.DataVersion(version), metadata=_ingested(done)
            )

    return raw_data


def _left_out(done: "list[Ingested]") -> dg.AssetCheckResult:
    left_out = {item.source: item.left_out for item in done if item.left_out}
    return dg.AssetCheckResult(
        check_name=NONE_LEFT_OUT,
        passed=not left_out,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(f"{name}: left out {what}" for name, what in left_out.items()),
        metadata={"too_late_rows": sum(item.rows_too_late for item in done)},
    )


def _ingested(done: "list[Ingested]") -> dict[str, Any]:
    table = [
        dg.TableRecord({column: getattr(item, name) for column, name in INGESTED.items()})
        for item in done
    ]
    left_out = {item.source: item.rows_erased for item in done if item.rows_erased}
    return {
        "dagster/row_count": sum(item.rows for item in done),
        "rows_added": sum(item.rows_added for item in done),
        "sources": dg.MetadataValue.table(table),
        **({"forgotten": left_out} if left_out else {}),
    }


def _validated_data(use_case: UseCase) -> dg.AssetsDefinition:
    checks = [
        dg.AssetCheckSpec(
            check_name(name),
            asset=[use_case.name, "validated_data"],
            blocking=True,
            description=f"Every rule of source {name}, over all of its rows.",
        )
        for name in use_case.sources
    ]

    @asset_run.use_case_asset(
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
    def validated_data(context: dg.AssetExecutionContext) -> Results:
        from mlops_pipeline.lifecycle.ingest import validation

        with asset_run.asset_run(context, use_case) as run:
            validations = [
                validation.validate_source(run, name, now=run.now) for name in use_case.sources
            ]
            for item in validations:
                yield _check_result(item, validation.quarantine_examples(run, item))
            accepted = validation.accept_sources(run, validations)
            conflicts = validation.count_label_conflicts(run, accepted, now=run.now)
            if conflicts:
                context.log.warning(
                    f"{conflicts:,} rows have labels of several sources that differ; the first of "
                    f"{', '.join(use_case.label.sources)} that has one counts"
                )
            every = accepted.values()
            version = "+".join(f"{item.version}-{item.quarantine_version}" for item in every)
            yield dg.MaterializeResult(
                data_version=dg.DataVersion(version),
                metadata={
                    "dagster/row_count": sum(item.rows for item in every),
                    "quarantined": sum(item.quarantined for item in every),
                    **({} if conflicts is None else {"label_conflicts": conflicts}),
                    "accepted": {name: item.to_dict() for name, item in accepted.items()},
                },
            )

    return validated_data


def _check_result(
    validation: "SourceValidation", examples: list[dict[str, Any]]
) -> dg.AssetCheckResult:
    """Return the check result of one source, with every rule's figures."""
    rules = [{name: getattr(result, name) for name in RULE} for result in validation.results]
    table = [
        dg.TableRecord({name: "" if value is None else value for name, value in rule.items()})
        for rule in rules
    ]
    failed = [result.reason for result in validation.results if not result.passed]
    accepted = validation.accepted
    shown = [{name: str(value) for name, value in row.items()} for row in examples]
    return dg.AssetCheckResult(
        check_name=check_name(validation.source),
        passed=validation.passed,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(failed) or f"{accepted.rows:,} rows accepted",
        metadata={
            "rows": accepted.rows,
            "quarantined": accepted.quarantined,
            "rules": dg.MetadataValue.table(table),
            **({"quarantined_examples": shown} if shown else {}),
        },
    )


def _data_docs(use_case: UseCase) -> dg.AssetsDefinition:
    @asset_run.use_case_asset(
        use_case,
        "data_docs",
        group="data",
        kinds={"greatexpectations"},
        after=("raw_data",),
        description="Great Expectations runs the same rules on a bounded sample of each source, "
        "for pages that a person can read. The verdict that counts is validated_data's, over all "
        "rows.",
    )
    def data_docs(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        from mlops_pipeline.lifecycle.ingest.validation import sample_source, write_data_docs

        with asset_run.asset_run(context, use_case) as run:
            samples = {name: sample_source(run, name) for name in use_case.sources}
            with run.lake.new_artifacts(use_case.name, "data_docs") as folder:
                docs = write_data_docs(folder, samples, use_case, now=run.now)
            index = run.lake.artifact_folder(use_case.name, "data_docs") / "index.html"
            sql_only = {name: list(rules) for name, rules in docs.sql_only.items()}
            return dg.MaterializeResult(
                metadata={
                    "data_docs": dg.MetadataValue.url(index.as_uri()),
                    "expectations": len(docs.results),
                    "failed_on_sample": sum(not item.passed for item in docs.results),
                    "rows_sampled": sum(len(sample) for sample in samples.values()),
                    "judged_in_sql_only": sql_only,
                }
            )

    return data_docs


def _features(use_case: UseCase) -> dg.AssetsDefinition:
    @asset_run.use_case_asset(
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
                asset=[use_case.name, "features"],
                blocking=True,
                description="Computed again with noise for a future, the newest period is the "
                "same: no feature looks ahead.",
            ),
            dg.AssetCheckSpec(
                PRECISION,
                asset=[use_case.name, "features"],
                description="No feature's precision makes it a constant, or takes most of its "
                "distinct values.",
            ),
        ],
    )
    def features(context: dg.AssetExecutionContext, config: AsOf) -> Results:
        from mlops_pipeline.lifecycle.bookkeeping import start_lifecycle
        from mlops_pipeline.lifecycle.features import leak_check
        from mlops_pipeline.lifecycle.train import refuse_untrainable

        with asset_run.asset_run(context, use_case) as run:
            as_of = parse_time(config.as_of) if config.as_of else None
            snapshot = leak_check.snapshot_for(run, as_of)
            if asset_run.is_whole_lifecycle(context, use_case):
                tags = context.run.tags
                start_lifecycle(
                    run.ops,
                    use_case.name,
                    run.run_id,
                    as_of=snapshot.as_of,
                    trigger=tags.get(asset_run.TRIGGER, "manual"),
                    triggered_by=tags.get(asset_run.TRIGGERED_BY),
                    now=run.now,
                )
                refuse_untrainable(run, snapshot)
            checked = leak_check.build_checked(run, snapshot)
            yield _leak_result(checked)
            yield _precision_result(checked)
            leak_check.accept_features(run, checked)
            built = checked.built
            yield dg.MaterializeResult(
                data_version=dg.DataVersion(f"{built.definitions}-{built.content_hash}"),
                metadata={
                    "dagster/row_count": sum(item.rows for item in built.periods),
                    "as_of": snapshot.as_of.date().isoformat(),
                    "periods_built": len(built.built),
                    "periods": len(built.periods),
                    "table_version": built.version,
                    "features": len(use_case.features),
                },
            )

    return features


def _leak_result(checked: "CheckedFeatures") -> dg.AssetCheckResult:
    """Return the check result; only an error blocks what comes after."""
    found, severity = checked.leaks, dg.AssetCheckSeverity
    is_warning = not found.passed and not checked.is_blocked
    return dg.AssetCheckResult(
        check_name=NO_LEAK,
        passed=found.passed,
        severity=severity.WARN if is_warning else severity.ERROR,
        description=checked.reason,
        metadata={
            "period": found.period,
            "cut": found.cut.isoformat(),
            "rows_compared": found.rows_compared,
            "leaking": list(found.leaking),
            "outdated": list(found.outdated),
        },
    )


def _precision_result(checked: "CheckedFeatures") -> dg.AssetCheckResult:
    lost = {item.feature: item.sentence for item in checked.losses}
    return dg.AssetCheckResult(
        check_name=PRECISION,
        passed=not lost,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(lost.values()) or "every feature keeps its values",
        metadata={"features": list(lost)},
    )


def _online_features(use_case: UseCase) -> dg.AssetsDefinition:
    @asset_run.use_case_asset(
        use_case,
        "online_features",
        group="data",
        kinds={"sqlite", "redis"},
        description="The newest values of every entity in the online store, and the recent events "
        "of views that are counted from them. What is there already is not written again.",
        after=("features",),
    )
    def online_features(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        from mlops_pipeline.lifecycle.features.online import materialize

        with (
            asset_run.asset_run(context, use_case) as run,
            materialize.open_writer(run.settings) as store,
        ):
            done = materialize.materialize_accepted(run, run.ops, store, now=run.now)
            time = "none stored" if done.feature_time is None else done.feature_time.isoformat()
            return dg.MaterializeResult(
                data_version=dg.DataVersion(f"{done.table}-{done.feature_time}"),
                metadata={
                    "dagster/row_count": done.entities,
                    "feature_time": time,
                    "rows_written": done.rows,
                    "events_written": done.events,
                    "stale_views": list(done.stale_views),
                    "online_table": done.table,
                },
            )

    return online_features
