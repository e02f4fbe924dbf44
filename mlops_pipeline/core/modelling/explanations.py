"""Why a model scores as it does: contributions to a score, importance, likeness to the champion.

Belongs here: what follows from contributions. Reasons in words are reasons.py's, the declared
directions directions.py's.

One scale throughout: the log-odds of the score before calibration. Calibration never turns an
order round, so what raises the one raises the other; by how much, it changes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.frame import LabelledFrame
from mlops_pipeline.core.modelling.directions import DirectionCheck, check_directions
from mlops_pipeline.core.modelling.fitting import Contributions, kind_of
from mlops_pipeline.core.modelling.scoring import Columns, Floats, ScoringModel

EXPLAINED_ROWS = 2_000  # of the test part, drawn; contributions are exact for each of them
GROUP_ROWS = 100  # fewer explained rows of a group say little about it
GROUP_INPUTS = 5  # the inputs whose importance in a group differs most are kept
TOP_INPUTS = 10  # compared between champion and challenger
FEWEST_RANKED = 3  # a rank correlation of two inputs is 1 or -1 by chance


@dataclass(frozen=True)
class GroupImportance:
    """Mean |SHAP| in one group, of the inputs that differ most from the whole."""

    column: str
    group: str
    rows: int
    shap: Mapping[str, float]


@dataclass(frozen=True)
class AttributionComparison:
    """How alike champion and challenger weigh their inputs on the same rows; or why unknown.

    Parameters
    ----------
    rank_correlation : float in [-1, 1] or None
        Spearman's, of mean |SHAP| over the union of inputs; an input that one lacks counts 0 there.
    top_overlap : float in [0, 1] or None
        Share of the (at most ten) most important inputs that both have in common.
    """

    version: int
    rows: int
    rank_correlation: float | None
    top_overlap: float | None
    reason: str | None


@dataclass(frozen=True)
class Explanation:
    """What the test part shows of how a model works; `shap` is mean |SHAP|, largest first."""

    shap: Mapping[str, float]
    by_slice: tuple[GroupImportance, ...]
    champion: AttributionComparison | None
    directions: tuple[DirectionCheck, ...]


def explain(model: ScoringModel, columns: Columns) -> Contributions:
    """Return the contributions to every row's log-odds, as the model's kind computes them."""
    return kind_of(model.kind).explain(model, model.encode(columns))


def explain_model(
    use_case: UseCase,
    model: ScoringModel,
    test: LabelledFrame,
    *,
    champion: tuple[int, ScoringModel] | None,
) -> Explanation:
    """Explain a model on a sample of the test part.

    Parameters
    ----------
    champion : (version, model), optional
        The champion at the time of the evaluation.
    """
    rng = np.random.default_rng(use_case.training.seed)
    rows = rng.permutation(len(test))[:EXPLAINED_ROWS]
    columns = {name: values[rows] for name, values in test.columns.items()}
    sizes = np.abs(explain(model, columns).values)
    shap = _importance(model, sizes)
    return Explanation(
        shap=dict(sorted(shap.items(), key=lambda pair: -pair[1])),
        by_slice=tuple(_by_slice(use_case, model, test, rows, sizes)),
        champion=_compare(shap, *champion, columns) if champion is not None else None,
        directions=check_directions(use_case, model, columns),
    )


def _importance(model: ScoringModel, sizes: Floats) -> dict[str, float]:
    return dict(zip(model.input_names, sizes.mean(axis=0).tolist(), strict=True))


def _by_slice(
    use_case: UseCase,
    model: ScoringModel,
    test: LabelledFrame,
    rows: npt.NDArray[np.int64],
    sizes: Floats,
) -> list[GroupImportance]:
    overall = sizes.mean(axis=0)
    found = []
    for column in use_case.evaluation.slices:
        for group, mask in test.groups(column):
            inside = mask[rows]
            if inside.sum() < GROUP_ROWS:
                continue
            means = sizes[inside].mean(axis=0)
            kept = np.argsort(-np.abs(means - overall), kind="stable")[:GROUP_INPUTS]
            shap = {model.input_names[index]: float(means[index]) for index in kept}
            found.append(GroupImportance(column, group, int(inside.sum()), shap))
    return found


def _compare(
    ours: Mapping[str, float], version: int, champion: ScoringModel, columns: Columns
) -> AttributionComparison:
    from scipy.stats import spearmanr

    rows = len(next(iter(columns.values())))
    lacking = [name for name in champion.input_names if name not in columns]
    if lacking:
        reason = f"the champion needs features that no longer exist: {', '.join(lacking[:5])}"
        return AttributionComparison(version, rows, None, None, reason)
    theirs = _importance(champion, np.abs(explain(champion, columns).values))
    union = list(dict.fromkeys((*ours, *theirs)))
    pairs = np.array([[side.get(name, 0.0) for name in union] for side in (ours, theirs)])
    if len(union) < FEWEST_RANKED or (np.ptp(pairs, axis=1) == 0).any():
        reason = "one of the two weighs all its inputs alike"
        if len(union) < FEWEST_RANKED:
            reason = f"only {len(union)} inputs (at least {FEWEST_RANKED})"
        return AttributionComparison(version, rows, None, None, reason)
    tops = [_top(ours), _top(theirs)]
    overlap = len(tops[0] & tops[1]) / max(map(len, tops))
    correlation = float(spearmanr(pairs[0], pairs[1]).statistic)
    return AttributionComparison(version, rows, correlation, overlap, None)


def _top(shap: Mapping[str, float]) -> set[str]:
    ranked = sorted(shap.items(), key=lambda pair: (-pair[1], pair[0]))
    return {name for name, value in ranked[:TOP_INPUTS] if value > 0}
