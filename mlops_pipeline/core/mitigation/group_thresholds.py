"""Thresholds by group: the decisions of least expected cost among those of similar selection rates.

Both rules are found from probabilities alone, without labels or randomisation: selecting a row of
probability p costs c_fp (1 - p), not selecting it c_fn p. scoring.py applies them. `by_group` looks
the attribute up; with several, a combination has the costs' threshold moved by what each of its
values is worth. `by_estimated_group` must not: threshold(x) = sum over groups of P(group | x)
threshold_group is the form of the best rule that does not see the attribute (Chzhen et al. 2020;
Denis et al. 2021), with the probability estimated from the model's own inputs.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from mlops_pipeline.config.modelling import CROSSED, Costs
from mlops_pipeline.core.data.frame import Columns, Flags, Indices
from mlops_pipeline.core.fairness.audit import attribute_values
from mlops_pipeline.core.fairness.variants import NO_GROUP, Codes, Limits
from mlops_pipeline.core.metrics.metrics import Floats
from mlops_pipeline.core.mitigation import methods
from mlops_pipeline.core.modelling import scoring
from mlops_pipeline.core.modelling.calibration import fit_calibration, folds, threshold_from_costs
from mlops_pipeline.core.modelling.fitting import Inputs
from mlops_pipeline.core.modelling.kinds.logistic import prepare, rounded
from mlops_pipeline.core.modelling.train import decide_as
from mlops_pipeline.errors import DataError

Tune = Callable[[Floats, Flags, float], list[float]]  # probability, which rows, share of limits
AIMS = (0.9, 0.6, 0.3)  # shares of what a disparity has to be within: thresholds for each
ESTIMATED_ROWS = 20_000  # of the training part: enough for a few dozen coefficients
TUNED_ROWS = 20_000  # of the validation part, about: as many variables of a linear programme
PENALTY_C = 0.05  # inverse strength of the L2 penalty, as of logistic candidates
MAX_ITERATIONS = 300
NEVER = 2.0  # a threshold that no probability reaches
TINY = 1e-12  # of a rate


def variants(
    context: methods.MitigationContext, base: methods.Candidate, within: Limits
) -> Iterable[methods.Candidate]:
    """Yield the base model with thresholds tuned on the validation part, and cross-fitted."""
    aim = min(within[name] for name in context.trigger.above)
    rule, tune = _threshold_rule(context, within, aim)
    held, document = context.held, base.model.document
    scores, kind = base.model.raw_scores(context.held_matrix), document["calibration"]["kind"]
    every = np.ones(len(scores), dtype=np.bool_)
    divisions = []
    for inside, rest in [(every, every), *folds(held.label, held.entity)]:
        calibration = fit_calibration(kind, scores[rest], held.label[rest])
        divisions.append((inside, rest, scoring.apply_calibration(calibration, scores[rest])))
    for share in AIMS:
        threshold = np.empty(len(scores))
        decided = []
        for inside, rest, probability in divisions:  # all rows first, then fold by fold
            limits = tune(probability, rest, share)
            decided.append({**document, "thresholds": {**rule, "limits": limits}})
            columns = {name: values[inside] for name, values in held.protected.items()}
            matrix = context.held_matrix[inside]
            threshold[inside] = scoring.row_thresholds(decided[-1], columns, matrix)
        yield methods.Candidate(
            name=f"group_thresholds for {aim * share:.3g}",
            model=base.model.revised(**decided[0]),
            recipe=methods.MitigationRecipe("group_thresholds", context.groups),
            importance=base.importance,
            probability=base.probability,
            threshold=threshold,
        )


def refit(rows: methods.GroupedRows, _recipe: methods.MitigationRecipe) -> scoring.ScoringModel:
    """Learn the probabilities of groups anew; thresholds stay."""
    again = decide_as(rows.base, rows.fit(rows.label, None).model)
    rule = again.document.get("thresholds", {})
    if rule.get("kind") != "by_estimated_group":
        return again
    seed = rows.use_case.training.seed
    shares = fit_group_shares(rows.inputs, rows.matrix, rows.codes, seed=seed)
    return again.revised(thresholds={**rule, **shares})


def _threshold_rule(
    context: methods.MitigationContext, within: Limits, aim: float
) -> tuple[dict[str, Any], Tune]:
    """Return how thresholds are applied to a row, and how they are found on given rows."""
    least, costs = context.use_case.fairness.min_group_rows, context.costs
    if context.use_case.fairness.attribute_at_decision == "allowed":
        attributes, groups = context.groups.attributes, context.groups.values
        if len(attributes) > 1:
            return _joint_rule(context, within)
        rule: dict[str, Any] = {
            "kind": "by_group",
            "attributes": list(attributes),
            "groups": [[list(each) for each in group] for group in groups],
        }
        return rule, lambda probability, rows, share: limits_by_group(
            *(probability, context.held_codes[rows], len(groups)),
            costs=costs,
            aim=aim * share,
            min_rows=least,
        )
    train, seed = context.train, context.use_case.training.seed
    rule = fit_group_shares(train.inputs, train.matrix, train.codes, seed=seed)
    shares = scoring.group_shares(rule, context.held_matrix)
    return rule, lambda probability, rows, share: limits_by_estimated_group(
        probability, shares[:, rows], costs=costs, aim=aim * share
    )


def _joint_rule(context: methods.MitigationContext, within: Limits) -> tuple[dict[str, Any], Tune]:
    """Return the rule and its search for several attributes, where they may be looked up."""
    attributes, protected = context.groups.attributes, context.held.protected
    seen = {tuple(row) for row in zip(*(protected[name] for name in attributes), strict=True)}
    seen |= {values for group in context.groups.values for values in group}
    combinations = sorted(values for values in seen if None not in values)
    columns = {
        name: np.array([values[at] for values in combinations], dtype=object)
        for at, name in enumerate(attributes)
    }
    limited = [name for name in within if set(name.split(CROSSED)) <= set(attributes)]
    of_rows = {name: attribute_values(protected, name) for name in limited}
    of_combinations = {name: attribute_values(columns, name) for name in limited}
    rule = {
        "kind": "by_group",
        "attributes": list(attributes),
        "groups": [[list(values)] for values in combinations],
    }
    return rule, lambda probability, rows, share: limits_jointly(
        probability,
        {name: values[rows] for name, values in of_rows.items()},
        of_combinations,
        costs=context.costs,
        within={name: within[name] * share for name in limited},
        min_rows=context.use_case.fairness.min_group_rows,
    )


def limits_by_group(
    probability: Floats, codes: Codes, count: int, *, costs: Costs, aim: float, min_rows: int
) -> list[float]:
    """Return a threshold for each group, so that selection rates differ by at most `aim`.

    The expected cost of a group is convex in its selection rate, so within any interval of rates
    its best rate is the one nearest to that of the threshold from the costs: all intervals
    [rate, rate + aim] are compared. Equal probabilities are never divided. Groups under `min_rows`
    rows are not judged, and keep the threshold from the costs.
    """
    limits = [_start(costs)] * count
    judged = [code for code in range(count) if np.sum(codes == code) >= min_rows]
    curves = [_RateCurve.of(probability[codes == code], costs) for code in judged]
    if not curves:
        return limits
    lows = np.unique(np.concatenate([curve.rates for curve in curves]))
    picks = np.stack([curve.nearest(lows, aim) for curve in curves])
    totals = sum(curve.cost[pick] for curve, pick in zip(curves, picks, strict=True))
    best = int(np.argmin(np.where((picks < 0).any(axis=0), np.inf, totals)))  # to select none: >= 0
    for code, curve, pick in zip(judged, curves, picks[:, best], strict=True):
        if pick != curve.free:
            limits[code] = float(curve.cuts[pick])
    return limits


@dataclass(frozen=True)
class _RateCurve:
    """A group's reachable selection rates, ascending; `free` is that of the costs' threshold."""

    rates: Floats
    cost: Floats
    cuts: Floats
    free: int

    @classmethod
    def of(cls, probability: Floats, costs: Costs) -> Self:
        values, counts = np.unique(probability, return_counts=True)
        values, counts = values[::-1], counts[::-1]
        both = costs.false_positive + costs.false_negative
        gains = counts * (costs.false_positive - both * values)
        return cls(
            rates=np.concatenate([[0], np.cumsum(counts)]) / len(probability),
            cost=np.concatenate([[0.0], np.cumsum(gains)]),
            cuts=np.concatenate([[NEVER], (values[:-1] + values[1:]) / 2, [0.0]]),
            free=int(np.sum(values >= _start(costs))),
        )

    def nearest(self, lows: Floats, aim: float) -> Indices:
        """Return the position nearest to `free` within [low, low + aim] for each low, or -1."""
        first = np.searchsorted(self.rates, lows - TINY)
        last = np.searchsorted(self.rates, lows + aim + TINY, side="right") - 1
        return np.where(first <= last, np.clip(self.free, first, last), -1)


def _start(costs: Costs) -> float:
    return threshold_from_costs(costs.false_positive, costs.false_negative)


def limits_jointly(
    probability: Floats,
    of_rows: Columns,
    of_combinations: Columns,
    *,
    costs: Costs,
    within: Limits,
    min_rows: int,
) -> list[float]:
    """Return a threshold for each combination, so that every attribute is within its limit."""
    shares: list[Floats] = []
    owners: list[int] = []
    found: list[tuple[str, Any]] = []
    for number, (name, values) in enumerate(of_rows.items()):
        for value in sorted({value for value in values if value is not None}):
            mine = np.asarray(values == value, dtype=np.float64)
            if mine.sum() >= min_rows:
                shares.append(mine)
                owners.append(number)
                found.append((name, value))
    limits = np.full(len(next(iter(of_combinations.values()))), _start(costs))
    if not shares:
        return [float(limit) for limit in limits]
    worth = _worth(probability, np.stack(shares), owners, list(within.values()), costs)
    for (name, value), moved in zip(found, worth, strict=True):
        limits[of_combinations[name] == value] += moved
    return [rounded(float(limit)) for limit in limits]


def limits_by_estimated_group(
    probability: Floats, shares: Floats, *, costs: Costs, aim: float
) -> list[float]:
    """Return a threshold for each group, to be mixed by P(group | x), for rates within `aim`."""
    worth = _worth(probability, shares, [0] * len(shares), [aim], costs)
    return [rounded(_start(costs) + float(moved)) for moved in worth]


def _worth(
    probability: Floats, shares: Floats, owners: Sequence[int], aims: Sequence[float], costs: Costs
) -> Floats:
    """Return by how much each group moves the threshold of the rows that belong to it.

    `shares` (n_groups, n_rows) is how much of a row belongs to a group, `owners` the attribute of
    each group, `aims` how far the rates of an attribute's groups may lie apart. The least expected
    cost under |rate_g - rate_h| <= aim, with rate_g = sum d(x) share_g(x) / sum share_g, is a
    linear programme in the decisions d in [0, 1]. Its multipliers lambda are the thresholds: a row
    is selected above t + sum over g of share_g(x) n lambda_g / ((c_fp + c_fn) sum share_g).
    """
    from scipy.optimize import linprog

    step = max(1, len(probability) // TUNED_ROWS)
    probability, shares = probability[::step], shares[:, ::step]
    groups, rows = shares.shape
    both = costs.false_positive + costs.false_negative
    cost = np.append((costs.false_positive - both * probability) / rows, np.zeros(len(aims)))
    sizes = shares.sum(axis=1)
    lowest = np.zeros((groups, len(aims)))  # the last variables: the lowest rate of each attribute
    lowest[np.arange(groups), owners] = -1.0
    above = np.hstack([shares / sizes[:, None], lowest])
    found = linprog(
        cost,
        A_ub=np.vstack([above, -above]),
        b_ub=np.concatenate([np.asarray(aims)[list(owners)], np.zeros(groups)]),
        bounds=(0, 1),
        method="highs-ds",
    )
    if not found.success:
        raise DataError("no thresholds by group were found", found=str(found.message))
    multipliers = np.asarray(found.ineqlin.marginals)  # <= 0
    lambdas = multipliers[groups:] - multipliers[:groups]
    return np.asarray(rows * lambdas / (both * sizes))


def fit_group_shares(
    inputs: Inputs, matrix: scoring.Matrix, codes: Codes, *, seed: int
) -> dict[str, Any]:
    """Fit P(group | inputs), multinomial logistic, on at most 20,000 rows: JSON for scoring.py."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(np.flatnonzero(codes != NO_GROUP))[:ESTIMATED_ROWS])
    terms, values, *_ = prepare(inputs, matrix[rows])
    estimator = LogisticRegression(C=PENALTY_C, max_iter=MAX_ITERATIONS)
    with threadpool_limits(limits=1):
        estimator.fit(values, codes[rows])
    coefficients, intercepts = estimator.coef_, estimator.intercept_
    if len(intercepts) == 1:  # of two groups scikit-learn keeps the second only
        coefficients = np.vstack([np.zeros_like(coefficients), coefficients])
        intercepts = np.array([0.0, *intercepts])
    return {
        "kind": "by_estimated_group",
        "terms": terms,
        "coefficients": [[rounded(value) for value in column] for column in coefficients.T],
        "intercepts": [rounded(value) for value in intercepts],
    }
