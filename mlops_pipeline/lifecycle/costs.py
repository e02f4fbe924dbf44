"""Reading what the costs of a use case are made of."""

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.monitoring.cost import CostSheet, cost_sheet
from mlops_pipeline.lifecycle.bookkeeping import seconds_by_run
from mlops_pipeline.lifecycle.rollouts import rollout_events
from mlops_pipeline.stores.lake.tables import REWRITTEN, Lake
from mlops_pipeline.stores.ops import OpsDatabase


def use_case_costs(use_case: UseCase, ops: OpsDatabase, lake: Lake) -> CostSheet:
    """Return the cost sheet of everything that was measured for a use case."""
    scored = [
        facts
        for table in ("predictions", "trial_predictions")
        for facts in lake.commit_metadata(lake.table_uri(use_case.name, table))
    ]
    accepted = {
        event.version
        for event in rollout_events(ops, use_case.name)
        if event.to_state == "champion"
    }
    return cost_sheet(
        use_case,
        seconds_by_run(ops, use_case.name),
        predictions=sum(int(facts.get("rows", 0)) for facts in scored if REWRITTEN not in facts),
        accepted=len(accepted),
    )
