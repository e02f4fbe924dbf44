"""What a staged rollout decides about new versions that are as good, worse by the margin, or bad.

Whole rollouts are simulated, looked at every day, and their fast guardrails at every fault. Both
versions are calibrated. Labels are late: positive ones come at any time within the horizon, and
only complete ones may count. Entities come again. A new version is as good as the champion, worse
by exactly the margin of the Brier score, or worse by 5 points of AUC.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from benchmarks.result import Result, Row
from mlops_pipeline.config.modelling import Costs, Fairness, RolloutPolicy
from mlops_pipeline.core.metrics.references import ScoreReference, score_reference
from mlops_pipeline.core.rollout.evidence import (
    Counts,
    Evidence,
    Pairs,
    Rules,
    Scored,
)
from mlops_pipeline.core.rollout.guardrails import GUARDRAILS, judge_fast
from mlops_pipeline.core.rollout.sequential import MOST_AT_STAKE, stakes
from mlops_pipeline.core.rollout.stages import Progress, next_step, verdict

Floats = NDArray[np.float64]
Kind = Literal["as good", "worse by the margin", "5 points of AUC worse"]
KINDS: tuple[Kind, ...] = ("as good", "worse by the margin", "5 points of AUC worse")
ROLLOUTS = 1_000  # a share of 5 % then has a standard error of 0.7 points
AUC, AUC_WORSE = 0.80, 0.75
ALIKE = 0.95  # how the scores of two versions that are as good go together
REQUESTS_A_DAY, ENTITIES, DAYS = 200, 20_000, 42
EARLY, LATE = 7, 21  # days until labels are complete: of a stage, or of more than all of them
REFERENCE_ROWS = 5_000
FAULTS = {"error": 0.001, "slow": 0.003, "default": 0.005}  # of either version, by chance
WINDOW_REQUESTS = 50
OPENED = datetime(2026, 1, 1, tzinfo=UTC)
SERIES, MOST_ENTITIES = 500, 60_000
NEEDED = ((0.08, 0.001), (0.08, 0.002), (0.08, 0.004), (0.25, 0.002), (0.25, 0.005), (0.25, 0.01))
DAY_US = 86_400_000_000
NEEDED_TITLE = (
    "Entities with complete labels that are needed, of versions whose scores go together by "
    f"{ALIKE}, at 500 rollouts each"
)
GRID = np.linspace(-8, 8, 4_001)
WEIGHT = norm.pdf(GRID) / norm.pdf(GRID).sum()


@dataclass(frozen=True)
class Cell:
    """What is simulated: the share of positive labels, their delay, the margin, the version.

    `stated` is the number of entities within which at least 80 % as good should be promoted.
    """

    base_rate: float
    horizon_days: int
    margin: float
    stated: int
    kind: Kind

    @property
    def title(self) -> str:
        """Name it as the tables do."""
        when = "before" if self.horizon_days == EARLY else "after"
        return f"{self.base_rate:.0%} positive, margin {self.margin:g}, labels {when} full use"

    @property
    def rules(self) -> Rules:
        """Four days in shadow and in each of three shares; else as if nothing is configured."""
        shares = ((0.0, 4), (0.05, 4), (0.25, 4), (0.5, 4), (1.0, 0))
        stages = [{"share": share, "days": days} for share, days in shares]
        evidence = {"brier_margin": self.margin}
        policy = RolloutPolicy.model_validate({"stages": stages, "evidence": evidence})
        return Rules(policy, Fairness(), Costs(false_positive=1, false_negative=3))


WORLDS = (
    (0.08, EARLY, 0.002, 3_000),
    (0.25, EARLY, 0.005, 2_000),
    (0.08, LATE, 0.002, 3_000),
)
CELLS = tuple(
    Cell(*world, kind)
    for world in WORLDS
    for kind in (KINDS if world[1] == EARLY else KINDS[:2])  # late labels stop nothing before full
)


def probability(strength: float, threshold: float, index: Floats) -> Floats:
    """Return P(label) given an index of this correlation with what decides the label."""
    found: Floats = norm.cdf((strength * index - threshold) / np.sqrt(1 - strength**2))
    return found


def brier(strength: float, threshold: float) -> float:
    """Return the Brier score of a calibrated version, exactly."""
    scores = probability(strength, threshold, GRID)
    return float((WEIGHT * scores * (1 - scores)).sum())


def auc(strength: float, threshold: float) -> float:
    """Return the AUC of a version, exactly."""
    scores = probability(strength, threshold, GRID)
    positive, negative = WEIGHT * scores, WEIGHT * (1 - scores)
    below = np.cumsum(negative) - negative / 2
    return float((positive * below).sum() / (positive.sum() * negative.sum()))


def strengths(cell: Cell) -> tuple[float, float]:
    """Return the correlation of the champion's and of the challenger's index."""
    threshold = float(norm.isf(cell.base_rate))
    champion = float(brentq(lambda one: auc(one, threshold) - AUC, 0.1, 0.95))
    if cell.kind == "as good":
        return champion, champion
    if cell.kind == "worse by the margin":
        least = brier(champion, threshold) + cell.margin
        return champion, float(brentq(lambda one: brier(one, threshold) - least, 0.01, champion))
    return champion, float(brentq(lambda one: auc(one, threshold) - AUC_WORSE, 0.1, 0.95))


@dataclass(frozen=True)
class World:
    """All requests of one rollout, as if each stage were shadow; when labels come."""

    pairs: Pairs
    horizon_us: int
    bucket: Floats
    positive_at_us: NDArray[np.int64]
    references: tuple[ScoreReference, ScoreReference]

    @classmethod
    def draw(cls, cell: Cell, rng: np.random.Generator) -> "World":
        """Draw entities that come again, with scores and labels that go together."""
        threshold, rows = float(norm.isf(cell.base_rate)), REQUESTS_A_DAY * DAYS
        champion, challenger = strengths(cell)
        whose = rng.integers(0, ENTITIES, rows)
        own = rng.normal(size=ENTITIES)[whose] * 0.8 + rng.normal(size=rows) * 0.6
        known = champion / ALIKE**0.5  # by what both versions see
        label = known * own + (1 - known**2) ** 0.5 * rng.normal(size=rows) > threshold
        at = np.sort(rng.integers(0, DAYS * DAY_US, rows)) + OPENED.timestamp() * 1e6
        at = at.astype(np.int64)
        scores = []
        for strength in (champion, challenger):
            seen = strength / known
            index = seen * own + (1 - seen**2) ** 0.5 * rng.normal(size=rows)
            scores.append((strength, probability(strength, threshold, index)))
        references = [
            score_reference(probability(strength, threshold, rng.normal(size=REFERENCE_ROWS)))
            for strength, _ in scores
        ]
        gender = np.array(["f", "m"], dtype=object)[rng.integers(0, 2, ENTITIES)]
        region = np.array(["n", "e", "s", None], dtype=object)[rng.integers(0, 4, ENTITIES)]
        pairs = Pairs(
            entity=np.array([str(each) for each in whose], dtype=object),
            at_us=at,
            share=np.zeros(rows),
            is_canary=np.zeros(rows, dtype=bool),
            champion=_scored(rng, scores[0][1]),
            challenger=_scored(rng, scores[1][1]),
            label=label.astype(np.int8),
            is_complete=np.ones(rows, dtype=bool),
            protected={"gender": gender[whose], "region": region[whose]},
        )
        horizon_us = cell.horizon_days * DAY_US
        arrives = at + rng.integers(0, horizon_us, rows)
        return cls(
            pairs, horizon_us, rng.random(ENTITIES)[whose], arrives, (references[0], references[1])
        )

    def until(self, now_us: int, entered: Sequence[tuple[int, float]]) -> Pairs:
        """Return what is known by a time, of stages with a share that were entered at a time."""
        pairs, count = self.pairs, int(np.searchsorted(self.pairs.at_us, now_us))
        at = pairs.at_us[:count]
        shares = np.array([share for _, share in entered])
        share = shares[np.searchsorted([since for since, _ in entered], at, side="right") - 1]
        is_complete = at + self.horizon_us <= now_us
        is_here = is_complete | (self.positive_at_us[:count] <= now_us)
        return replace(
            pairs.take(np.arange(len(pairs)) < count),
            share=share,
            is_canary=self.bucket[:count] < share,
            label=pairs.label[:count] * is_here,
            is_complete=is_complete,
        )


def _scored(rng: np.random.Generator, scores: Floats) -> Scored:
    is_error, is_slow, gives_default = (rng.random(len(scores)) < each for each in FAULTS.values())
    is_default = is_error | gives_default
    known = np.where(is_default, np.nan, scores)
    latency = np.where(is_slow, 300_000, 5_000)
    return Scored(known, known >= 0.25, is_default, is_error, latency)


@dataclass
class Tally:
    """How the rollouts of a cell ended."""

    ends: list[str] = field(default_factory=list)
    stages: list[int] = field(default_factory=list)
    by: list[str] = field(default_factory=list)
    entities: list[int] = field(default_factory=list)

    def share(self, end: str, until_stage: int = 99) -> float:
        """Return the share of rollouts that ended so, in a stage until this one."""
        pairs = zip(self.ends, self.stages, strict=True)
        return float(np.mean([one == end and stage <= until_stage for one, stage in pairs]))

    def promoted_within(self, entities: int) -> float:
        """Return the share that was promoted, and known to be as good by so many entities."""
        pairs = zip(self.ends, self.entities, strict=True)
        return float(np.mean([end == "promoted" and one <= entities for end, one in pairs]))

    @property
    def stopped_early(self) -> float:
        """The share that was rolled back or held until 25 % of the traffic."""
        return self.share("rolled back", 2) + self.share("held", 2)


def simulate(cell: Cell, *, rollouts: int, seed: int = 0) -> Tally:
    """Return how so many rollouts end."""
    tally = Tally()
    for number in range(rollouts):
        rng = np.random.default_rng([seed, number])
        end, stage, by, entities = run(cell, World.draw(cell, rng))
        tally.ends.append(end)
        tally.stages.append(stage)
        tally.by.append(by)
        tally.entities.append(entities)
    return tally


def run(cell: Cell, world: World) -> tuple[str, int, str, int]:
    """Return how a rollout ends, in which stage, by which guardrail, and after how many entities.

    The entities are those with complete labels when it is first known not to be worse.
    """
    rules, stages = cell.rules, cell.rules.policy.stages
    stage, entered, shares = 0, OPENED, [(0, 0.0)]
    first_fault = _first_fast_breach(world, rules.policy)
    entities = 0
    for day in range(1, DAYS + 1):
        now = OPENED + timedelta(days=day)
        now_us = int(now.timestamp()) * 1_000_000
        if first_fault is not None and first_fault[0] <= now_us:
            return "rolled back", stage, first_fault[1], entities
        evidence = Evidence(
            world.until(now_us, shares), stages[stage].share, *reversed(world.references)
        )
        progress = Progress(stage, OPENED, entered, now, timedelta(days=cell.horizon_days))
        is_last = stage == len(stages) - 1
        step = (verdict if is_last else next_step)(evidence, rules, progress)
        realised = next(one for one in step.results if one.name == "realised")
        entities = entities or (realised.rows if realised.outcome == "ok" else 0)
        if step.event == "breach":
            harmful = [one.name for one in step.results if one.outcome == "harm"]
            return "rolled back", stage, harmful[0], entities
        if step.event == "pass" and is_last:
            return "promoted", stage, "", entities
        if step.event in ("pass", "ask"):
            stage, entered = stage + 1, now
            shares.append((now_us, stages[stage].share))
    return "held", stage, "", entities


def _first_fast_breach(world: World, policy: RolloutPolicy) -> tuple[int, str] | None:
    """Return when the service takes a version back, and why; windows count from the first."""
    ours, theirs = world.pairs.versions
    faults = [
        np.stack([one.is_error, one.latency_us > 200_000, one.is_default & ~other.is_default])
        for one, other in ((ours, theirs), (theirs, ours))
    ]
    for start in range(0, len(world.pairs), WINDOW_REQUESTS):
        found = [np.cumsum(one[:, start : start + WINDOW_REQUESTS], axis=1) for one in faults]
        worst = found[0].max(axis=0)
        for row in np.flatnonzero(np.diff(worst, prepend=1) > 0):  # at each further fault
            counts = [Counts(int(row) + 1, *(int(each) for each in one[:, row])) for one in found]
            window = start // WINDOW_REQUESTS + 1
            for result in judge_fast(window, *counts, policy):
                if result.outcome == "harm":
                    return int(world.pairs.at_us[start + row]), result.name
    return None


def needed(base_rate: float, margin: float) -> Row:
    """Return how many entities with complete labels are needed, looked at after each of them."""
    threshold, alpha = float(norm.isf(base_rate)), 0.05
    champion, worse = strengths(Cell(base_rate, EARLY, margin, 0, "worse by the margin"))
    bad = strengths(Cell(base_rate, EARLY, margin, 0, "5 points of AUC worse"))[1]
    known, harm = [], []
    for number in range(SERIES):
        rng = np.random.default_rng([1, number])
        known.append(_first(-_differences(rng, (champion, champion), threshold), margin, alpha))
        of_harm = alpha * GUARDRAILS["realised"].of_alpha
        harm.append(_first(_differences(rng, (champion, bad), threshold), 0.0, of_harm, margin))
    points = 100 * (auc(champion, threshold) - auc(worse, threshold))
    return {
        "positive": f"{base_rate:.0%}",
        "margin": f"{margin:g}",
        "is worse by points of AUC": f"{points:.1f}",
        "known to be as good, median": _quantile(known, 0.5),
        "80 of 100": _quantile(known, 0.8),
        "5 points of AUC worse is harm, median": _quantile(harm, 0.5),
        "90 of 100": _quantile(harm, 0.9),
    }


def _differences(rng: np.random.Generator, of: tuple[float, float], threshold: float) -> Floats:
    """Return squared errors of the challenger less the champion's, entity by entity."""
    common, noise = rng.normal(size=MOST_ENTITIES), rng.normal(size=(3, MOST_ENTITIES))
    known = of[0] / ALIKE**0.5
    label = known * common + (1 - known**2) ** 0.5 * noise[2] > threshold
    theirs, ours = (
        probability(one, threshold, one / known * common + (1 - (one / known) ** 2) ** 0.5 * each)
        for one, each in zip(of, noise, strict=False)
    )
    found: Floats = (ours - label) ** 2 - (theirs - label) ** 2
    return found


