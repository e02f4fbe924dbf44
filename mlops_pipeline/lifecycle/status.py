"""The state of a use case as one stable JSON document (`mlops status --json`), and its costs.

Scripts rely on its keys; docs/cli.md describes them, and a test holds them.
"""

import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.documents.records import EvaluatedTraining, from_plain, plain
from mlops_pipeline.core.metrics.metrics import Estimate
from mlops_pipeline.core.monitoring.cost import CostSheet, cost_sheet
from mlops_pipeline.core.rollout.approvals import approval_state, has_ended, last_approval
from mlops_pipeline.core.rollout.records import Approval, Rollout
from mlops_pipeline.lifecycle.alerts import list_alerts
from mlops_pipeline.lifecycle.bookkeeping import (
    LIFECYCLE_BEGUN,
    get_pointer,
    last_lifecycle,
    run_state,
    seconds_by_run,
    step_seconds,
)
from mlops_pipeline.lifecycle.exceptions import list_exceptions
from mlops_pipeline.lifecycle.rollouts import list_approvals, list_rollouts, rollout_events
from mlops_pipeline.spec.metrics import shown_in
from mlops_pipeline.stores.lake.tables import REWRITTEN, Lake
from mlops_pipeline.stores.ops import LifecycleRun, OpsDatabase
from mlops_pipeline.stores.settings import Settings

RULE = ("name", "value", "threshold", "outcome", "effect", "reason", "excepted")
EXCEPTION = ("id", "rule", "attribute", "by", "reason", "expires_at")
RUN = ("run_id", "as_of", "trigger", "started_at", "finished_at", "verdict")  # from `features` on
COSTS = ("total", "per_training_run", "per_1000_predictions", "per_accepted_improvement")


def use_case_status(use_case: UseCase, settings: Settings) -> dict[str, Any]:
    """Return the document of a use case: see the table of its keys in docs/cli.md."""
    name, now, lake = use_case.name, settings.now(), Lake(settings.lake_uri)
    with OpsDatabase.open(settings.database_url) as ops:
        rollouts, approvals = list_rollouts(ops, name), list_approvals(ops, name)
        trained = get_pointer(ops, name, "trained_model")
        accepted = get_pointer(ops, name, "accepted")
        last = _last_run(ops, name)
        seconds = step_seconds(ops, name, last["run_id"]) if last else {}
        cost = use_case_costs(use_case, ops, lake)
        alerts = list_alerts(ops, name, open_only=True)
        exceptions = [item for item in list_exceptions(ops, name) if item.is_in_force(now)]
    newest = trained and _evaluation(lake.artifact_folder(name, trained.value["fingerprint"]))
    spent = {step: round(value, 2) for step, value in seconds.items()}
    last_run = use_case.compute_cost.of(sum(seconds.values()))
    prices = {key: value for key, value in cost.to_dict().items() if key in COSTS}
    return {
        "use_case": name,
        "champion": _champion(lake, rollouts, approvals, now),
        "trial": next((_trial(item) for item in rollouts if item.is_in_trial), None),
        "waiting": [
            _keys(item, "version", "waiting_for", "reason")
            | {"approval_state": approval_state(item, approvals, now=now)}
            for item in rollouts
            if item.state == "awaiting_approval"
        ],
        "last_gate": newest
        and {
            **_keys(newest.gate, "passed", "needs_review"),
            "rules": [_keys(rule, *RULE) for rule in newest.gate.rules],
        },
        "exceptions": [_keys(item, *EXCEPTION) for item in exceptions],
        "data": {
            source: {key: item[key] for key in ("version", "rows", "quarantined")}
            for source, item in (accepted.value if accepted else {}).items()
        },
        "last_run": last and last | {"seconds": spent},
        "cost": {"currency": cost.currency, "last_run": last_run, **prices},
        "alerts": [_keys(item, "severity", "message", "action", "raised_at") for item in alerts],
    }


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


def _last_run(ops: OpsDatabase, name: str) -> dict[str, Any] | None:
    """Return the lifecycle that began last, also when it never came to an as_of."""
    begun = ops.audit_events(use_case=name, kind=LIFECYCLE_BEGUN, limit=1)
    run: dict[str, Any] = dict.fromkeys(RUN)
    for event in begun:
        run |= {**event.detail, "started_at": plain(event.at)}
    row = ops.find(LifecycleRun, use_case=name, run_id=run["run_id"])
    if not begun:  # a database from before such events
        row = last_lifecycle(ops, name)
    if row is not None:
        run |= _keys(row, *RUN)
    elif not begun:
        return None
    return run | {"state": run_state(ops, name, run["run_id"])}


def _champion(
    lake: Lake, rollouts: Iterable[Rollout], approvals: list[Approval], now: datetime
) -> dict[str, Any] | None:
    champion = next((item for item in rollouts if item.state == "champion"), None)
    if champion is None:
        return None
    evaluated = _evaluation(lake.documents_folder(champion.use_case, champion.fingerprint))
    approval = last_approval(champion, approvals, "production")
    return {
        "version": champion.version,
        "since": plain(champion.changed_at),
        "metrics": {
            name: _figure(evaluated.evaluation.metrics[name])
            for name in shown_in("status")
            if evaluated
        },
        "approval_expires": plain(approval.expires_at) if approval else None,
        "approval_ended": has_ended(approval, now),
    }


def _trial(rollout: Rollout) -> dict[str, Any]:
    return _keys(rollout, "version", "state", "entered_at") | {"stage": rollout.stage_name}


def _evaluation(folder: Path) -> EvaluatedTraining | None:
    path = folder / "evaluation.json"
    if not path.is_file():
        return None
    return from_plain(EvaluatedTraining, json.loads(path.read_text(encoding="utf-8")))


def _figure(found: Estimate) -> dict[str, Any]:
    interval = None if found.low is None else [found.low, found.high]
    return {"value": found.value, "interval": interval}


def _keys(record: object, *names: str) -> dict[str, Any]:
    return {name: plain(getattr(record, name)) for name in names}
