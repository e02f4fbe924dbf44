"""The documents of a version, written by hand: what a model card is made of."""

from datetime import UTC, datetime
from typing import Any

from mlops_pipeline.core.documents.model_card import CardFacts
from mlops_pipeline.core.documents.records import (
    CandidateFacts,
    DataSnapshot,
    Metadata,
    ModelFacts,
    PartFacts,
    SourceFacts,
    TrainingFacts,
)
from mlops_pipeline.core.evaluation.evaluation import Evaluation, Slice
from mlops_pipeline.core.evaluation.outcomes import Gate, RuleResult
from mlops_pipeline.core.fairness.audit import GroupAudit, GroupRates
from mlops_pipeline.core.metrics.metrics import Estimate, Outcome
from mlops_pipeline.core.modelling.calibration import ReliabilityCurve
from mlops_pipeline.core.modelling.explanations import Explanation
from mlops_pipeline.spec.rules import Effect
from mlops_pipeline_tests.core.documents.test_metadata import DOCUMENT
from mlops_pipeline_tests.core.evaluation.example_evaluation import use_case

NOW = datetime(2025, 2, 10, 12, tzinfo=UTC)


def figure(value: float | None, low: float | None = None, high: float | None = None) -> Estimate:
    return Estimate(value, low, high, "no positive row" if value is None else None)


def group(name: str, selected: float | None, **more: Any) -> GroupRates:
    rates: dict[str, Any] = {"tpr": figure(0.5), "fpr": figure(0.05), "precision": figure(0.4)}
    rates |= {"labelled": 500, "positives": 40, "calibration": None, "excluded": None}
    return GroupRates(group=name, rows=500, selection_rate=figure(selected), **rates | more)


def audit(
    attribute: str, difference: float | None, *groups: GroupRates, ratio: float = 0.7
) -> GroupAudit:
    return GroupAudit(
        attribute=attribute,
        groups=groups or (group("a", 0.1), group("b", 0.2)),
        demographic_parity_difference=figure(difference),
        demographic_parity_ratio=figure(ratio, 0.6, 0.8),
        equalized_odds_difference=figure(0.7, 0.6, 0.8),
        equal_opportunity_difference=figure(0.7, 0.6, 0.8),
    )


def a_slice(column: str, name: str, auc: float | None, rows: int = 400) -> Slice:
    found = figure(None) if auc is None else figure(auc, auc - 0.02, auc + 0.02)
    return Slice(column, name, rows, 40, {"roc_auc": found})


def explanation(**changes: Any) -> Explanation:
    shap = {"amount_mean_90d": 0.3, "plan": 0.1}
    return Explanation(
        **{"shap": shap, "by_slice": (), "champion": None, "directions": ()} | changes
    )


def evaluation(*, metrics: dict[str, Estimate] | None = None, **changes: Any) -> Evaluation:
    figures = {
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
    given: dict[str, Any] = {
        "metrics": figures | (metrics or {}),
        "train_metrics": {},
        "slices": (a_slice("plan", "basic", 0.7523), a_slice("plan", "plus", 0.83)),
        "stress": (
            a_slice("stress", "view billing arrives empty", 0.71),
            a_slice("stress", "out of range: amount_mean_90d, plan", 0.6),
        ),
        "fairness": (audit("region", 0.1), audit("gender", 0.0123)),
        "champion": None,
        "reliability": ReliabilityCurve((0.02, 0.2), (0.0, 0.25), (900, 100)),
        "explanations": explanation(),
    }
    return Evaluation(**given | changes)


def gate(*rules: tuple[str, Outcome, Effect, str]) -> Gate:
    shown = rules or (
        (
            "roc_auc at least 0.72",
            "passed",
            "block",
            "roc_auc is 0.8123 on test, at least 0.72 is asked",
        ),
        (
            "demographic parity difference at most 0.05",
            "failed",
            "warn",
            "region 0.100, gender 0.012",
        ),
    )
    results = (
        RuleResult(name, None, 0.0, outcome, effect, reason)
        for name, outcome, effect, reason in shown
    )
    return Gate(passed=True, needs_review=False, rules=tuple(results))


def training(*, test_rate: float = 0.08, **changes: Any) -> TrainingFacts:
    given: dict[str, Any] = {
        "use_case": "churn",
        "fingerprint": "feedbeef",
        "as_of": datetime(2025, 1, 1, tzinfo=UTC),
        "chosen": "boosted",
        "reason": "lowest validation log loss: boosted 0.2400",
        "candidates": (
            CandidateFacts("boosted", "lightgbm", 40, 12.5, 0.24, {"roc_auc": 0.8151}),
            CandidateFacts("floor", "dummy", None, 12.5, 0.28, {"roc_auc": None}),
        ),
        "parts": {
            "train": PartFacts(("2024-01-01", "2024-06-01"), 7_000, 0.081),
            "validation": PartFacts(("2024-09-01",), 1_500, 0.079),
            "test": PartFacts(("2024-12-01",), 1_000, test_rate),
        },
        "purged": 321,
        "labelled_rows": 9_821,
        "dropped_inputs": {"fax": "constant"},
        "train_metrics": {},
        "train_maxima": {},
        "train_missing": {},
        "importance": {},
    }
    return TrainingFacts(**given | changes)


def metadata(*, training: dict[str, Any] | None = None, **changes: Any) -> Metadata:
    inputs = [{"name": name, "type": "number"} for name in ("amount_mean_90d", "plan")]
    hardware = {"machine": "x86_64", "system": "Linux", "python": "3.11.9", "threads": 2}
    given: dict[str, Any] = {
        "version": 3,
        "signature": {**DOCUMENT["signature"], "inputs": inputs},
        "training": {**DOCUMENT["training"], "rows": 9_821, **(training or {})},
        "changelog": "This is the first version.",
        "provenance": {**DOCUMENT["provenance"], "hardware": hardware},
    }
    return Metadata.model_validate(DOCUMENT | given | changes)


def facts(*, case: dict[str, Any] | None = None, **changes: Any) -> CardFacts:
    costs = {"false_positive": 1, "false_negative": 4}
    boosted = {"boosted": {"kind": "lightgbm"}, "floor": {"kind": "dummy"}}
    given: dict[str, Any] = {
        "use_case": use_case(training={"candidates": boosted, "costs": costs}, **(case or {})),
        "metadata": metadata(),
        "training": training(),
        "snapshot": snapshot({"bills": SourceFacts(4, 1_204_551, 312)}),
        "evaluation": evaluation(),
        "gate": gate(),
        "model": ModelFacts(0.2, None, "isotonic", {"lightgbm": "4.6.0", "numpy": "2.3.1"}),
        "lock_sha256": "ab" * 32,
        "shown_at": NOW,
    }
    return CardFacts(**{**given, **changes})


def snapshot(sources: dict[str, SourceFacts]) -> DataSnapshot:
    as_of = datetime(2025, 1, 1, tzinfo=UTC)
    return DataSnapshot(as_of, datetime(2025, 1, 10, 8, tzinfo=UTC), sources)
