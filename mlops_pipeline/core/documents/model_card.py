"""The model card of a version, for people who have never seen the project; its technical file.

Belongs here: what the two pages are made of, and the words and numbers computed from it; the points
of Annex IV of Regulation (EU) 2024/1689, in our words, and what a person has to add to each. The
pages are model_card.md.jinja and technical_file.md.jinja; files and the ops database are read, and
the folder is written, in lifecycle/compliance/cards.py.
"""

import calendar
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from mlops_pipeline.config.modelling import DocumentSlot, is_intersection
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.documents import pages, records
from mlops_pipeline.core.evaluation.evaluation import Evaluation, Slice, worst_slices
from mlops_pipeline.core.evaluation.gates import PARITY_RULE
from mlops_pipeline.core.evaluation.outcomes import Gate
from mlops_pipeline.core.evaluation.records import GateException
from mlops_pipeline.core.fairness.audit import FOUR_FIFTHS, GroupAudit, GroupRates
from mlops_pipeline.core.modelling.calibration import threshold_from_costs
from mlops_pipeline.core.monitoring.cost import CostSheet
from mlops_pipeline.core.rollout.records import MEANINGS, Approval, RolloutEvent, RolloutState
from mlops_pipeline.spec.kinds import KINDS
from mlops_pipeline.spec.metrics import METRICS

WORST_SLICES = 5
TOP_FEATURES = 10
SCALES = (1_000, 10_000, 100_000)  # of the smallest, at least ten cases are positive
QUALITY = (  # lower ends of ROC AUC; Hosmer, Lemeshow & Sturdivant 2013, section 5.2.4
    (0.9, "very well"),
    (0.8, "well"),
    (0.7, "acceptably"),
    (0.0, "weakly"),
)


@dataclass(frozen=True)
class Standing:
    """Where a version stands, oldest first; `exceptions` of fairness rules, `reviews` of cards."""

    state: RolloutState
    since: datetime
    waiting_for: str | None
    approvals: Sequence[Approval] = ()
    events: Sequence[RolloutEvent] = ()
    exceptions: Sequence[GateException] = ()
    reviews: Sequence[Mapping[str, Any]] = ()
    cost: CostSheet | None = None

    @property
    def last_review(self) -> datetime:
        """When the card was reviewed last; before the first time, when the state began."""
        return max((item["at"] for item in self.reviews), default=self.since)


@dataclass(frozen=True)
class CardFacts:
    """The documents of a version as it was registered, and its standing (None: at registration)."""

    use_case: UseCase
    metadata: records.Metadata
    training: records.TrainingFacts
    snapshot: records.DataSnapshot
    evaluation: Evaluation
    gate: Gate
    model: records.ModelFacts
    lock_sha256: str
    shown_at: datetime
    standing: Standing | None = None

    @property
    def test(self) -> records.PartFacts:
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
        return f"{MEANINGS[standing.state].text}, since {standing.since:%Y-%m-%d}{waits}"

    @property
    def case_name(self) -> str:
        """What is scored: on a grid the entity, on an event grid each of its rows."""
        case = self.use_case
        is_event = case.grid.every == "event"
        return f"row of {case.population.source}" if is_event else case.entity.name

    def positive_words(self, *, is_short: bool = False) -> str:
        """Return what makes a case positive, from the label's definition."""
        label = self.use_case.label
        where = f" (of rows where {label.where})" if label.where and not is_short else ""
        sources = " or ".join(label.sources)
        if label.kind == "column":
            return f"{label.column} in {sources} is {label.positive}{where}"
        word = "no row" if label.kind == "event_absent" else "a row"
        return f"{word} in {sources} within {label.horizon_days} days{where}"

    @property
    def groups(self) -> list[tuple[str, bool, Sequence[GroupRates]]]:
        """(attribute, is an intersection, groups); of intersections the two furthest apart."""
        found = []
        for audit in self.evaluation.fairness:
            groups: Sequence[GroupRates] = audit.groups
            is_crossed = is_intersection(audit.attribute)
            if is_crossed:
                known = [item for item in groups if item.selection_rate.value is not None]
                ordered = sorted(known, key=lambda item: item.selection_rate.value or 0.0)
                groups = ordered[:1] + ordered[1:][-1:]
            found.append((audit.attribute, is_crossed, groups))
        return found

    @property
    def parity(self) -> list[tuple[str, bool]]:
        """(how far apart the selection rates are, whether the gate allows less) by attribute."""
        limits = pages.parity_limits(self.use_case)
        return [_parity(audit, limits.get(audit.attribute)) for audit in self.evaluation.fairness]

    @property
    def review_dates(self) -> list[tuple[str, str, date]]:
        """(review, how often, next date): from the configuration, and what was done."""
        rules, today = self.use_case.governance.review, self.shown_at.date()
        start = self.snapshot.written_at.date()
        reviewed = self.standing.last_review.date() if self.standing else start
        trained = self.training.as_of.date()
        measured, fair = rules.performance_months, rules.fairness_months
        dates = [
            ("performance on new labels", measured, next_date(start, measured, today)),
            ("fairness by group", fair, next_date(start, fair, today)),
            ("this card", rules.card_months, later(reviewed, rules.card_months)),
            ("retraining", rules.retraining_months, later(trained, rules.retraining_months)),
        ]
        often = {1: "monthly", 3: "quarterly", 12: "yearly"}
        return [
            (what, often.get(months, f"every {months} months"), due) for what, months, due in dates
        ]


