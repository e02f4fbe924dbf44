"""How often the bounds of figures hold the truth: simulated, of every kind of figure and size.

Scores of a logistic model are drawn with labels of known probability, alone or four rows to an
entity whose labels go together, and groups that are selected at the same or another rate. A
one-sided 95 % bound should miss the truth in at most 5 % of the samples. Of a gate rule whose limit
is the truth, the misses of the lower bound are the false passes of "at least" (the false failures
of "at most"), those of the upper bound the other way round. Widths stand beside those of the best
method that is known, on the same samples.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.best_known import (
    METHODS,
    OF_PAIR,
    OWN_SPREAD,
    decision_widths,
    disparity_widths,
    ece_width,
    score_widths,
)
from benchmarks.result import Result, Row
from mlops_pipeline.core.evaluation.outcomes import tells
from mlops_pipeline.core.fairness.audit import audit_groups
from mlops_pipeline.core.fairness.disparities import DISPARITIES
from mlops_pipeline.core.metrics.intervals import bootstrap_metrics, paired_difference
from mlops_pipeline.core.metrics.metrics import Estimate, ece_bins, point_metrics
from mlops_pipeline.core.metrics.shares import clustered_error
from mlops_pipeline.spec.metrics import METRICS

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]
SIMULATIONS = 1_000  # a miss rate of 5 % then has a standard error of 0.7 points
REPLICATES = 200
THRESHOLD = 0.35
SLOPE = 1.2  # of the logit
SELECTION = {"alike": (0.2, 0.2), "apart": (0.15, 0.2, 0.25)}  # rates of the groups
PER_ENTITY = 4
TRUTH_ROWS, TRUTH_DRAWS = 4_000_000, 8  # a tenth of a standard error at 20,000 rows
AGAIN = 10  # times as many other samples of a figure that missed too often
ALLOWED_MISSES, ALLOWED_WIDTH = 0.07, 1.5


@dataclass(frozen=True)
class Cell:
    """What is drawn: so many rows, alone or four to an entity; a few or many of them positive."""

    rows: int
    is_clustered: bool
    is_rare: bool = False

    @property
    def title(self) -> str:
        """Name it as the tables do."""
        how = "four to an entity" if self.is_clustered else "independent"
        return f"{self.rows:,} rows, {how}, {12 if self.is_rare else 24} % positive"

    @property
    def base(self) -> float:
        """Logit of the label's probability where the score says nothing."""
        return -2.5 if self.is_rare else -1.5


CELLS = (
    *(Cell(rows, clustered) for rows in (200, 1_000) for clustered in (False, True)),
    *(Cell(rows, clustered, True) for rows in (200, 1_000) for clustered in (False, True)),
    *(Cell(rows, clustered) for rows in (5_000, 20_000) for clustered in (False, True)),
)


@dataclass
class Tally:
    """Of one figure in one cell: how often its bounds missed, and how wide they were."""

    method: str
    few: int = 0
    values: list[float] = field(default_factory=list)
    truths: list[float] = field(default_factory=list)
    misses: list[tuple[bool, bool]] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)
    best: list[float] = field(default_factory=list)

    def count(self, estimate: Estimate, truth: float, best: float | None) -> None:
        """Count one sample; one without bounds says nothing wrong."""
        if estimate.value is None or estimate.lower is None or estimate.upper is None:
            return
        slack = 1e-12  # rounding
        self.few += "too few" in (estimate.reason or "")
        self.values.append(estimate.value)
        self.truths.append(truth)
        self.misses.append((truth < estimate.lower - slack, truth > estimate.upper + slack))
        self.widths.append(estimate.upper - estimate.lower)
        if best is not None:
            self.best.append(best)

    @property
    def rates(self) -> tuple[float, float]:
        """Return the share of samples whose lower, and whose upper, bound missed."""
        below, above = np.mean(self.misses, axis=0)
        return float(below), float(above)

    @property
    def is_exact(self) -> bool:
        """Whether most samples did not say that they are too few to be exact."""
        return self.few < len(self.misses) / 2

    @property
    def best_width(self) -> float:
        """Return the mean width of the best known method."""
        if self.best:
            return float(np.mean(self.best))
        return float(np.ptp(np.quantile(self.values, [0.05, 0.95])))

    @property
    def relative_width(self) -> float:
        """Return how many times the best known method's the mean width is."""
        return float(np.mean(self.widths)) / self.best_width