def _first(values: Floats, margin: float, alpha: float, effect: float = 0.0) -> float:
    """Return after how many values "the mean is at most -margin" is rejected; infinite if never."""
    bets = np.minimum(stakes(values, effect or margin, 0.5), MOST_AT_STAKE / (1 - margin))
    wealth = np.cumsum(np.log1p(bets * (values + margin)))
    reached = np.flatnonzero(wealth >= -np.log(alpha))
    return float(reached[0] + 1) if len(reached) else np.inf


def _quantile(found: Sequence[float], level: float) -> str:
    value = float(np.quantile(found, level, method="higher"))
    return f"{round(value, -2):,.0f}" if np.isfinite(value) else f"over {MOST_ENTITIES:,}"


def main() -> None:
    """Print how rollouts end, for each kind of new version."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rollouts", description=__doc__)
    parser.add_argument("--rollouts", type=int, default=ROLLOUTS)
    asked = parser.parse_args()
    summary({cell: simulate(cell, rollouts=asked.rollouts) for cell in CELLS}).print()


def summary(found: Mapping[Cell, Tally]) -> Result:
    """Return the tables, and the worst of the four shares that are promised."""
    good, margin, bad = (
        {cell: one for cell, one in found.items() if cell.kind == kind} for kind in KINDS
    )
    false_alarms = max(one.share("rolled back") for one in good.values())
    promoted = min(one.promoted_within(cell.stated) for cell, one in good.items())
    mistakes = max(one.share("promoted") for one in margin.values())
    stopped = min(one.stopped_early for one in bad.values())
    titles = dict.fromkeys(cell.title for cell in found)
    return Result(
        name="rollouts",
        what="of simulated rollouts, the worst share over base rates and delays of labels: of "
        "versions as good as the champion, those rolled back by any guardrail, and those promoted "
        "within the stated number of entities; of versions worse by exactly the margin, those "
        "promoted; of versions worse by 5 points of AUC, those that got no further than 25 % of "
        "the traffic, where labels come by then",
        figure=f"{false_alarms:.1%}, {promoted:.1%}, {mistakes:.1%}, {stopped:.1%}",
        target="at most 5 %, at least 80 %, at most 5 %, at least 90 %",
        tables={
            NEEDED_TITLE: [needed(*each) for each in NEEDED],
            **{
                title: [_row(cell, one) for cell, one in found.items() if cell.title == title]
                for title in titles
            },
        },
    )


def _row(cell: Cell, tally: Tally) -> Row:
    rollouts = len(tally.ends)
    shares = {end: tally.share(end) for end in ("promoted", "rolled back", "held")}
    by = {name: tally.by.count(name) / rollouts for name in GUARDRAILS if name in tally.by}
    known = [one for one in tally.entities if one]
    return {
        "new version": cell.kind,
        **{end: f"{share:.1%}" for end, share in shares.items()},
        "no further than 25 %": f"{tally.stopped_early:.1%}",
        "own error": f"{max((one * (1 - one) / rollouts) ** 0.5 for one in shares.values()):.1%}",
        "rolled back by": ", ".join(f"{name} {share:.1%}" for name, share in by.items()) or "-",
        f"promoted within {cell.stated:,} entities": f"{tally.promoted_within(cell.stated):.1%}",
        "entities until not worse, median": round(float(np.median(known))) if known else "-",
        "80 of 100 know by": round(float(np.quantile(known, 0.8))) if known else "-",
        "rollouts": rollouts,
    }


if __name__ == "__main__":
    main()
