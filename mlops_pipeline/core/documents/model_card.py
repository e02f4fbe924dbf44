"""The model card of a version: one page for people who have never seen the project.

Belongs here: what the card is made of, and the words and numbers computed from it. The page is
model_card.md.jinja; files and the ops database are read in lifecycle/compliance/cards.py.
"""

import calendar
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from mlops_pipeline.config.modelling import is_intersection
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.documents.metadata import Metadata
from mlops_pipeline.core.documents.pages import figure, number, plain_words, render_markdown, share
from mlops_pipeline.core.documents.records import (
    DataSnapshot,
    ModelFacts,
    PartFacts,
    TrainingFacts,
)
from mlops_pipeline.core.documents.report import parity_limits
from mlops_pipeline.core.evaluation.evaluation import Evaluation, Slice, worst_slices
from mlops_pipeline.core.evaluation.gates import PARITY_RULE, Gate
from mlops_pipeline.core.evaluation.records import GateException
from mlops_pipeline.core.fairness.audit import FOUR_FIFTHS, GroupAudit, GroupRates
from mlops_pipeline.core.modelling.calibration import threshold_from_costs
from mlops_pipeline.core.monitoring.cost import CostSheet
from mlops_pipeline.core.rollout.records import MEANINGS, Approval, RolloutEvent
from mlops_pipeline.spec.kinds import KINDS
from mlops_pipeline.spec.metrics import METRICS

Row = Mapping[str, Any]  # of a table that no decision reads
WORST_SLICES = 5
TOP_FEATURES = 10
SCALES = (1_000, 10_000, 100_000)  # of the smallest, at least ten cases are positive
STATES: Mapping[str, str] = {state: meaning.text for state, meaning in MEANINGS.items()}
QUALITY = (  # lower ends of ROC AUC; Hosmer, Lemeshow & Sturdivant 2013, section 5.2.4
    (0.9, "very well"),
    (0.8, "well"),
    (0.7, "acceptably"),
    (0.0, "weakly"),
)


@dataclass(frozen=True)
class Standing:
    """Where a version stands. The sequences are of the ops database, oldest first.

    `exceptions` are those from fairness rules, `reviews` those of the card.
    """

    state: str
    since: datetime
    waiting_for: str | None
    approvals: Sequence[Approval] = ()
    events: Sequence[RolloutEvent] = ()
    exceptions: Sequence[GateException] = ()
    reviews: Sequence[Row] = ()
    cost: CostSheet | None = None

    @property
    def last_review(self) -> datetime:
        """When the card was reviewed last; before the first time, when the state began."""
        return max((item["at"] for item in self.reviews), default=self.since)


@dataclass(frozen=True)
class Outcomes:
    """What becomes of a round number of typical cases."""

    cases: int
    positive: int
    selected: int
    found: int

    @property
    def missed(self) -> int:
        """Positive cases that are not selected."""
        return self.positive - self.found

    @property
    def wrong(self) -> int:
        """Negative cases that are selected."""
        return self.selected - self.found

    @property
    def left(self) -> int:
        """Negative cases that are not selected."""
        return self.cases - self.selected - self.missed


