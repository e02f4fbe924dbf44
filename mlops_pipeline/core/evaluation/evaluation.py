"""The evaluation of a trained model on the test part: figures, slices, stress cases, fairness.

Belongs here: the figures. Whether they are good enough decides gates.py; pages show them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.frame import LabelledFrame, is_missing
from mlops_pipeline.core.evaluation.naive import NaiveComparison
from mlops_pipeline.core.fairness.audit import GroupAudit, audit_attributes
from mlops_pipeline.core.fairness.variants import Mitigated
from mlops_pipeline.core.metrics.intervals import bootstrap_metrics, paired_difference
from mlops_pipeline.core.metrics.metrics import Estimate, point_metrics
from mlops_pipeline.core.metrics.references import ScoreReference, score_reference
from mlops_pipeline.core.metrics.shares import clustered_ends
from mlops_pipeline.core.modelling.calibration import ReliabilityCurve, reliability_curve
from mlops_pipeline.core.modelling.explanations import Explanation
from mlops_pipeline.core.modelling.scoring import Decisions, ScoringModel
from mlops_pipeline.spec.metrics import GATE_METRICS, METRICS, shown_in
from mlops_pipeline.spec.rules import (
    MISSING_CHANGE,
    BetterRule,
    GateRule,
    MissingRule,
    NotWorseRule,
)

SLICE_REPLICATES = 200
SLICE_ROWS = 50_000  # of a slice, drawn for its interval; its value uses all rows
STRESS_ROWS = 200_000  # of the test part, drawn for the stress cases
MIN_COMPARED_ROWS = 200  # fewer rows that neither model has seen say nothing about a difference
EXTREME_FACTOR = 10.0  # stress case: this many times the largest training value
EXTREME_FEATURES = 3  # applied to this many of the most important numeric inputs


@dataclass(frozen=True)
class Slice:
    """The figures of one group of one column (or of one stress case)."""

    column: str
    group: str
    rows: int
    positives: int
    metrics: Mapping[str, Estimate]


@dataclass(frozen=True)
class ChampionComparison:
    """Challenger minus champion on rows that neither has seen; or why there is no figure.

    The metrics of the two are points on the same rows, and so are the disparities, by attribute.
    """

    version: int
    rows: int
    differences: Mapping[str, Estimate]
    reason: str | None
    challenger_metrics: Mapping[str, Estimate] = field(default_factory=dict)
    champion_metrics: Mapping[str, Estimate] = field(default_factory=dict)
    challenger_disparities: Mapping[str, Estimate] = field(default_factory=dict)
    champion_disparities: Mapping[str, Estimate] = field(default_factory=dict)


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


@dataclass(frozen=True)
class MissingShare:
    """The share of missing values of an input: in the train part, and in the rows looked at.

    `lower` and `upper` are the one-sided 95 % bounds of `now`, where those rows are a sample.
    """

    feature: str
    train: float
    now: float
    lower: float | None = None
    upper: float | None = None

    @property
    def change(self) -> float:
        """By how much the two differ, either way."""
        return abs(self.now - self.train)

    @property
    def difference(self) -> Estimate:
        """The change with its bounds; the share in the train part is what it is."""
        if self.lower is None or self.upper is None:
            return Estimate(self.change, reason="the rows are not a sample")
        up, down = self.upper - self.train, self.train - self.lower
        return Estimate(self.change, lower=max(0.0, -up, -down), upper=max(up, down))


def compare_missing(
    train: Mapping[str, float],
    columns: Mapping[str, npt.NDArray[Any]],
    entities: npt.NDArray[Any] | None = None,
) -> tuple[MissingShare, ...]:
    """Hold the missing shares of inputs against those in training, the largest change first.

    Of a sample, with `entities` of its rows, they have bounds.
    """
    codes = None if entities is None else np.unique(entities, return_inverse=True)[1]
    found = []
    for name, share in train.items():
        lacks = is_missing(columns[name])
        bounds = [None, None]
        if codes is not None:
            bounds = clustered_ends(lacks, np.ones_like(lacks), codes)[1][2:].tolist()
        found.append(MissingShare(name, share, float(lacks.mean()), *bounds))
    return tuple(sorted(found, key=lambda item: (-item.change, item.feature)))


def missing_words(changed: Sequence[MissingShare]) -> str:
    """Name the inputs whose share of missing values changed, and from what to what."""
    return ", ".join(
        f"{item.feature} {item.train:.0%} missing in training, now {item.now:.0%}"
        for item in changed
    )


def missing_limit(rules: Sequence[GateRule]) -> float:
    """Return by how much a missing share may change before it is said: as the rules say, if any."""
    limits = [rule.at_most for rule in rules if isinstance(rule, MissingRule)]
    return min(limits, default=MISSING_CHANGE)


@dataclass(frozen=True)
class Evaluation:
    """What was measured on the test part; `mitigation` was tried before, on the validation part."""

    metrics: Mapping[str, Estimate]
    train_metrics: Mapping[str, Estimate]
    slices: tuple[Slice, ...]
    stress: tuple[Slice, ...]
    fairness: tuple[GroupAudit, ...]
    champion: ChampionComparison | None
    reliability: ReliabilityCurve
    explanations: Explanation
    naive: tuple[NaiveComparison, ...] = ()
    missing: tuple[MissingShare, ...] = ()
    review_band: ReviewBand | None = None
    mitigation: Mitigated | None = None
    scores: ScoreReference | None = None

    @property
    def rows(self) -> int:
        """Number of rows of the test part."""
        return sum(self.reliability.rows)


def evaluate_model(
    use_case: UseCase,
    model: ScoringModel,
    test: LabelledFrame,
    *,
    train_metrics: Mapping[str, Estimate],
    train_maxima: Mapping[str, float],
    importance: Mapping[str, float],
    champion: ChampionComparison | None,
    explanations: Explanation,
) -> tuple[Evaluation, Decisions]:
    """Measure a calibrated model on the test part.

    `train_maxima` (of each numeric input) are for the out-of-range stress case.
    """
    seed = use_case.training.seed
    decided = model.decide(test.everything)
    metrics = bootstrap_metrics(
        *(test.label, decided.probability, decided.threshold), entities=test.entity, seed=seed
    )
    evaluation = Evaluation(
        metrics=metrics,
        train_metrics=train_metrics,
        slices=_slices(use_case, test, decided),
        stress=_stress(use_case, model, test, train_maxima, importance),
        fairness=audit_attributes(
            use_case.fairness,
            test.protected,
            test.label,
            decided.decision,
            scores=decided.probability,
            entities=test.entity,
        ),
        champion=champion,
        reliability=reliability_curve(test.label, decided.probability),
        explanations=explanations,
        review_band=review_band(model, test.label, decided),
        scores=score_reference(decided.probability),
    )
    return evaluation, decided


def compare_with_champion(
    use_case: UseCase,
    version: int,
    challenger: ScoringModel,
    champion: ScoringModel,
    test: LabelledFrame,
    *,
    unseen: npt.NDArray[np.bool_],
    metrics: Sequence[str],
    level: float,
) -> ChampionComparison:
    """Compare two models on the `unseen` rows: no label known when the champion was trained."""
    rows = int(unseen.sum())
    needed = (*champion.input_names, *champion.attributes)
    lacking = [name for name in needed if name not in test.everything]
    if lacking:
        reason = f"the champion needs features that no longer exist: {', '.join(lacking[:5])}"
        return ChampionComparison(version, rows, {}, reason)
    if rows < MIN_COMPARED_ROWS or len(np.unique(test.label[unseen])) < 2:
        reason = f"only {rows} test rows with both classes are unknown to the champion "
        reason += f"(at least {MIN_COMPARED_ROWS})"
        return ChampionComparison(version, rows, {}, reason)
    columns = {name: values[unseen] for name, values in test.everything.items()}
    ours, theirs = challenger.decide(columns), champion.decide(columns)
    differences = {
        metric: paired_difference(
            test.label[unseen],
            ours.probability,
            theirs.probability,
            metric=metric,
            threshold_a=ours.threshold,
            threshold_b=theirs.threshold,
            entities=test.entity[unseen],
            seed=use_case.training.seed,
            level=level,
        )
        for metric in metrics
    }
    of_each = [
        point_metrics(test.label[unseen], said.probability, said.threshold, metrics=GATE_METRICS)
        for said in (ours, theirs)
    ]
    seen = test.take(unseen)
    disparities = [_disparities(use_case, seen, said) for said in (ours, theirs)]
    return ChampionComparison(version, rows, differences, None, *of_each, *disparities)


def _disparities(use_case: UseCase, rows: LabelledFrame, decided: Decisions) -> dict[str, Estimate]:
    audits = audit_attributes(
        *(use_case.fairness, rows.protected, rows.label, decided.decision), entities=rows.entity
    )
    return {audit.attribute: audit.demographic_parity_difference for audit in audits}


def compared_metrics(rules: Sequence[GateRule]) -> tuple[str, ...]:
    """Return the metrics compared with the champion: those always shown, and those of rules."""
    named = [rule.metric for rule in rules if isinstance(rule, NotWorseRule | BetterRule)]
    return tuple(dict.fromkeys((*shown_in("comparison"), *named)))


def comparison_level(rules: Sequence[GateRule]) -> float:
    """Return the two-sided level whose lower end is the one-sided bound of the strictest rule."""
    confidences = [rule.confidence for rule in rules if isinstance(rule, NotWorseRule)]
    return 2 * max(confidences, default=0.95) - 1


def worst_slices(slices: Sequence[Slice], metric: str, count: int = 3) -> list[Slice]:
    """Return the slices with the worst value of a metric, the worst first."""
    sign = 1 if METRICS[metric].greater_is_better else -1
    figures = [(item.metrics[metric].value, item) for item in slices if metric in item.metrics]
    known = [(sign * value, item) for value, item in figures if value is not None]
    return [item for _, item in sorted(known, key=lambda pair: pair[0])[:count]]


def _slices(use_case: UseCase, test: LabelledFrame, decided: Decisions) -> tuple[Slice, ...]:
    least, seed = use_case.evaluation.min_slice_rows, use_case.training.seed
    return tuple(
        _measure(column, group, test, mask, decided.take(mask), seed=seed)
        for column in use_case.evaluation.slices
        for group, mask in test.groups(column)
        if mask.sum() >= least
    )


def _measure(
    column: str,
    group: str,
    test: LabelledFrame,
    mask: npt.NDArray[np.bool_],
    decided: Decisions,
    *,
    seed: int,
) -> Slice:
    label = test.label[mask]
    metrics = bootstrap_metrics(
        label,
        decided.probability,
        decided.threshold,
        entities=test.entity[mask],
        metrics=GATE_METRICS,
        replicates=SLICE_REPLICATES,
        max_rows=SLICE_ROWS,
        seed=seed,
    )
    return Slice(column, group, len(label), int(label.sum()), metrics)


def _stress(
    use_case: UseCase,
    model: ScoringModel,
    test: LabelledFrame,
    maxima: Mapping[str, float],
    importance: Mapping[str, float],
) -> tuple[Slice, ...]:
    seed, settings = use_case.training.seed, use_case.evaluation
    if len(test) > STRESS_ROWS:
        rng = np.random.default_rng(seed)
        test = test.take(np.sort(rng.permutation(len(test))[:STRESS_ROWS]))
    whole = np.ones(len(test), dtype=bool)
    cases: list[tuple[str, Mapping[str, npt.NDArray[Any]], npt.NDArray[np.bool_]]] = []
    if settings.missing_block is not None:
        emptied = dict(test.columns)
        # derived features that read a lost one are lost too
        lost = use_case.with_dependents(use_case.views[settings.missing_block].columns)
        for name in lost & set(emptied):
            values = emptied[name]
            empty = None if values.dtype == object else np.nan
            emptied[name] = np.full(len(values), empty, dtype=values.dtype)
        cases.append((f"view {settings.missing_block} arrives empty", emptied, whole))
    ranked = sorted(maxima, key=lambda name: -importance.get(name, 0.0))[:EXTREME_FEATURES]
    extreme = dict(test.columns)
    for name in ranked:
        top = np.float32(EXTREME_FACTOR * max(abs(maxima[name]), 1.0))
        extreme[name] = np.full_like(test.columns[name], top)
    cases.append((f"out of range: {', '.join(ranked)}", extreme, whole))
    if settings.first_seen is not None:
        days = settings.newest_within_days
        newest = test.columns[settings.first_seen] <= days
        cases.append((f"first seen within {days} days", test.columns, newest))
    found = []
    for name, columns, mask in cases:
        if mask.any():
            chosen = {key: values[mask] for key, values in {**test.protected, **columns}.items()}
            found.append(_measure("stress", name, test, mask, model.decide(chosen), seed=seed))
    return tuple(found)


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
        automatic=_band_figures(label, decided, ~inside),
        inside=_band_figures(label, decided, inside),
    )


def _band_figures(
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
