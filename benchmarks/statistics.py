"""How often the bounds of figures hold the truth: simulated, of every kind of figure and size.

Scores of a logistic model are drawn with labels of known probability, alone or four rows to an
entity whose labels go together, and two groups that are selected at the same or another rate. A
one-sided 95 % bound should miss the truth in at most 5 % of the samples. Of a gate rule whose
limit is the truth, the misses of the lower bound are the false passes of "at least" (the false
failures of "at most"), those of the upper bound the other way round.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.result import Result, Row
from mlops_pipeline.core.evaluation.gates import POWER_80
from mlops_pipeline.core.fairness.audit import audit_groups
from mlops_pipeline.core.fairness.disparities import DISPARITIES
from mlops_pipeline.core.metrics.intervals import bootstrap_metrics, paired_difference
from mlops_pipeline.core.metrics.metrics import Estimate, ece_bins, point_metrics
from mlops_pipeline.spec.metrics import METRICS

Floats = NDArray[np.float64]
SIZES = (200, 1_000, 5_000, 20_000)
SIMULATIONS = 1_000  # a miss rate of 5 % then has a standard error of 0.7 points
SLOW = 5_000  # rows above which a bootstrap's cell gets a tenth of the simulations
REPLICATES = 200
THRESHOLD = 0.35
SLOPE, BASE = 1.2, -1.5  # of the logit; about a quarter of the labels are positive
SELECTION = {"alike": (0.2, 0.2), "apart": (0.15, 0.2, 0.25)}  # rates of the groups
PER_ENTITY = 4
TRUTH_ROWS = 4_000_000


@dataclass
class Tally:
    """Of one figure in one cell: how often its bounds missed, and how wide they were."""

    truths: list[float] = field(default_factory=list)
    misses: list[tuple[bool, bool]] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)

    def count(self, estimate: Estimate, truth: float) -> None:
        """Count one sample; one without bounds says nothing wrong."""
        if estimate.lower is None or estimate.upper is None:
            return
        slack = 1e-12  # rounding
        self.truths.append(truth)
        self.misses.append((truth < estimate.lower - slack, truth > estimate.upper + slack))
        self.widths.append(estimate.upper - estimate.lower)

    @property
    def rates(self) -> tuple[float, float]:
        """Return the share of samples whose lower, and whose upper, bound missed."""
        below, above = np.mean(self.misses, axis=0)
        return float(below), float(above)


def main() -> None:
    """Print how often bounds missed, for each figure and size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.statistics", description=__doc__)
    parser.add_argument("--simulations", type=int, default=SIMULATIONS)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    asked = parser.parse_args()
    tables: dict[str, list[Row]] = {}
    worst: list[float] = []
    for rows in asked.sizes:
        for is_clustered in (False, True):
            found = simulate(rows, is_clustered=is_clustered, simulations=asked.simulations)
            title = f"{rows:,} rows, {'four to an entity' if is_clustered else 'independent'}"
            tables[title] = [_row(name, tally) for name, tally in found.items() if tally.misses]
            worst += [max(tally.rates) for tally in found.values() if tally.misses]
    share = np.mean([rate <= 0.07 for rate in worst])
    Result(
        name="statistics",
        what="one-sided 95 % bounds that hold the truth in at least 93 % of the samples, of all "
        "figures, sizes and ways to draw rows; and the worst of them",
        figure=f"{share:.0%}, worst {1 - max(worst):.3f}",
        target="100 %",
        tables=tables,
    ).print()


