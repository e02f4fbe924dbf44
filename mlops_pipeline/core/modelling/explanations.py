"""Why a model scores as it does: contributions to a score, importance, likeness to the champion.

Belongs here: what follows from contributions, as figures and as reasons in words, and whether the
score rises where it is declared to. One scale throughout: the log-odds of the score before
calibration, which never turns an order round.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlops_pipeline.config.tables import Direction
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.frame import Indices, LabelledFrame
from mlops_pipeline.core.modelling.fitting import Contributions, kind_of
from mlops_pipeline.core.modelling.scoring import Columns, Flags, Floats, Matrix, ScoringModel
from mlops_pipeline.spec.rules import DirectionRule

EXPLAINED_ROWS = 2_000  # of the test part, drawn; contributions are exact for each of them
GROUP_ROWS = 100  # fewer explained rows of a group say little about it
GROUP_INPUTS = 5  # the inputs whose importance in a group differs most are kept
TOP_INPUTS = 10  # compared between champion and challenger
FEWEST_RANKED = 3  # a rank correlation of two inputs is 1 or -1 by chance
INTERVALS = 20  # of equal numbers of rows; fewer where values repeat
CONTRIBUTION_DIGITS = 6  # decimals of a log-odds; a tie beyond them goes by the order of inputs
VALUE_DIGITS = 6  # significant ones of a number: a float32 holds no more
UNKNOWN = "not known"
FLAT = 0.05  # all moves together, in log-odds: below, the odds change by less than about 5 %


@dataclass(frozen=True)
class DirectionCheck:
    """A declared direction and what the model does; `found` None with a reason: not computable."""

    feature: str
    expected: Direction
    found: str | None
    violation: float | None
    passed: bool | None
    reason: str | None


@dataclass(frozen=True)
class GroupImportance:
    """Mean |SHAP| in one group, of the inputs that differ most from the whole."""

    column: str
    group: str
    rows: int
    shap: Mapping[str, float]


@dataclass(frozen=True)
class AttributionComparison:
    """How alike champion and challenger weigh their inputs on the same rows; or why unknown."""

    version: int
    rows: int
    rank_correlation: float | None  # Spearman's, of mean |SHAP|; of an input that one lacks, 0
    top_overlap: float | None  # the share of the ten largest that both have
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
    """Explain a model on a sample of the test part."""
    rng = np.random.default_rng(use_case.training.seed)
    rows = rng.permutation(len(test))[:EXPLAINED_ROWS]
    columns = {name: values[rows] for name, values in test.columns.items()}
    sizes, shap = _importance(model, columns)
    return Explanation(
        shap=dict(sorted(shap.items(), key=lambda pair: -pair[1])),
        by_slice=tuple(_by_slice(use_case, model, test, rows, sizes)),
        champion=_compare(shap, *champion, columns) if champion is not None else None,
        directions=check_directions(use_case, model, columns),
    )


def _importance(model: ScoringModel, columns: Columns) -> tuple[Floats, dict[str, float]]:
    """Return |SHAP| of every row and input, and its mean of each input."""
    sizes = np.abs(explain(model, columns).values)
    return sizes, dict(zip(model.input_names, sizes.mean(axis=0).tolist(), strict=True))


def _by_slice(
    use_case: UseCase, model: ScoringModel, test: LabelledFrame, rows: Indices, sizes: Floats
) -> list[GroupImportance]:
    overall, found = sizes.mean(axis=0), []
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
    _, theirs = _importance(champion, columns)
    union = list(dict.fromkeys((*ours, *theirs)))
    pairs = np.array([[side.get(name, 0.0) for name in union] for side in (ours, theirs)])
    if len(union) < FEWEST_RANKED:
        reason = f"only {len(union)} inputs (at least {FEWEST_RANKED})"
        return AttributionComparison(version, rows, None, None, reason)
    if (np.ptp(pairs, axis=1) == 0).any():
        reason = "one of the two weighs all its inputs alike"
        return AttributionComparison(version, rows, None, None, reason)
    tops = [_top(ours), _top(theirs)]
    overlap = len(tops[0] & tops[1]) / max(map(len, tops))
    correlation = float(spearmanr(pairs[0], pairs[1]).statistic)
    return AttributionComparison(version, rows, correlation, overlap, None)


def _top(shap: Mapping[str, float]) -> set[str]:
    ranked = sorted(shap.items(), key=lambda pair: (-pair[1], pair[0]))
    return {name for name, value in ranked[:TOP_INPUTS] if value > 0}


def check_directions(
    use_case: UseCase, model: ScoringModel, columns: Columns
) -> tuple[DirectionCheck, ...]:
    """Hold declared directions against the model's accumulated local effects (Apley & Zhu 2020).

    The rows are none that it was fitted on. Violation = moves against the direction / all moves, in
    absolute size (docs/evaluation.md); the strictest `expected_directions` rule limits it.
    """
    limits = [rule.at_most for rule in use_case.gates if isinstance(rule, DirectionRule)]
    limit = min(limits, default=DirectionRule(rule="expected_directions").at_most)
    matrix = model.encode(columns)
    return tuple(
        _check(feature, expected, model, matrix, limit)
        for feature, expected in use_case.directions.items()
    )


def local_moves(model: ScoringModel, matrix: Matrix, index: int) -> Floats:
    """Return the mean change of the log-odds in each interval of an input; none of a constant."""
    rows = matrix[~np.isnan(matrix[:, index])]
    values = rows[:, index]
    if len(values) == 0:
        return np.empty(0)
    steps = np.linspace(0, 1, INTERVALS + 1)
    edges = np.unique(np.quantile(values, steps, method="inverted_cdf"))
    if len(edges) < 2:
        return np.empty(0)
    interval = np.clip(np.searchsorted(edges, values), 1, len(edges) - 1) - 1
    ends = []
    for end in (edges[interval], edges[interval + 1]):
        moved = rows.copy(order="F")
        moved[:, index] = end
        ends.append(model.log_odds(moved))
    total = np.bincount(interval, weights=ends[1] - ends[0])
    return np.asarray(total / np.bincount(interval), dtype=np.float64)


def _check(
    feature: str, expected: Direction, model: ScoringModel, matrix: Matrix, limit: float
) -> DirectionCheck:
    if feature not in model.input_names:
        return DirectionCheck(feature, expected, "flat", 0.0, True, "no input of this model")
    moves = local_moves(model, matrix, model.input_names.index(feature))
    if len(moves) == 0:
        reason = "fewer than two different values among the rows"
        return DirectionCheck(feature, expected, None, None, None, reason)
    total = float(np.abs(moves).sum())
    if total < FLAT:
        reason = f"flat: the log-odds move by {total:.4f} in all"
        return DirectionCheck(feature, expected, "flat", 0.0, True, reason)
    against = np.clip(-moves if expected == "increasing" else moves, 0, None)
    violation = float(against.sum()) / total
    found = "increasing" if moves.sum() > 0 else "decreasing"
    return DirectionCheck(feature, expected, found, violation, violation <= limit, None)


@dataclass(frozen=True)
class Wording:
    """How an input is called and how its values read."""

    text: str
    dtype: str
    precision: int


Wordings = Mapping[str, Wording]  # by input


@dataclass(frozen=True)
class Reason:
    """One input's push on the log-odds: above 0 it raises the score, below it lowers it."""

    feature: str
    text: str
    contribution: float


