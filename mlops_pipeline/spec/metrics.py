"""METRICS: all there is to know about a figure of a classifier, but its formula.

Belongs here: name, direction, what it needs, bounds, words, and where it is shown. Everything that
lists metrics walks this table. The formula of the same name is in core/metrics/metrics.py: a
metric is an entry here and a function there.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Literal

from mlops_pipeline.spec.section import OneOf

ECE_BINS = 15  # at most; the number of Guo et al. 2017
ECE_BIN_ROWS = 50  # at least, so that noise does not drown the gaps of a small set
TOP_SHARE = 0.1  # of the rows: those of highest score, for the lift

Place = Literal[
    "comparison",  # with the champion, whatever the gate's rules name
    "slices",  # columns of the report's tables
    "stress",
    "candidates",
    "variants",
    "interface",  # Dagster's metadata
    "changes",  # the model card's changelog
    "status",
]
OVERVIEW: tuple[Place, ...] = ("comparison", "slices", "stress", "interface", "changes")


@dataclass(frozen=True)
class Metric:
    """One figure. Every metric stands in the report's and the card's table of metrics."""

    title: str
    greater_is_better: bool | None  # None: neither direction is, so no rule can judge it
    reading: str  # what it means; `{base}`, `{spread}`, `{entropy}`: what the base rate alone gives
    needs_threshold: bool = False
    undefined: str | None = None  # why it may not be computable of rows (with their threshold)
    bounds: tuple[float, float] = (0, 1)
    display: Literal["number", "share"] = "number"  # a share is shown in percent
    shown: tuple[Place, ...] = ()  # where else it stands


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "roc_auc": Metric(
            title="ROC AUC",
            greater_is_better=True,
            reading="How often a positive case scores higher than a negative one: 0.5 is a coin "
            "toss, 1 is perfect.",
            undefined="one class only",
            shown=(*OVERVIEW, "candidates", "variants", "status"),
        ),
        "pr_auc": Metric(
            title="PR AUC",
            greater_is_better=True,
            reading="Share of true hits among the highest scores, averaged over all cut-offs; "
            "picking blindly gives {base}.",
            undefined="one class only",
            shown=(*OVERVIEW, "candidates", "status"),
        ),
        "lift_top_decile": Metric(
            title="lift at the top decile",
            greater_is_better=True,
            reading="How many times more often the tenth of the cases with the highest scores is "
            "positive than a tenth picked blindly: 1 is no better, 10 the most there can be.",
            undefined="one class only",
            bounds=(0, 1 / TOP_SHARE),
        ),
        "log_loss": Metric(
            title="log loss",
            greater_is_better=False,
            reading="Penalty for probabilities that are confident and wrong, lower is better; "
            "saying {base} for everyone gives {entropy}.",
            bounds=(0, math.inf),
            shown=(*OVERVIEW, "variants", "status"),
        ),
        "brier": Metric(
            title="Brier",
            greater_is_better=False,
            reading="Mean squared distance of the probabilities from what happened, lower is "
            "better; saying {base} for everyone gives {spread}.",
            shown=(*OVERVIEW, "candidates", "status"),
        ),
        "ece": Metric(
            title="ECE",
            greater_is_better=False,
            reading="Mean distance of predicted from observed shares (calibration error), lower "
            "is better.",
            shown=OVERVIEW,
        ),
        "precision": Metric(
            title="precision",
            greater_is_better=True,
            reading="Share of the selected cases that are positive.",
            needs_threshold=True,
            undefined="no row reaches the threshold",
            display="share",
        ),
        "recall": Metric(
            title="recall",
            greater_is_better=True,
            reading="Share of the positive cases that are selected.",
            needs_threshold=True,
            undefined="no positive row",
            display="share",
            shown=("slices", "variants"),
        ),
        "f1": Metric(
            title="F1",
            greater_is_better=True,
            reading="Precision and recall in one figure, between 0 and 1.",
            needs_threshold=True,
            undefined="no positive row and none selected",
        ),
        "accuracy": Metric(
            title="accuracy",
            greater_is_better=True,
            reading="Share of the decisions that are right. Where one class is rare, deciding "
            "alike for everyone does well.",
            needs_threshold=True,
            display="share",
        ),
        "balanced_accuracy": Metric(
            title="balanced accuracy",
            greater_is_better=True,
            reading="Mean of the shares of right decisions among positive and among negative "
            "cases: 0.5 is a coin toss, 1 is perfect.",
            needs_threshold=True,
            undefined="one class only",
        ),
        "mcc": Metric(
            title="MCC",
            greater_is_better=True,
            reading="Correlation of decisions with what happened (Matthews): 0 is no better than "
            "chance, 1 is perfect, -1 always wrong.",
            needs_threshold=True,
            undefined="one class only, or every row decided alike",
            bounds=(-1, 1),
        ),
        "selection_rate": Metric(
            title="selection rate",
            greater_is_better=None,
            reading="Share of the cases that are selected.",
            needs_threshold=True,
            display="share",
        ),
    }
)

GATE_METRICS = tuple(
    name for name, metric in METRICS.items() if metric.greater_is_better is not None
)
MetricName = Annotated[str, OneOf(GATE_METRICS)]  # one that a rule can judge by


def shown_in(place: Place) -> tuple[str, ...]:
    """Return the metrics shown in a place, in the table's order."""
    return tuple(name for name, metric in METRICS.items() if place in metric.shown)