def simulate(
    rows: int, *, is_clustered: bool, simulations: int, seed: int = 0
) -> Mapping[str, Tally]:
    """Draw samples of so many rows, and count how often bounds of their figures miss."""
    tallies: dict[str, Tally] = {}
    truth = _truth(is_clustered)
    bootstraps = simulations if rows <= SLOW else max(1, simulations // 10)
    for sample in range(simulations):
        rng = np.random.default_rng([seed, sample])
        for name, estimate, value in _figures(rng, rows, is_clustered, truth, sample < bootstraps):
            tallies.setdefault(name, Tally()).count(estimate, value)
    return tallies


def _figures(
    rng: np.random.Generator,
    rows: int,
    is_clustered: bool,
    truth: Mapping[str, float],
    is_bootstrapped: bool,
) -> Iterator[tuple[str, Estimate, float]]:
    entity = np.arange(rows) // (PER_ENTITY if is_clustered else 1)
    score, other, probability = _scores(rng, entity, is_clustered)
    label = (_together(rng, entity, is_clustered) < probability).astype(float)
    for name, shift in (("calibrated", 0.0), ("too low by 0.3", 0.3)):
        shifted = 1 / (1 + np.exp(-(np.log(score / (1 - score)) - shift)))
        bins = ece_bins(shifted)
        gaps = np.abs(np.bincount(bins, weights=probability - shifted)).sum() / rows
        found = bootstrap_metrics(label, shifted, None, entities=entity, metrics=["ece"], seed=0)
        yield f"ece, {name}", found["ece"], float(gaps)
    for name, rates in SELECTION.items():
        yield from _disparities(rng, entity, is_clustered, name, np.array(rates))
    if is_bootstrapped:
        metrics = [metric for metric in METRICS if metric != "ece"]
        given: dict[str, Any] = {"entities": entity, "seed": 0, "replicates": REPLICATES}
        estimates = bootstrap_metrics(label, score, THRESHOLD, metrics=metrics, **given)
        yield from ((name, estimate, truth[name]) for name, estimate in estimates.items())
        for metric in ("roc_auc", "brier"):
            gain = paired_difference(label, score, other, metric=metric, level=0.9, **given)
            yield f"difference of {metric}", gain, truth[f"difference of {metric}"]


def _disparities(
    rng: np.random.Generator, entity: NDArray[np.intp], is_clustered: bool, name: str, rates: Floats
) -> Iterator[tuple[str, Estimate, float]]:
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
    for disparity, value in zip(DISPARITIES, truths, strict=True):
        yield f"{disparity.replace('_', ' ')}, {name}", getattr(found, disparity), value


def _scores(
    rng: np.random.Generator, entity: NDArray[np.intp], is_clustered: bool
) -> tuple[Floats, Floats, Floats]:
    """Return the scores of a calibrated model and of a worse one, and the labels' probability."""
    rows = len(entity)
    shared = rng.normal(size=int(entity[-1]) + 1)[entity] * (0.8 if is_clustered else 0.0)
    logit = BASE + SLOPE * (rng.normal(size=rows) * (0.6 if is_clustered else 1.0) + shared)
    worse = logit + rng.normal(size=rows)
    score, other = (1 / (1 + np.exp(-each)) for each in (logit, worse))
    return score, other, score


def _together(rng: np.random.Generator, entity: NDArray[np.intp], is_clustered: bool) -> Floats:
    """Return uniform draws; of an entity, two in five are one and the same."""
    own = rng.random(len(entity))
    if not is_clustered:
        return own
    return np.where(rng.random(len(entity)) < 0.4, rng.random(int(entity[-1]) + 1)[entity], own)


def _truth(is_clustered: bool) -> Mapping[str, float]:
    rng = np.random.default_rng(99)
    entity = np.arange(TRUTH_ROWS) // (PER_ENTITY if is_clustered else 1)
    score, other, probability = _scores(rng, entity, is_clustered)
    label = (rng.random(TRUTH_ROWS) < probability).astype(float)
    ours, theirs = (point_metrics(label, each, THRESHOLD) for each in (score, other))
    found = {name: estimate.value or 0.0 for name, estimate in ours.items()}
    for metric in ("roc_auc", "brier"):
        found[f"difference of {metric}"] = found[metric] - (theirs[metric].value or 0.0)
    return found


def _row(name: str, tally: Tally) -> Row:
    below, above = tally.rates
    width = float(np.mean(tally.widths))
    return {
        "figure": name,
        "truth": round(float(np.mean(tally.truths)), 4),
        "lower bound misses": round(below, 3),
        "upper bound misses": round(above, 3),
        "from bound to bound": round(width, 4),
        "a rule tells": round(width * POWER_80, 4),
        "samples": len(tally.misses),
    }


if __name__ == "__main__":
    main()