def model_card(facts: CardFacts) -> str:
    """Return the card as Markdown; pages.render_html makes the HTML of it."""
    evaluation, auc = facts.evaluation, facts.evaluation.metrics["roc_auc"].value
    weakest = [] if auc is None else worst_slices(evaluation.slices, "roc_auc", WORST_SLICES)
    return pages.render_markdown(
        "model_card.md.jinja",
        facts=facts,
        standing=facts.standing,
        kinds=KINDS,
        meanings=MEANINGS,
        quality=next(word for low, word in QUALITY if (auc or 0.0) >= low),
        typical=_typical_cases(facts),
        warnings=list(_warnings(facts)),
        reading=_reading(facts.test.positive_rate),
        weakest=weakest,
        has_ranges=any(item.group.startswith("(") for item in weakest),
        losses=_stress_losses(evaluation),
        strongest=_strongest(facts),
    )


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


def _typical_cases(facts: CardFacts) -> dict[str, int] | None:
    """Return what becomes of a round number of cases, in whole numbers that are easy to picture."""
    metrics, rate = facts.evaluation.metrics, facts.test.positive_rate
    selection, recall = metrics["selection_rate"].value, metrics["recall"].value
    if selection is None or recall is None:
        return None
    cases = next((scale for scale in SCALES if rate * scale >= 10), SCALES[-1])
    positive, selected = round(rate * cases), round(selection * cases)
    found = round(recall * rate * cases)
    missed, wrong = positive - found, selected - found
    left = cases - selected - missed
    return {
        **{"cases": cases, "positive": positive, "selected": selected},
        **{"found": found, "missed": missed, "wrong": wrong, "left": left},
    }


def _parity(audit: GroupAudit, limit: float | None) -> tuple[str, bool]:
    gap, name = audit.demographic_parity_difference, audit.attribute
    if gap.value is None:
        return f"{name}: not computable: {gap.reason}", False
    text = f"{name}: selection rates differ by {100 * gap.value:.1f} percentage points"
    ratio = audit.demographic_parity_ratio.value
    if ratio is not None and ratio < FOUR_FIFTHS and not is_intersection(name):
        text += f" (a ratio of {ratio:.2f}, below four fifths)"
    if limit is None:
        return text, False
    is_above = gap.value > limit
    word = "more than" if is_above else "within"
    return f"{text}, {word} the {100 * limit:.1f} allowed", is_above


def _stress_losses(evaluation: Evaluation) -> list[tuple[float, Slice]]:
    """Return (change of ROC AUC, case) of every computable stress case, the worst first."""
    whole = evaluation.metrics["roc_auc"].value
    if whole is None:
        return []
    known = worst_slices(evaluation.stress, "roc_auc", len(evaluation.stress))
    return [((item.metrics["roc_auc"].value or 0.0) - whole, item) for item in known]


def _warnings(facts: CardFacts) -> Iterator[str]:
    yield from (text for text, is_above in facts.parity if is_above)
    for rule in facts.gate.failed:
        if not rule.name.startswith(PARITY_RULE):
            did = "is uncertain" if rule.outcome == "uncertain" else "did not pass"
            yield f"the rule “{pages.plain_words(rule.name)}” {did}"
    for item in worst_slices(facts.evaluation.slices, "roc_auc", 1):
        value = pages.number(item.metrics["roc_auc"].value, 3)
        yield f"it ranks worst for {item.column} = {item.group} (ROC AUC {value})"
    for change, case in _stress_losses(facts.evaluation)[:1]:
        value, name = pages.number(case.metrics["roc_auc"].value, 3), case.group.split(":")[0]
        if change < 0:
            yield f"it suffers most in the stress case “{name}” (ROC AUC {value})"
    for check in facts.evaluation.explanations.directions:
        if check.passed is False:
            yield f"{check.feature} is declared {check.expected}, but the model goes against it"


