"""The documents of a version, written by hand: what a model card is made of."""

from datetime import UTC, datetime
from typing import Any

from mlops_pipeline.core.documents.card_facts import CardFacts
from mlops_pipeline_tests.core.evaluation.example_evaluation import use_case

NOW = datetime(2025, 2, 10, 12, tzinfo=UTC)
Json = dict[str, Any]


def figure(value: float | None, low: float | None = None, high: float | None = None) -> Json:
    reason = "no positive row" if value is None else None
    return {"value": value, "low": low, "high": high, "reason": reason}


def group(name: str, selected: float | None, **more: Any) -> Json:
    rates = {"tpr": figure(0.5), "fpr": figure(0.05), "precision": figure(0.4)}
    selection = {"selection_rate": figure(selected)}
    return (
        {"group": name, "rows": 500, "positives": 40, "excluded": None} | rates | selection | more
    )


def audit(attribute: str, difference: float | None, *groups: Json) -> Json:
    names = ("demographic_parity_ratio", "equalized_odds_difference")
    return {
        "attribute": attribute,
        "groups": list(groups) or [group("a", 0.1), group("b", 0.2)],
        "demographic_parity_difference": figure(difference),
        **{name: figure(0.7, 0.6, 0.8) for name in (*names, "equal_opportunity_difference")},
    }


def a_slice(column: str, name: str, auc: float | None, rows: int = 400) -> Json:
    metrics = {"roc_auc": figure(auc, None if auc is None else auc - 0.02, auc and auc + 0.02)}
    return {"column": column, "group": name, "rows": rows, "positives": 40, "metrics": metrics}


def evaluation(**changes: Any) -> Json:
    metrics = {
        "roc_auc": figure(0.8123, 0.79, 0.83),
        "pr_auc": figure(0.3),
        "log_loss": figure(0.2456),
        "brier": figure(0.0654),
        "ece": figure(0.0123, 0.01, 0.02),
        "precision": figure(0.4),
        "recall": figure(0.5, 0.45, 0.55),
        "f1": figure(0.444),
        "selection_rate": figure(0.1),
    }
    return {
        "metrics": metrics,
        "slices": [a_slice("plan", "basic", 0.7523), a_slice("plan", "plus", 0.83)],
        "stress": [
            a_slice("stress", "view billing arrives empty", 0.71),
            a_slice("stress", "out of range: amount_mean_90d, plan", 0.6),
        ],
        "fairness": [audit("region", 0.1), audit("gender", 0.0123)],
        "champion": None,
        "reliability": {
            "mean_score": [0.02, 0.2],
            "observed_rate": [0.0, 0.25],
            "rows": [900, 100],
        },
        "shap": {"amount_mean_90d": 0.3, "plan": 0.1},
        **changes,
    }


def gate(*rules: tuple[str, bool | None, str, str]) -> Json:
    shown = rules or (
        (
            "roc_auc at least 0.72",
            True,
            "block",
            "roc_auc is 0.8123 on test, at least 0.72 is asked",
        ),
        ("demographic parity difference at most 0.05", False, "warn", "region 0.100, gender 0.012"),
    )
    names = ("name", "passed", "effect", "reason")
    return {"passed": True, "needs_review": False, "rules": [dict(zip(names, r)) for r in shown]}  # noqa: B905 # equal by their type


def training(**changes: Any) -> Json:
    parts = {
        "train": {"periods": ["2024-01-01", "2024-06-01"], "rows": 7_000, "positive_rate": 0.081},
        "validation": {"periods": ["2024-09-01"], "rows": 1_500, "positive_rate": 0.079},
        "test": {"periods": ["2024-12-01"], "rows": 1_000, "positive_rate": 0.08},
    }
    candidate = {"name": "boosted", "kind": "lightgbm", "trees": 40, "seconds": 12.5}
    return {
        "as_of": "2025-01-01T00:00:00+00:00",
        "chosen": "boosted",
        "reason": "lowest validation log loss: boosted 0.2400",
        "candidates": [
            {**candidate, "validation_log_loss": 0.24, "validation": {"roc_auc": 0.8151}},
            {
                **candidate,
                "name": "floor",
                "kind": "dummy",
                "validation_log_loss": 0.28,
                "validation": {"roc_auc": None},
            },
        ],
        "parts": parts,
        "purged": 321,
        "labelled_rows": 9_821,
        "dropped_inputs": {"fax": "constant"},
        **changes,
    }


def metadata(**changes: Any) -> Json:
    return {
        "version": 3,
        "signature": {"inputs": [{"name": "amount_mean_90d"}, {"name": "plan"}]},
        "training": {"refit": "all_labelled", "rows": 9_821},
        "changelog": "This is the first version.",
        "provenance": {
            "git_commit": "0123abc",
            "git_dirty": False,
            "config_hash": "c0ffee",
            "feature_definitions_version": "f00d",
            "seed": 7,
            "run_fingerprint": "feedbeef",
            "mlflow_run_id": "m1",
            "dagster_run_id": "d1",
            "hardware": {"machine": "x86_64", "system": "Linux", "python": "3.11.9", "threads": 2},
        },
        **changes,
    }


def facts(*, case: Json | None = None, **changes: Any) -> CardFacts:
    costs = {"false_positive": 1, "false_negative": 4}
    boosted = {"boosted": {"kind": "lightgbm"}, "floor": {"kind": "dummy"}}
    given: Json = {
        "use_case": use_case(training={"candidates": boosted, "costs": costs}, **(case or {})),
        "metadata": metadata(),
        "training": training(),
        "snapshot": {
            "written_at": "2025-01-10T08:00:00+00:00",
            "sources": {"bills": {"version": 4, "rows": 1_204_551, "quarantined": 312}},
        },
        "evaluation": evaluation(),
        "gate": gate(),
        "own": {
            "threshold": 0.2,
            "thresholds": None,
            "calibration": "isotonic",
            "libraries": {"lightgbm": "4.6.0", "numpy": "2.3.1"},
            "lock_sha256": "ab" * 32,
        },
        "shown_at": NOW,
    }
    return CardFacts(**{**given, **changes})
