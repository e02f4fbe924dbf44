"""How often each rule of the gate errs: the gate itself, held against simulated evaluations.

Rows are drawn of which the truth is known, an `Evaluation` is made of them by what a run uses, and
`evaluate_gate` holds every rule against it: with its limit at the truth, where to pass and to fail
are both errors, and with a truth better than the limit by as much as the rule itself says that it
tells. Rules that judge the figure itself have no bounds: there the truth is worse, or better, by
`NEAR`.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.result import Result, Row
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.frame import LabelledFrame
from mlops_pipeline.core.evaluation.evaluation import (
    ChampionComparison,
    Evaluation,
    Slice,
    compare_missing,
)
from mlops_pipeline.core.evaluation.gates import evaluate_gate
from mlops_pipeline.core.evaluation.naive import NaiveScores, compare_naive, learn_naive
from mlops_pipeline.core.evaluation.outcomes import RuleResult
from mlops_pipeline.core.fairness.audit import audit_groups
from mlops_pipeline.core.metrics.intervals import bootstrap_metrics, paired_difference
from mlops_pipeline.core.metrics.metrics import SEVERITY, Estimate, Outcome, point_metrics
from mlops_pipeline.core.modelling.calibration import reliability_curve
from mlops_pipeline.core.modelling.explanations import check_directions, explain, explain_model
from mlops_pipeline.core.modelling.fitting import Fitting, Rows, encode_rows, learn_inputs
from mlops_pipeline.core.modelling.scoring import Decisions, ScoringModel
from mlops_pipeline.spec.kinds import LightGBM
from mlops_pipeline.spec.rules import (
    BetterRule,
    ConsistencyRule,
    DirectionRule,
    GapRule,
    GateRule,
    MetricRule,
    MissingRule,
    NaiveRule,
    NotWorseRule,
    ParityRule,
    SliceRule,
)

Floats = NDArray[np.float64]
SIMULATIONS = 1_000  # a share of 5 % then has a standard error of 0.7 points
SIZES = (200, 1_000, 5_000, 20_000)
METRIC = "roc_auc"
THRESHOLD = 0.3
SLICE_ROWS = 200  # the default
SLICES, WORSE = 4, 0.35  # of equal size; how much less the score of the worst one says
NUMBERS = 10  # inputs; the shares that are missing are the same but for the first
MISSING, MISSING_NOW = 0.1, 0.2
GROUP_SHIFT = 0.25  # of the score, between the two groups
TRUTH_ROWS, TRUTH_DRAWS, TRAIN_ROWS = 2_000_000, 8, 3_000
NEAR = 0.05
EXPLAINED_TRUTH = 200_000
NAIVE: Mapping[str, Any] = {
    "rule": "better_than_naive",
    "metric": METRIC,
    "column": "x1",
    "effect": "block",
}


@dataclass(frozen=True)
class World:
    """Drawn rows: labels, scores of three models, and the columns that rules look at."""

    label: NDArray[np.int8]
    ours: Floats
    theirs: Floats
    group: NDArray[np.intp]
    part: NDArray[np.intp]
    columns: Mapping[str, NDArray[Any]]

    @property
    def frame(self) -> LabelledFrame:
        """As a run holds them."""
        rows = np.arange(len(self.label))
        times = np.zeros(len(rows), "datetime64[us]")
        return LabelledFrame(self.columns, {}, rows, times, times, self.label)

    @property
    def decided(self) -> Decisions:
        """As a model says them."""
        limit, no = np.full(len(self.ours), THRESHOLD), np.zeros(len(self.ours), bool)
        return Decisions(self.ours, limit, self.ours >= limit, no)


def draw(rng: np.random.Generator, rows: int) -> World:
    """Draw rows; in the first part of four the score says less, and one group scores higher."""
    part, group = np.arange(rows) % SLICES, rng.integers(0, 2, rows)
    columns = rng.normal(size=(NUMBERS, rows))
    signal = columns[0] + 0.6 * columns[1] + 0.4 * np.sin(2.5 * columns[2])
    logit = -1.5 + signal + GROUP_SHIFT * group
    label = (rng.random(rows) < _logistic(logit)).astype(np.int8)
    noise = rng.normal(size=(2, rows))
    ours = logit + np.where(part == 0, 1 + WORSE, 1.0) * 0.8 * noise[0]
    lacks = (
        rng.random((NUMBERS, rows))
        < np.where(np.arange(NUMBERS) == 0, MISSING_NOW, MISSING)[:, None]
    )
    shown = np.where(lacks, np.nan, columns).astype(np.float32)
    named = {f"x{index}": values for index, values in enumerate(shown)}
    return World(label, _logistic(ours), _logistic(ours + noise[1]), group, part, named)


def _logistic(logit: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-logit)), dtype=np.float64)


@dataclass(frozen=True)
class Given:
    """What a run has before it looks at the test part: two models, a naive rule, train figures."""

    models: tuple[ScoringModel, ScoringModel]
    naive: NaiveScores
    train_figures: Mapping[str, Estimate]
    train_missing: Mapping[str, float]


@cache
def given() -> Given:
    """Fit two models on a few rows each, and learn the naive rule of one column."""
    train, other = (draw(np.random.default_rng(seed), TRAIN_ROWS) for seed in (1, 2))
    sharp = np.clip(train.ours + 0.06 * (2 * train.label - 1), 0, 1)  # as a model that overfits
    return Given(
        (_fitted(train, 3), _fitted(other, 4)),
        learn_naive("x1", train.columns, train.label),
        point_metrics(train.label, sharp, THRESHOLD, metrics=[METRIC]),
        dict.fromkeys(train.columns, MISSING),
    )


def _fitted(world: World, seed: int) -> ScoringModel:
    rows = np.arange(len(world.label))
    inputs = learn_inputs(world.columns, tuple(world.columns), rows)
    matrix = encode_rows(inputs, world.columns, rows)
    recipe = LightGBM(kind="lightgbm", trees=40, leaves=7)
    known = Rows(matrix, world.label)
    return Fitting("boosted", recipe, inputs, known, None, False, seed, 1).fit().model


@cache
def use_case() -> UseCase:
    """Return a use case of these columns, with the one rule that is learned."""
    columns = {"id": "int64", "at": "timestamp"}
    columns |= {f"x{index}": "float64" for index in range(NUMBERS)}
    features: dict[str, dict[str, Any]] = {
        f"x{index}": {"aggregate": "last", "of": f"x{index}"} for index in range(NUMBERS)
    }
    features["x2"]["expected"] = "increasing"
    source = {"uri": "rows.parquet", "columns": columns, "event_time": "at"}
    return UseCase.model_validate(
        {
            "name": "simulated",
            "description": "Rows of which the truth is known.",
            "owner": "benchmarks",
            "intended_use": "Measuring how often rules err.",
            "out_of_scope": ["anything else"],
            "entity": {"name": "row", "key": "id"},
            "grid": {"every": "month", "start": "2024-01-01"},
            "population": {"source": "rows"},
            "sources": {"rows": source},
            "label": {"kind": "event_present", "source": "rows", "horizon_days": 90},
            "views": {"rows": {"source": "rows", "columns": features}},
            "training": {"candidates": {"boosted": {"kind": "lightgbm"}}},
            "gates": [NAIVE],
        }
    )


def evaluate(world: World) -> Evaluation:
    """Make an evaluation of drawn rows as a run does, of what rules look at."""
    found, label, ours = given(), world.label, world.ours
    model, champion = found.models
    difference = paired_difference(label, ours, world.theirs, metric=METRIC, seed=0, level=0.9)
    parts = [
        bootstrap_metrics(
            *(label[inside], ours[inside], THRESHOLD), metrics=[METRIC], replicates=200, seed=0
        )
        for inside in (world.part == part for part in range(SLICES))
        if inside.sum() >= SLICE_ROWS
    ]
    audit = audit_groups(
        label, ours >= THRESHOLD, world.group, attribute="group", min_group_rows=50
    )
    return Evaluation(
        metrics=bootstrap_metrics(label, ours, THRESHOLD, metrics=[METRIC, "recall"], seed=0),
        train_metrics=found.train_figures,
        slices=tuple(
            Slice("part", str(part), len(label) // SLICES, 0, figures)
            for part, figures in enumerate(parts)
        ),
        stress=(),
        fairness=(audit,),
        champion=ChampionComparison(1, len(label), {METRIC: difference}, None),
        reliability=reliability_curve(label, ours),
        explanations=explain_model(use_case(), model, world.frame, champion=(1, champion)),
        naive=compare_naive(use_case(), [found.naive], world.frame, world.decided),
        missing=compare_missing(found.train_missing, world.columns, world.frame.entity),
    )


@dataclass(frozen=True)
class Judged:
    """A kind of rule, with the truth of its figure; `limited` writes it with a limit.

    Slices count from `first_slice` on; `is_point`: it has no bounds.
    """

    title: str
    truth: float
    is_floor: bool
    limited: Callable[[float], GateRule]
    first_slice: int = 0
    is_point: bool = False

    def outcomes(self, evaluations: Sequence[Evaluation], by: float) -> list[RuleResult]:
        """Let the gate judge with a limit than which the truth is better by this."""
        rule = self.limited(self.truth - by if self.is_floor else self.truth + by)
        return [
            evaluate_gate([rule], replace(one, slices=one.slices[self.first_slice :])).rules[0]
            for one in evaluations
        ]


def _truths(rng: np.random.Generator) -> Floats:
    """Return the figures of rows that are drawn, in the order of `judged_rules`."""
    world, found = draw(rng, TRUTH_ROWS), given()
    whole, selected = _auc(world.label, world.ours), world.ours >= THRESHOLD
    worst, other = (
        _auc(world.label[inside], world.ours[inside])
        for inside in (world.part == 0, world.part > 0)
    )
    return np.array(
        [
            whole,
            float(selected[world.label == 1].mean()),
            whole - _auc(world.label, world.theirs),
            whole - _auc(world.label, found.naive.score(world.columns, TRUTH_ROWS)),
            *(worst, other),
            float(np.ptp([selected[world.group == group].mean() for group in (0, 1)])),
        ]
    )


@cache
def judged_rules(draws: int) -> tuple[Judged, ...]:
    """Return every kind of rule with the truth of its figure, of many rows."""
    drawn = [_truths(np.random.default_rng([99, at])) for at in range(draws)]
    whole, recall, gain, naive, worst, other, apart = np.mean(drawn, axis=0).tolist()
    train = given().train_figures[METRIC].value or 0.0
    against, like = _explained_truth()
    # not validated: some limits lie where nobody would write them
    slices = partial(
        SliceRule.model_construct, rule="worst_slice", metric=METRIC, at_most=None, effect="block"
    )
    better = partial(
        BetterRule.model_construct, rule="better_than_champion", metric=METRIC, effect="block"
    )
    close = partial(
        NotWorseRule.model_construct, rule="not_worse_than_champion", metric=METRIC, effect="block"
    )
    return (
        Judged(
            *("metric roc_auc", whole, True),
            lambda limit: MetricRule(rule="metric", metric=METRIC, at_least=limit),
        ),
        Judged(
            *("metric recall", recall, True),
            lambda limit: MetricRule(rule="metric", metric="recall", at_least=limit),
        ),
        Judged(
            *("train_test_gap", train - whole, False),
            lambda limit: GapRule(rule="train_test_gap", metric=METRIC, at_most=limit),
        ),
        Judged("better_than_champion", gain, True, lambda limit: better(by=limit)),
        Judged("not_worse_than_champion", gain, True, lambda limit: close(by=-limit)),
        Judged(
            *("better_than_naive", naive, True),
            lambda limit: NaiveRule.model_construct(**{**NAIVE, "by": limit}),
        ),
        Judged(
            f"worst_slice, one of {SLICES} is worse",
            *(worst, True, lambda limit: slices(at_least=limit)),
        ),
        Judged(
            f"worst_slice, {SLICES - 1} alike",
            *(other, True, lambda limit: slices(at_least=limit), 1),
        ),
        Judged(
            *("demographic_parity", apart, False),
            lambda limit: ParityRule(rule="demographic_parity", at_most=limit),
        ),
        Judged(
            *(f"missing_share, one of {NUMBERS} inputs", MISSING_NOW - MISSING, False),
            lambda limit: MissingRule(rule="missing_share", at_most=limit),
        ),
        Judged(
            *("expected_directions", against, False),
            lambda limit: DirectionRule(rule="expected_directions", at_most=limit),
            is_point=True,
        ),
        Judged(
            *("attribution_consistency", like, True),
            lambda limit: ConsistencyRule(rule="attribution_consistency", at_least=limit),
            is_point=True,
        ),
    )


def _auc(label: NDArray[np.int8], scores: Floats) -> float:
    return point_metrics(label, scores, metrics=[METRIC])[METRIC].value or 0.0


def _explained_truth() -> tuple[float, float]:
    """Return the violation and the rank correlation of two hundred thousand rows."""
    from scipy.stats import spearmanr

    columns = draw(np.random.default_rng(98), EXPLAINED_TRUTH).columns
    ours, theirs = given().models
    (check,) = check_directions(use_case(), ours, columns)
    importance = [np.abs(explain(model, columns).values).mean(axis=0) for model in (ours, theirs)]
    return check.violation or 0.0, float(spearmanr(*importance).statistic)


def simulate(rows: int, *, simulations: int, seed: int = 0, draws: int = TRUTH_DRAWS) -> list[Row]:
    """Draw samples, and count what the gate says of each rule; the truth is of so many draws."""
    evaluations = [
        evaluate(draw(np.random.default_rng([seed, rows, sample]), rows))
        for sample in range(simulations)
    ]
    return [_row(judged, rows, evaluations) for judged in judged_rules(draws)]


def _row(judged: Judged, rows: int, evaluations: Sequence[Evaluation]) -> Row:
    powers = [one.power for one in judged.outcomes(evaluations, 0.0) if one.power is not None]
    tells = float(np.mean(powers)) if powers else NEAR
    worse, better = (-NEAR, NEAR) if judged.is_point else (0.0, 0.0)
    accepted, refused, told = (
        _shares(judged.outcomes(evaluations, by)) for by in (worse, better, tells)
    )
    return {
        "rule": judged.title,
        "rows": rows,
        "truth": round(judged.truth, 4),
        "truth from the limit": f"{NEAR} beyond, within" if judged.is_point else "at it",
        "false acceptance": accepted["passed"],
        "false refusal": refused["failed"],
        "uncertain": refused["uncertain"],
        "tells": round(tells, 4),
        "power there": told["passed"],
        "not computable": refused["not computable"],
        "own error": round((0.05 * 0.95 / len(evaluations)) ** 0.5, 4),
        "samples": len(evaluations),
    }


def _shares(results: Sequence[RuleResult]) -> dict[Outcome, float]:
    found = [result.outcome for result in results]
    return {outcome: round(found.count(outcome) / len(found), 4) for outcome in SEVERITY}


def main() -> None:
    """Print how often every rule errs, for each size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate_rules", description=__doc__)
    parser.add_argument("--simulations", type=int, default=SIMULATIONS)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    asked = parser.parse_args()
    found = [simulate(rows, simulations=asked.simulations) for rows in asked.sizes]
    summary([row for rows in found for row in rows]).print()


def summary(rows: Sequence[Row]) -> Result:
    """Return the table, one rule after the other, and the worst of it."""
    known = [row for row in rows if row["not computable"] != 1]
    titles = list(dict.fromkeys(str(row["rule"]) for row in known))
    accepted, refused, power = (
        [float(row[name]) for row in known]
        for name in ("false acceptance", "false refusal", "power there")
    )
    return Result(
        name="gate_rules",
        what="how often the gate accepts what it should not, refuses what it should not, and "
        "passes what is better than the limit by what a rule tells; the worst of all rules and "
        "sizes, independent rows",
        figure=f"{max(accepted):.3f}, {max(refused):.3f}, {min(power):.3f}",
        target="at most 0.05, at most 0.05, at least 0.8, each within the error of simulation",
        tables={"": sorted(known, key=lambda row: titles.index(str(row["rule"])))},
    )


if __name__ == "__main__":
    main()
