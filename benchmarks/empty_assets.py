"""A code location with seven empty assets: what Dagster itself costs for a job of that size.

The floor of benchmark (d); started by `dagster job execute -m benchmarks.empty_assets`.
"""

import dagster as dg

NAMES = (
    "raw_data",
    "validated_data",
    "features",
    "trained_model",
    "evaluation_report",
    "registry_entry",
    "deployment",
)


def _empty(name: str, after: str | None) -> dg.AssetsDefinition:
    @dg.asset(name=name, deps=[after] if after else [])
    def nothing() -> None:
        pass

    return nothing


defs = dg.Definitions(
    assets=[_empty(name, after) for name, after in zip(NAMES, (None, *NAMES), strict=False)],
    jobs=[dg.define_asset_job("empty_lifecycle", selection="*")],
    executor=dg.in_process_executor,
)