@dataclass(frozen=True)
class CardFacts:
    """The stored documents of one version, and its standing.

    `use_case` is as it was when the version was registered; `standing` None on the card that is
    registered with the version.
    """

    use_case: UseCase
    metadata: Metadata
    training: TrainingFacts
    snapshot: DataSnapshot
    evaluation: Evaluation
    gate: Gate
    model: ModelFacts
    lock_sha256: str
    shown_at: datetime
    standing: Standing | None = None

    @property
    def test(self) -> PartFacts:
        """The test part."""
        return self.training.parts["test"]

    @property
    def seconds(self) -> float:
        """How long fitting all candidates took."""
        return sum(item.seconds for item in self.training.candidates)

    @property
    def cost_threshold(self) -> float:
        """The threshold that the costs alone give."""
        costs = self.use_case.training.costs
        return threshold_from_costs(costs.false_positive, costs.false_negative)

    @property
    def is_from_costs(self) -> bool:
        """Whether the threshold is that of the costs."""
        return math.isclose(self.model.threshold, self.cost_threshold, abs_tol=1e-9)

    @property
    def state_text(self) -> str:
        """The present state in words; before deployment, what the gate said."""
        standing = self.standing
        if standing is None:
            needs = "needs" if self.gate.needs_review else "does not need"
            return f"registered; it passed the gate and {needs} a person's approval"
        waits = f" (waits for {standing.waiting_for})" if standing.waiting_for else ""
        words = STATES.get(standing.state, standing.state.replace("_", " "))
        return f"{words}, since {standing.since:%Y-%m-%d}{waits}"

    @property
    def case_name(self) -> str:
        """What is scored: on a grid the entity, on an event grid each of its rows."""
        case = self.use_case
        is_event = case.grid.every == "event"
        return f"row of {case.population.source}" if is_event else case.entity.name

    @property
    def case_words(self) -> str:
        """What one case is."""
        case = self.use_case
        if case.grid.every == "event":
            return f"A case is one {self.case_name}, at its own time."
        return f"A case is one {case.entity.name} at the start of a {case.grid.every}."

    def positive_words(self, *, is_short: bool = False) -> str:
        """Return what makes a case positive, from the label's definition."""
        label = self.use_case.label
        where = f" (of rows where {label.where})" if label.where and not is_short else ""
        if label.kind == "column":
            return f"{label.column} in {label.source} is {label.positive}{where}"
        word = "no row" if label.kind == "event_absent" else "a row"
        return f"{word} in {label.source} within {label.horizon_days} days{where}"

    @property
    def protected_inputs(self) -> list[str]:
        """Protected attributes that the model is given."""
        return [name for name, item in self.use_case.protected.items() if item.as_input]

    @property
    def groups(self) -> list[tuple[str, bool, bool, Sequence[GroupRates]]]:
        """(attribute, is an intersection, has calibration, groups) by attribute.

        Of an intersection, which has many small groups, the two that are furthest apart.
        """
        found = []
        for audit in self.evaluation.fairness:
            groups: Sequence[GroupRates] = audit.groups
            is_crossed = is_intersection(audit.attribute)
            if is_crossed:
                known = [item for item in groups if item.selection_rate.value is not None]
                ordered = sorted(known, key=lambda item: item.selection_rate.value or 0.0)
                groups = ordered[:1] + ordered[1:][-1:]
            has_calibration = any(item.calibration for item in groups)
            found.append((audit.attribute, is_crossed, has_calibration, groups))
        return found

    @property
    def parity(self) -> list[tuple[str, bool]]:
        """(how far apart the selection rates are, whether the gate allows less) by attribute."""
        return [self._parity(audit) for audit in self.evaluation.fairness]

    def _parity(self, audit: GroupAudit) -> tuple[str, bool]:
        gap, name = audit.demographic_parity_difference, audit.attribute
        if gap.value is None:
            return f"{name}: not computable: {gap.reason}", False
        text = f"{name}: selection rates differ by {100 * gap.value:.1f} percentage points"
        ratio = audit.demographic_parity_ratio.value
        if ratio is not None and ratio < FOUR_FIFTHS and not is_intersection(name):
            text += f" (a ratio of {ratio:.2f}, below four fifths)"
        limit = parity_limits(self.use_case).get(name)
        if limit is None:
            return text, False
        is_above = gap.value > limit
        word = "more than" if is_above else "within"
        return f"{text}, {word} the {100 * limit:.1f} allowed", is_above

    @property
    def review_dates(self) -> list[tuple[str, str, date]]:
        """(review, how often, next date): from the configuration, and what was done."""
        rules, today = self.use_case.governance.review, self.shown_at.date()
        start = self.snapshot.written_at.date()
        reviewed = self.standing.last_review.date() if self.standing else start
        measured, fair = rules.performance_months, rules.fairness_months
        card, trained = rules.card_months, rules.retraining_months
        return [
            ("performance on new labels", _every(measured), next_date(start, measured, today)),
            ("fairness by group", _every(fair), next_date(start, fair, today)),
            ("this card", _every(card), later(reviewed, card)),
            ("retraining", _every(trained), later(self.training.as_of.date(), trained)),
        ]