def main() -> None:
    """Print how often bounds missed, for each figure and size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.statistics", description=__doc__)
    parser.add_argument("--simulations", type=int, default=SIMULATIONS)
    parser.add_argument("--sizes", type=int, nargs="*", default=[cell.rows for cell in CELLS])
    asked = parser.parse_args()
    cells = [cell for cell in CELLS if cell.rows in asked.sizes]
    summary({cell: measure(cell, simulations=asked.simulations) for cell in cells}).print()


def measure(cell: Cell, *, simulations: int) -> Mapping[str, Tally]:
    """Simulate a cell; what missed too often, of so many figures, is told by many more samples."""
    found = simulate(cell, simulations=simulations)
    return {
        name: tally if is_allowed(tally) else again(cell, name, AGAIN * simulations)
        for name, tally in found.items()
    }


def is_allowed(tally: Tally) -> bool:
    """Whether a figure keeps what is promised, or says that it cannot."""
    return not tally.is_exact or max(tally.rates) <= ALLOWED_MISSES


def again(cell: Cell, name: str, simulations: int) -> Tally:
    """Simulate one figure by other samples."""
    return simulate(cell, simulations=simulations, seed=1, only=name)[name]


def summary(found: Mapping[Cell, Mapping[str, Tally]]) -> Result:
    """Return the tables, and how many figures keep what is promised."""
    every = [tally for cell in found.values() for tally in cell.values() if tally.is_exact]
    covering = np.mean([max(tally.rates) <= ALLOWED_MISSES for tally in every])
    worst = 1 - max(max(tally.rates) for tally in every)
    narrow = np.mean([tally.relative_width <= ALLOWED_WIDTH for tally in every])
    widest = max(tally.relative_width for tally in every)
    return Result(
        name="statistics",
        what="one-sided 95 % bounds that hold the truth in at least 93 % of the samples, of all "
        "figures, sizes and ways to draw rows, and the worst of them; bounds at most 1.5 times as "
        "far apart as the best known method's, and the widest; without figures that are marked as "
        "too few to be exact",
        figure=f"{covering:.0%}, worst {worst:.3f}; {narrow:.0%}, widest {widest:.2f}",
        target="100 %, at least 0.93; 100 %, at most 1.5",
        tables={
            cell.title: [_row(name, tally) for name, tally in tallies.items()]
            for cell, tallies in found.items()
        },
    )


def simulate(
    cell: Cell, *, simulations: int, seed: int = 0, only: str | None = None
) -> Mapping[str, Tally]:
    """Draw samples of a cell, and count how often bounds of their figures (or of one) miss."""
    tallies: dict[str, Tally] = {}
    truth = _truth(cell)
    for sample in range(simulations):
        rng = np.random.default_rng([seed, sample])
        entity = np.arange(cell.rows) // (PER_ENTITY if cell.is_clustered else 1)
        drawn = [*_of_scores(rng, cell, entity, truth, only)]
        if not cell.is_rare and (only is None or only.endswith(tuple(SELECTION))):
            for name, rates in SELECTION.items():
                drawn += _disparities(rng, entity, cell.is_clustered, name, np.array(rates))
        for name, method, estimate, value, best in drawn:
            tallies.setdefault(name, Tally(method)).count(estimate, value, best)
    return {name: tally for name, tally in tallies.items() if tally.misses}


Drawn = Iterator[tuple[str, str, Estimate, float, float | None]]  # figure, best method, and so on


def _of_scores(
    rng: np.random.Generator,
    cell: Cell,
    entity: Codes,
    truth: Mapping[str, float],
    only: str | None,
) -> Drawn:
    score, other, probability = _scores(rng, cell, entity)
    label = (_together(rng, entity, cell.is_clustered) < probability).astype(float)
    for name, shift in (("calibrated", 0.0), ("too low by 0.3", 0.3)):
        if only not in (None, f"ece, {name}"):
            continue
        shifted = 1 / (1 + np.exp(-(np.log(score / (1 - score)) - shift)))
        bins = ece_bins(shifted)
        gaps = np.abs(np.bincount(bins, weights=probability - shifted)).sum() / cell.rows
        found = bootstrap_metrics(label, shifted, None, entities=entity, metrics=["ece"], seed=0)
        best = ece_width(label, shifted, entity)
        yield f"ece, {name}", METHODS["ece"], found["ece"], float(gaps), best
    metrics = [metric for metric in METRICS if metric != "ece" and only in (None, metric)]
    given: dict[str, Any] = {"entities": entity, "seed": 0, "replicates": REPLICATES}
    estimates = (
        bootstrap_metrics(label, score, THRESHOLD, metrics=metrics, **given) if metrics else {}
    )
    for metric in ("roc_auc", "brier"):
        if only not in (None, f"difference of {metric}"):
            continue
        gain = paired_difference(label, score, other, metric=metric, level=0.9, **given)
        estimates[f"difference of {metric}"] = gain
    widths = score_widths(label, score, other, entity)
    widths |= decision_widths(label, score >= THRESHOLD, entity)
    for name, estimate in estimates.items():
        yield name, METHODS.get(name, OWN_SPREAD), estimate, truth[name], widths.get(name)


def _disparities(
    rng: np.random.Generator, entity: Codes, is_clustered: bool, name: str, rates: Floats
) -> Drawn:
    rows = len(entity)
    group = rng.integers(0, len(rates), int(entity[-1]) + 1)[entity]
    label = rng.random(rows) < 0.3
    tpr, fpr = 1.5 * rates, (rates - 0.3 * 1.5 * rates) / 0.7
    chosen = _together(rng, entity, is_clustered) < np.where(label, tpr[group], fpr[group])
    found = audit_groups(
        *(label.astype(int), chosen.astype(int), group),
        attribute="group",
        min_group_rows=max(1, rows // 10),
        entities=entity if is_clustered else None,
    )
    apart = float(max(np.ptp(tpr), np.ptp(fpr)))
    truths = (float(np.ptp(rates)), float(rates.min() / rates.max()), apart, float(np.ptp(tpr)))
    widths = disparity_widths(
        {
            "selection_rate": _pair(chosen, np.ones(rows, bool), group, entity, is_clustered),
            "tpr": _pair(chosen, label, group, entity, is_clustered),
        }
    )
    of = ("selection_rate", "ratio", "tpr", "tpr")
    for disparity, value, width in zip(DISPARITIES, truths, of, strict=True):
        figure, title = getattr(found, disparity), disparity.replace("_", " ")
        yield f"{title}, {name}", OF_PAIR, figure, value, widths.get(width)


def _pair(
    chosen: NDArray[np.bool_],
    counted: NDArray[np.bool_],
    group: Codes,
    entity: Codes,
    is_clustered: bool,
) -> tuple[Floats, Floats]:
    """Return the rates of the first and the last group, and the rows that they are worth."""
    rates, worth = [], []
    for each in (0, group.max()):
        hit = chosen[counted & (group == each)]
        codes = np.unique(entity[counted & (group == each)], return_inverse=True)[1]
        rate = float(hit.mean())
        rates.append(rate)
        rows = float(len(hit))
        if is_clustered and 0 < rate < 1:
            rows = rate * (1 - rate) / clustered_error(hit - rate, codes) ** 2
        worth.append(rows)
    return np.array(rates), np.array(worth)


def _scores(rng: np.random.Generator, cell: Cell, entity: Codes) -> tuple[Floats, Floats, Floats]:
    """Return the scores of a calibrated model and of a worse one, and the labels' probability."""
    rows = len(entity)
    shared = rng.normal(size=int(entity[-1]) + 1)[entity] * (0.8 if cell.is_clustered else 0.0)
    logit = rng.normal(size=rows) * (0.6 if cell.is_clustered else 1.0) + shared
    logit = cell.base + SLOPE * logit
    worse = logit + rng.normal(size=rows)
    score, other = (1 / (1 + np.exp(-each)) for each in (logit, worse))
    return score, other, score