def _reading(rate: float) -> list[tuple[str, str]]:
    """Return how to read each metric, with what the base rate alone would give."""
    entropy = -sum(p * math.log(p) for p in (rate, 1 - rate) if p > 0)
    blind = {"base": pages.share(rate), "spread": pages.figure(rate * (1 - rate))}
    blind["entropy"] = pages.figure(entropy)
    return [(name, metric.reading.format(**blind)) for name, metric in METRICS.items()]


def _strongest(facts: CardFacts) -> list[tuple[str, str, float]]:
    """Return (input, description, share of all mean |SHAP|), the largest first."""
    shap, described = facts.evaluation.explanations.shap, facts.use_case.descriptions
    total = sum(shap.values())
    top = sorted(shap.items(), key=lambda pair: -pair[1])[:TOP_FEATURES] if total else []
    return [(name, described.get(name, ""), value / total) for name, value in top]


Status = Literal["filled", "partly filled", "not provided"]
TITLES: Mapping[str, str] = {
    "1": "General description",
    "2": "Elements of the system and how it was developed",
    "3": "Monitoring, functioning and control",
    "4": "Why these performance metrics fit",
    "5": "Risk management system",
    "6": "Changes over the lifecycle",
    "7": "Harmonised standards and other specifications",
    "8": "EU declaration of conformity",
    "9": "Performance after it is in use",
}
WITHOUT_FACTS = frozenset(  # slots of points about which nothing is recorded
    ("product_illustrations", "instructions_for_use", "standards", "declaration_of_conformity")
)


@dataclass(frozen=True)
class Point:
    """One point of the annex; `slot` is its key in `governance.documents`, `wanted` in words."""

    number: str
    title: str
    slot: DocumentSlot | None = None
    wanted: str = ""

    def status(self, provided: Mapping[str, str]) -> Status:
        """Return whether facts, a person, or neither speak to it."""
        if self.slot is None or self.slot in provided:
            return "filled"
        return "not provided" if self.slot in WITHOUT_FACTS else "partly filled"


POINTS = (
    Point("1 (a)", "Purpose, provider, version", "provider", "name and address of the provider"),
    Point("1 (b)", "Interaction with other systems", "interaction", "the systems it works with"),
    Point("1 (c)", "Versions of software"),
    Point("1 (d)", "Forms of supply", "supply", "the forms in which it is supplied to others"),
    Point("1 (e)", "Hardware"),
    Point("1 (f)", "Pictures of the product", "product_illustrations", "pictures of it, if any"),
    Point("1 (g)", "User interface"),
    Point("1 (h)", "Instructions for use", "instructions_for_use", "instructions for its users"),
    Point("2 (a)", "Methods and steps"),
    Point("2 (b)", "Design, logic and choices"),
    Point("2 (c)", "Architecture and computing resources"),
    Point("2 (d)", "Data: origin, selection, labels, cleaning"),
    Point("2 (e)", "Human oversight", "human_oversight", "an assessment of the oversight needed"),
    Point("2 (f)", "Planned changes"),
    Point("2 (g)", "Validation and testing"),
    Point("2 (h)", "Cybersecurity", "cybersecurity", "the security measures where it runs"),
    Point("3", "Capabilities and limits, overall and by group"),
    Point(
        "3",
        "Unintended outcomes and risks",
        "unintended_outcomes",
        "foreseeable unintended outcomes, and risks to people",
    ),
    Point("3", "Human oversight in operation"),
    Point("3", "Input data"),
    Point("4", TITLES["4"], "metrics_rationale", "why these metrics fit this purpose"),
    Point("5", TITLES["5"], "risk_management", "the risk management system"),
    Point("6", TITLES["6"]),
    Point("7", TITLES["7"], "standards", "the standards applied"),
    Point("8", TITLES["8"], "declaration_of_conformity", "a copy of the declaration"),
    Point("9", TITLES["9"], "post_market_plan", "the post-market monitoring plan"),
)


def technical_file(facts: CardFacts, provided: Mapping[str, str]) -> str:
    """Return the page as Markdown: an overview of what is filled, then point by point."""
    return pages.render_markdown(
        "technical_file.md.jinja", facts=facts, points=POINTS, titles=TITLES, provided=provided
    )


def statuses(provided: Mapping[str, str]) -> Mapping[Status, int]:
    """Return how many points have which status."""
    return Counter(point.status(provided) for point in POINTS)