def word_inputs(use_case: UseCase) -> dict[str, Wording]:
    """Return the wording of all features but those that hold what a reason must never name."""
    withheld = use_case.sensitive_features(with_counts=True)
    wording = {}
    for name, item in use_case.definitions.items():
        if name not in withheld:
            text = item.description.strip().removesuffix(".") or name.replace("_", " ")
            wording[name] = Wording(f"{text[0].upper()}{text[1:]}", item.dtype, item.precision)
    return wording


def give_reasons(
    model: ScoringModel, columns: Columns, decisions: Flags, wording: Wordings, count: int
) -> list[list[Reason]]:
    """Return for every row up to `count` reasons for its decision, the strongest first."""
    names = model.input_names
    values = np.round(explain(model, columns).values, CONTRIBUTION_DIGITS)
    push = np.where(np.asarray(decisions, dtype=bool)[:, None], values, -values)
    push[:, [name not in wording for name in names]] = 0.0
    order = np.argsort(-push, axis=1, kind="stable")[:, :count]
    return [
        [
            _reason(names[index], columns[names[index]][row], wording, float(values[row, index]))
            for index in strongest
            if push[row, index] > 0
        ]
        for row, strongest in enumerate(order)
    ]


def _reason(name: str, value: Any, wording: Wordings, contribution: float) -> Reason:
    words = wording[name]
    verb = "raises" if contribution > 0 else "lowers"
    return Reason(name, f"{words.text}: {_said(value, words)} ({verb} the score)", contribution)


def _said(value: Any, words: Wording) -> str:
    if value is None or (words.dtype != "string" and np.isnan(value)):
        return UNKNOWN
    if words.dtype == "string":
        return str(value)
    if words.dtype == "boolean":
        return "yes" if value else "no"
    whole = len(str(int(abs(value))))
    text = f"{float(value):,.{max(0, min(words.precision, VALUE_DIGITS - whole))}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text