def _together(rng: np.random.Generator, entity: Codes, is_clustered: bool) -> Floats:
    """Return uniform draws; of an entity, two in five are one and the same."""
    own = rng.random(len(entity))
    if not is_clustered:
        return own
    return np.where(rng.random(len(entity)) < 0.4, rng.random(int(entity[-1]) + 1)[entity], own)


def _truth(cell: Cell) -> Mapping[str, float]:
    drawn = [_one_truth(cell, np.random.default_rng([99, at])) for at in range(TRUTH_DRAWS)]
    return {name: float(np.mean([one[name] for one in drawn])) for name in drawn[0]}


def _one_truth(cell: Cell, rng: np.random.Generator) -> Mapping[str, float]:
    entity = np.arange(TRUTH_ROWS) // (PER_ENTITY if cell.is_clustered else 1)
    score, other, probability = _scores(rng, cell, entity)
    label = (rng.random(TRUTH_ROWS) < probability).astype(float)
    ours, theirs = (point_metrics(label, each, THRESHOLD) for each in (score, other))
    found = {name: estimate.value or 0.0 for name, estimate in ours.items()}
    for metric in ("roc_auc", "brier"):
        found[f"difference of {metric}"] = found[metric] - (theirs[metric].value or 0.0)
    return found


def _row(name: str, tally: Tally) -> Row:
    below, above = tally.rates
    width, samples = float(np.mean(tally.widths)), len(tally.misses)
    return {
        "figure": name + ("" if tally.is_exact else " (too few to be exact)"),
        "truth": round(float(np.mean(tally.truths)), 4),
        "lower bound misses": round(below, 3),
        "upper bound misses": round(above, 3),
        "own error": round((0.05 * 0.95 / samples) ** 0.5, 3),
        "from bound to bound": round(width, 4),
        "best known": round(tally.best_width, 4),
        "by": tally.method,
        "times": round(tally.relative_width, 2),
        "a rule tells": round(tells(width), 4),
        "samples": samples,
    }


if __name__ == "__main__":
    main()
