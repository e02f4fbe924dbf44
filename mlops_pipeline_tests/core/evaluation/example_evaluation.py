"""An evaluation with figures that look real, made by the real code from simulated scores."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from mlops_pipeline.config import UseCase
from mlops_pipeline.config.modelling import Fairness
from mlops_pipeline.core.documents import plots
from mlops_pipeline.core.documents.pages import (
    ReportFacts,
    parity_limits,
    singles,
)
from mlops_pipeline.core.documents.records import (
    CandidateFacts,
    PartFacts,
    SourceFacts,
    TrainingFacts,
)
from mlops_pipeline.core.evaluation.evaluation import (
    ChampionComparison,
    Evaluation,
    Slice,
    review_band,
)
from mlops_pipeline.core.evaluation.gates import evaluate_gate
from mlops_pipeline.core.fairness.audit import audit_attributes
from mlops_pipeline.core.fairness.variants import Mitigated, Variant
from mlops_pipeline.core.metrics.intervals import bootstrap_metrics
from mlops_pipeline.core.metrics.metrics import Estimate, point_metrics
from mlops_pipeline.core.modelling.calibration import reliability_curve
from mlops_pipeline.core.modelling.explanations import (
    AttributionComparison,
    DirectionCheck,
    Explanation,
    GroupImportance,
)
from mlops_pipeline.core.modelling.scoring import Decisions, ScoringModel
from mlops_pipeline.spec.metrics import GATE_METRICS

ROWS = 4_000
THRESHOLD = 0.2
GATES: Sequence[dict[str, Any]] = (
    {"rule": "metric", "metric": "roc_auc", "at_least": 0.72},
    {"rule": "metric", "metric": "brier", "at_most": 0.2},
    {"rule": "train_test_gap", "metric": "roc_auc", "at_most": 0.05},
    {"rule": "not_worse_than_champion", "metric": "roc_auc", "by": 0.01},
    {"rule": "better_than_champion", "metric": "roc_auc", "by": 0.02, "effect": "review"},
    {"rule": "worst_slice", "metric": "roc_auc", "at_least": 0.6},
    {"rule": "demographic_parity", "at_most": 0.05},
)


def use_case(gates: Sequence[dict[str, Any]] = GATES, **changes: Any) -> UseCase:
    columns = {"customer_id": "int64", "happened_at": "timestamp", "amount": "float64"}
    columns |= {"plan": "string", "region": "string", "gender": "string"}
    return UseCase.model_validate(
        {
            "name": "churn",
            "description": "Which customers leave within 90 days.",
            "owner": "customer-analytics",
            "intended_use": "Ranking customers for a retention offer, once a month.",
            "out_of_scope": ["setting prices", "refusing service"],
            "entity": {"name": "customer", "key": "customer_id"},
            "grid": {"every": "month", "start": "2024-01-01"},
            "population": {"source": "bills"},
            "sources": {
                "bills": {"uri": "bills.parquet", "columns": columns, "event_time": "happened_at"}
            },
            "label": {"kind": "event_present", "source": "bills", "horizon_days": 90},
            "views": {
                "billing": {
                    "source": "bills",
                    "columns": {
                        "amount_mean_90d": {
                            "aggregate": "mean",
                            "of": "amount",
                            "window_days": 90,
                            "description": "Monthly bill (EUR).",
                        },
                        "plan": {"aggregate": "last", "of": "plan", "dtype": "string"},
                    },
                }
            },
            "protected": {
                "region": {"source": "bills", "of": "region"},
                "gender": {"source": "bills", "of": "gender"},
            },
            "training": {"candidates": {"boosted": {"kind": "lightgbm"}}},
            "evaluation": {"slices": ["plan", "region", "gender"], "min_slice_rows": 200},
            "gates": list(gates),
            **changes,
        }
    )


def scores(seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], pd.DataFrame]:
    """Labels, calibrated scores, and the groups of each row; the south is scored higher."""
    rng = np.random.default_rng(seed)
    groups = pd.DataFrame(
        {
            "plan": rng.choice(["basic", "plus", "premium"], ROWS, p=[0.5, 0.35, 0.15]),
            "region": rng.choice(["north", "south", "east", "west"], ROWS),
            "gender": rng.choice(["female", "male"], ROWS),
        }
    )
    score = rng.normal(-2.4, 1.3, ROWS) + 0.9 * (groups["region"] == "south").to_numpy()
    p = 1 / (1 + np.exp(-score))
    return (rng.random(ROWS) < p).astype(np.int8), p, groups


def evaluation(
    *,
    champion: ChampionComparison | None = None,
    mitigation: Mitigated | None = None,
    review_width: float = 0.0,
) -> Evaluation:
    y, p, groups = scores()
    threshold = np.full(ROWS, THRESHOLD)
    near = (np.abs(p - threshold) <= review_width / 2) & (review_width > 0)
    decided = Decisions(p, threshold, p >= threshold, near)
    model = ScoringModel({"threshold": THRESHOLD, "review_band": review_width}, None)
    band = review_band(model, y.astype(np.int8), decided)
    train_y, train_p, _ = scores(1)
    slices = [
        _slice(column, str(name), y[mask], p[mask])
        for column in ("plan", "region", "gender")
        for name in sorted(groups[column].unique())
        for mask in [(groups[column] == name).to_numpy()]
    ]
    noise = np.random.default_rng(3).random(ROWS)
    return Evaluation(
        metrics=bootstrap_metrics(y, p, THRESHOLD, seed=1, replicates=60),
        train_metrics=point_metrics(train_y, train_p, THRESHOLD),
        slices=tuple(slices),
        stress=(
            _slice("stress", "view billing arrives empty", y, 0.7 * p + 0.3 * noise),
            _slice("stress", "first seen within 180 days", y[:900], p[:900]),
        ),
        fairness=audit_attributes(
            Fairness(),
            {name: groups[name].to_numpy() for name in ("region", "gender")},
            y,
            (p >= THRESHOLD).astype(int),
            scores=p,
        ),
        champion=champion,
        reliability=reliability_curve(y, p),
        explanations=Explanation(
            shap={"amount_mean_90d": 0.412, "plan": 0.1333, "tenure_days": 0.02},
            by_slice=(GroupImportance("plan", "basic", 812, {"plan": 0.3, "tenure_days": 0.01}),),
            champion=None
            if champion is None
            else AttributionComparison(champion.version, 2_000, 0.912, 0.8, None),
            directions=(
                DirectionCheck("amount_mean_90d", "increasing", "increasing", 0.034, True, None),
                DirectionCheck("tenure_days", "decreasing", "increasing", 0.81, False, None),
                DirectionCheck("visits", "increasing", None, None, None, "one value only"),
            ),
        ),
        review_band=band,
        mitigation=mitigation,
    )


def mitigated() -> Mitigated:
    """A base model above its limit, a variant within it that was chosen, one not computable."""
    figures: dict[str, float | None] = {"expected_cost": 0.2613, "log_loss": 0.2345}
    figures |= {"roc_auc": 0.791, "precision": 0.31, "recall": None}
    near = {"region": 0.081, "gender": 0.002}
    base = Variant("base", "none", False, figures, near, 0.081, reason="region 0.081 above 0.035")
    fair = Variant(
        name="grid_search 3 of 4",
        method="grid_search",
        uses_attribute=False,
        figures={**figures, "expected_cost": 0.2718},
        disparities={"region": 0.029, "gender": 0.004},
        disparity=0.029,
        passes=True,
        chosen=True,
        reason="within the limits",
        test={**figures, "disparity of region": 0.0312, "disparity of gender": 0.003},
    )
    unknown = Variant(
        name="reweighing",
        method="reweighing",
        uses_attribute=False,
        figures=figures,
        disparities={"region": None, "gender": 0.0},
        reason="region is not computable",
    )
    return Mitigated(
        because="demographic parity difference at most 0.05: region 0.086",
        attributes=("region",),
        limit=0.05,
        limits={"region": 0.05, "gender": 0.05},
        within={"region": 0.035, "gender": 0.035},
        prefer="expected_cost",
        variants=(base, fair, unknown),
        chosen="grid_search 3 of 4",
        reason="grid_search 3 of 4 is the best of 1 variants within the limits",
    )


def comparison(difference: float = 0.004) -> ChampionComparison:
    estimates = {
        name: Estimate(difference, difference - 0.006, difference + 0.006)
        for name in ("roc_auc", "pr_auc", "brier", "log_loss")
    }
    return ChampionComparison(3, 2_480, estimates, None)


def facts(
    *,
    gates: Sequence[dict[str, Any]] = GATES,
    champion: ChampionComparison | None = None,
    measured: Evaluation | None = None,
    with_plots: bool = False,
    **changes: Any,
) -> ReportFacts:
    case, measured = use_case(gates, **changes), measured or evaluation(champion=champion)
    y, p, _ = scores()
    return ReportFacts(
        use_case=case,
        training=training(measured, float(y.mean())),
        provenance={
            "Dagster run": "3f0c1d2e-7c55-4a0c-9a43-1d0f6f1f2a11",
            "MLflow run": "9a0b4f6e7d8c4b1f8a2e3c4d5e6f7081",
            "fingerprint": "5b1d6c0f9a7e4d3c",
            "git commit": "0f3a9c1",
        },
        sources={"bills": SourceFacts(4, 1_204_551, 312), "accounts": SourceFacts(2, 20_000)},
        threshold=f"{THRESHOLD:g}",
        evaluation=measured,
        gate=evaluate_gate(case.gates, measured),
        plots=pictures(measured, case, y, p) if with_plots else {},
        links={"What changed between training and test (Evidently)": "evidently.html"},
        notes=(
            "These figures belong to the evaluated model. The registered one has the same recipe "
            "and is fitted again on all labelled rows.",
        ),
    )


def training(measured: Evaluation, positive_rate: float) -> TrainingFacts:
    validation = {
        name: measured.train_metrics[name].value for name in ("roc_auc", "pr_auc", "brier")
    }
    return TrainingFacts(
        use_case="churn",
        fingerprint="5b1d6c0f9a7e4d3c",
        as_of=datetime(2026, 1, 1, tzinfo=UTC),
        chosen="boosted",
        reason="lowest validation log loss: boosted 0.2345, logistic 0.2391",
        candidates=(
            CandidateFacts("boosted", "lightgbm", 40, 12.34, 0.2345, validation),
            CandidateFacts("logistic", "logistic", None, 1.2, 0.2391, validation),
        ),
        parts={
            "train": PartFacts(("2024-01-01", "2025-01-01"), 182_344, 0.0812),
            "validation": PartFacts(("2025-04-01", "2025-05-01"), 31_020, 0.0795),
            "test": PartFacts(("2025-08-01", "2025-09-01"), ROWS, positive_rate),
        },
        purged=40_212,
        labelled_rows=257_576,
        dropped_inputs={"fax_number_count": "constant"},
        train_metrics=measured.train_metrics,
        train_maxima={},
        train_missing={},
        importance={},
    )


def pictures(
    measured: Evaluation, case: UseCase, y: np.ndarray[Any, Any], p: np.ndarray[Any, Any]
) -> dict[str, bytes]:
    steps = np.arange(120)
    curves = {
        "train": list(0.22 + 0.06 * np.exp(-steps / 30)),
        "validation": list(0.234 + 0.05 * np.exp(-steps / 25) + 1e-5 * steps),
    }
    limits = parity_limits(case)
    return {
        "reliability": plots.reliability_plot(measured.reliability),
        "roc": plots.roc_plot(y, p),
        "precision_recall": plots.precision_recall_plot(y, p),
        "scores": plots.score_plot(y, p, THRESHOLD),
        "confusion": plots.confusion_plot(y, p, THRESHOLD),
        "slices": plots.slice_plot(measured.slices, "roc_auc", measured.metrics["roc_auc"]),
        "shap": plots.importance_plot(
            measured.explanations.shap, title="SHAP", axis="mean |SHAP|, log odds"
        ),
        "learning_curves": plots.learning_plot(curves, 90),
        **{
            f"fairness_{audit.attribute}": plots.selection_plot(audit, limits.get(audit.attribute))
            for audit in singles(measured.fairness)
        },
    }


def _slice(column: str, group: str, y: np.ndarray[Any, Any], p: np.ndarray[Any, Any]) -> Slice:
    figures = bootstrap_metrics(y, p, THRESHOLD, metrics=GATE_METRICS, replicates=30, seed=2)
    return Slice(column, group, len(y), int(y.sum()), figures)
