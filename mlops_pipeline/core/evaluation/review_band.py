"""The human-review band: how often a person would decide, and how wrong decisions are there.

Belongs here: the figures of the band. Which rows lie in it is the model's (`needs_review`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlops_pipeline.core.metrics.metrics import Estimate, point_metrics
from mlops_pipeline.core.modelling.scoring import Decisions, ScoringModel


@dataclass(frozen=True)
class ReviewBand:
    """Figures of rows that are decided automatically, and of those inside the band.

    `low` and `high` are the probabilities around the default threshold; where thresholds differ
    between rows, the band lies around each row's own. `share` is the share of rows inside.
    """

    low: float
    high: float
    share: float
    automatic: Mapping[str, Estimate]
    inside: Mapping[str, Estimate]


def review_band(
    model: ScoringModel, label: npt.NDArray[np.int8], decided: Decisions
) -> ReviewBand | None:
    """Return the figures of the model's band, None when it has none."""
    width = float(model.document.get("review_band", 0.0))
    if not width:
        return None
    inside = decided.needs_review
    return ReviewBand(
        low=model.threshold - width / 2,
        high=model.threshold + width / 2,
        share=float(np.mean(inside)),
        automatic=_figures(label, decided, ~inside),
        inside=_figures(label, decided, inside),
    )


def _figures(
    label: npt.NDArray[np.int8], decided: Decisions, rows: npt.NDArray[np.bool_]
) -> dict[str, Estimate]:
    if not rows.any():
        return {"error_rate": Estimate(None, reason="no rows")}
    label, said = label[rows], decided.take(rows)
    wrong = float(np.mean(said.decision != (label == 1)))
    figures = point_metrics(
        label, said.probability, said.threshold, metrics=("precision", "recall")
    )
    return {"error_rate": Estimate(wrong), **figures}
