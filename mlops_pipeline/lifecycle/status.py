"""The state of a use case as one stable JSON document: what `mlops status --json` prints.

Scripts rely on its keys; docs/cli.md describes them, and a test holds them.
"""

from datetime import datetime
from pathlib import Path
from typing import Any

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.documents.records import EvaluatedTraining
from mlops_pipeline.core.rollout.approvals import approval_state, has_ended, last_approval
from mlops_pipeline.core.rollout.records import Approval
from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.lifecycle.alerts import list_alerts
from mlops_pipeline.lifecycle.bookkeeping import get_pointer, last_lifecycle, step_seconds
from mlops_pipeline.lifecycle.champions import documents_folder
from mlops_pipeline.lifecycle.costs import use_case_costs
from mlops_pipeline.lifecycle.evaluate import read_evaluation
from mlops_pipeline.lifecycle.exceptions import list_exceptions
from mlops_pipeline.lifecycle.rollouts import list_approvals, list_rollouts
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings

METRICS = ("roc_auc", "pr_auc", "brier", "log_loss")
COSTS = ("total", "per_training_run", "per_1000_predictions", "per_accepted_improvement")


def use_case_status(use_case: UseCase, settings: Settings) -> dict[str, Any]:
    """Return use_case, champion, waiting, last_gate, exceptions, data, last_run, cost, alerts."""
    lake = Lake(settings.lake_uri)
    with OpsDatabase.open(settings.database_url) as ops:
        rollouts = list_rollouts(ops, use_case.name)
        approvals = list_approvals(ops, use_case.name)
        trained = get_pointer(ops, use_case.name, "trained_model")
        accepted = get_pointer(ops, use_case.name, "accepted")
        last = last_lifecycle(ops, use_case.name)
        alerts = list_alerts(ops, use_case.name, open_only=True)
        exceptions = list_exceptions(ops, use_case.name)
        seconds = step_seconds(ops, use_case.name, last.run_id) if last else {}
        cost = use_case_costs(use_case, ops, lake)
    champion = next((item for item in rollouts if item.state == "champion"), None)
    waiting = [item for item in rollouts if item.state == "awaiting_approval"]
    champion_evaluation = None
    if champion is not None:
        champion_evaluation = _evaluation(documents_folder(lake, use_case, champion.fingerprint))
    newest = _evaluation(Path(trained.value["folder"])) if trained else None
    return {
        "use_case": use_case.name,
        "champion": None
        if champion is None
        else {
            "version": champion.version,
            "since": champion.changed_at.isoformat(),
            "metrics": _metrics(champion_evaluation),
            **_approval(last_approval(champion, approvals, "production"), settings.now()),
        },
        "waiting": [
            {
                "version": item.version,
                "waiting_for": item.waiting_for,
                "reason": item.reason,
                "approval_state": approval_state(item, approvals, now=settings.now()),
            }
            for item in waiting
        ],
        "last_gate": _gate(newest),
        "exceptions": [
            {
                "id": item.id,
                "rule": item.rule,
                "attribute": item.attribute,
                "by": item.by,
                "reason": item.reason,
                "expires_at": item.expires_at.isoformat(),
            }
            for item in exceptions
            if item.is_in_force(settings.now())
        ],
        "data": {
            name: {
                "version": item["version"],
                "rows": item["rows"],
                "quarantined": item["quarantined"],
            }
            for name, item in (accepted.value if accepted else {}).items()
        },
        "last_run": None
        if last is None
        else {
            "run_id": last.run_id,
            "as_of": last.as_of.isoformat(),
            "trigger": last.trigger,
            "started_at": last.started_at.isoformat(),
            "finished_at": last.finished_at.isoformat() if last.finished_at else None,
            "verdict": last.verdict,
            "seconds": {name: round(value, 2) for name, value in seconds.items()},
        },
        "cost": {
            "currency": cost.currency,
            "last_run": use_case.compute_cost.of(sum(seconds.values())),
            **{name: cost.to_dict()[name] for name in COSTS},
        },
        "alerts": [
            {
                "severity": item.severity,
                "message": item.message,
                "action": item.action,
                "raised_at": item.raised_at.isoformat(),
            }
            for item in alerts
        ],
    }


def _evaluation(folder: Path) -> EvaluatedTraining | None:
    try:
        return read_evaluation(folder)
    except NotFoundError:
        return None


def _approval(said: Approval | None, now: datetime) -> dict[str, Any]:
    end = said.expires_at if said else None
    ends = end.isoformat() if end else None
    return {"approval_expires": ends, "approval_ended": has_ended(said, now)}


def _metrics(stored: EvaluatedTraining | None) -> dict[str, Any]:
    if stored is None:
        return {}
    figures = {name: stored.evaluation.metrics[name] for name in METRICS}
    return {
        name: {
            "value": figure.value,
            "interval": None if figure.low is None else [figure.low, figure.high],
        }
        for name, figure in figures.items()
    }


def _gate(stored: EvaluatedTraining | None) -> dict[str, Any] | None:
    if stored is None:
        return None
    gate = stored.gate
    return {
        "passed": gate.passed,
        "needs_review": gate.needs_review,
        "rules": [
            {
                "name": rule.name,
                "value": rule.value,
                "threshold": rule.threshold,
                "passed": rule.passed,
                "effect": rule.effect,
                "reason": rule.reason,
                "excepted": rule.excepted,
            }
            for rule in gate.rules
        ],
    }
