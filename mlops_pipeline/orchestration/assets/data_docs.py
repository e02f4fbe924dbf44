"""data_docs of a use case: Great Expectations' pages about a bounded sample of each source."""

from typing import Any

import dagster as dg

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.orchestration.asset_run import asset_run, use_case_asset


def data_docs(use_case: UseCase) -> dg.AssetsDefinition:
    """Return the asset that writes Data Docs, also for data that validated_data refuses."""

    @use_case_asset(
        use_case,
        "data_docs",
        group="data",
        kinds={"greatexpectations"},
        after=("raw_data",),
        description="Great Expectations runs the same rules on a bounded sample of each source, "
        "for pages that a person can read. The verdict that counts is validated_data's, over all "
        "rows.",
    )
    def pages(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        from mlops_pipeline.lifecycle.ingest.data_docs import sample_source, write_data_docs

        with asset_run(context, use_case) as run:
            samples = {name: sample_source(run, name) for name in use_case.sources}
            with run.lake.new_artifacts(use_case.name, "data_docs") as folder:
                docs = write_data_docs(folder, samples, use_case, now=run.now)
            index = run.lake.artifact_folder(use_case.name, "data_docs") / "index.html"
            failed = [item for item in docs.verdicts if not item.passed]
            return dg.MaterializeResult(
                metadata={
                    "data_docs": dg.MetadataValue.url(index.as_uri()),
                    "expectations": len(docs.verdicts),
                    "failed_on_sample": len(failed),
                    "rows_sampled": sum(len(sample) for sample in samples.values()),
                    "judged_in_sql_only": dg.MetadataValue.json(
                        {name: list(rules) for name, rules in docs.sql_only.items()}
                    ),
                }
            )

    return pages