def model_card(facts: CardFacts) -> str:
    """Return the card as Markdown; pages.render_html makes the HTML of it."""
    evaluation, auc = facts.evaluation, facts.evaluation.metrics["roc_auc"].value
    weakest = [] if auc is None else worst_slices(evaluation.slices, "roc_auc", WORST_SLICES)
    return render_markdown(
        "model_card.md.jinja",
        facts=facts,
        standing=facts.standing,
        kinds={name: kind.described for name, kind in KINDS.items()},
        states=STATES,
        quality=next(word for low, word in QUALITY if (auc or 0.0) >= low),
        typical=outcomes(facts),
        warnings=list(_warnings(facts)),
        reading=_reading(facts.test.positive_rate),
        weakest=weakest,
        has_ranges=any(item.group.startswith("(") for item in weakest),
        losses=stress_losses(evaluation),
        strongest=_strongest(facts),
    )


def outcomes(facts: CardFacts) -> Outcomes | None:
    """Return whole numbers of cases that make selection rate and recall easy to picture."""
    metrics, rate = facts.evaluation.metrics, facts.test.positive_rate
    selected, recall = metrics["selection_rate"].value, metrics["recall"].value
    if selected is None or recall is None:
        return None
    cases = next((scale for scale in SCALES if rate * scale >= 10), SCALES[-1])
    positive, flagged = round(rate * cases), round(selected * cases)
    return Outcomes(cases, positive, flagged, round(recall * rate * cases))


def stress_losses(evaluation: Evaluation) -> list[tuple[float, Slice]]:
    """Return (change of ROC AUC, case) of every computable stress case, the worst first."""
    whole = evaluation.metrics["roc_auc"].value
    if whole is None:
        return []
    known = worst_slices(evaluation.stress, "roc_auc", len(evaluation.stress))
    return [((item.metrics["roc_auc"].value or 0.0) - whole, item) for item in known]


def later(day: date, months: int) -> date:
    """Return the same day some months later; the last day of a month that is shorter."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


def next_date(start: date, months: int, after: date) -> date:
    """Return the first date after `after` that is a whole number of steps behind `start`."""
    step = 1
    while (found := later(start, step * months)) <= after:
        step += 1
    return found


def _every(months: int) -> str:
    return {1: "monthly", 3: "quarterly", 12: "yearly"}.get(months, f"every {months} months")


def _warnings(facts: CardFacts) -> Iterator[str]:
    yield from (text for text, is_above in facts.parity if is_above)
    for rule in facts.gate.failed:
        if not rule.name.startswith(PARITY_RULE):
            yield f"the rule “{plain_words(rule.name)}” did not pass"
    for item in worst_slices(facts.evaluation.slices, "roc_auc", 1):
        value = number(item.metrics["roc_auc"].value, 3)
        yield f"it ranks worst for {item.column} = {item.group} (ROC AUC {value})"
    for change, case in stress_losses(facts.evaluation)[:1]:
        value, name = number(case.metrics["roc_auc"].value, 3), case.group.split(":")[0]
        if change < 0:
            yield f"it suffers most in the stress case “{name}” (ROC AUC {value})"
    for check in facts.evaluation.explanations.directions:
        if check.passed is False:
            yield f"{check.feature} is declared {check.expected}, but the model goes against it"


def _reading(rate: float) -> list[tuple[str, str]]:
    """Return how to read each metric, with what the base rate alone would give."""
    entropy = -sum(p * math.log(p) for p in (rate, 1 - rate) if p > 0)
    blind = {
        "base": share(rate),
        "spread": figure(rate * (1 - rate)),
        "entropy": figure(entropy),
    }
    return [(name, metric.reading.format(**blind)) for name, metric in METRICS.items()]


def _strongest(facts: CardFacts) -> list[tuple[str, str, float]]:
    """Return (input, description, share of all mean |SHAP|), the largest first."""
    shap, described = facts.evaluation.explanations.shap, facts.use_case.descriptions
    total = sum(shap.values())
    if not total:
        return []
    top = sorted(shap.items(), key=lambda pair: -pair[1])[:TOP_FEATURES]
    return [(name, described.get(name, ""), value / total) for name, value in top]
