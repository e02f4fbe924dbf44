"""What a model card is made of: the documents of a version, where it stands, what follows from it.

Belongs here: facts, and the words and numbers that are computed from them. The page is
model_card.md.jinja; files and databases are read in lifecycle/compliance/cards.py.
"""

import calendar
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from mlops_pipeline.config.fairness import is_intersection
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.documents.report import parity_limits
from mlops_pipeline.core.fairness.group_audit import FOUR_FIFTHS
from mlops_pipeline.core.modelling.calibration import threshold_from_costs

Json = Mapping[str, Any]
SCALES = (1_000, 10_000, 100_000)  # of the smallest, at least ten cases are positive
STATES: Mapping[str, str] = {
    "awaiting_approval": "waiting for a person's approval; not in use",
    "full": "in use (the champion)",
    "previous": "replaced; kept to go back to",
    "rejected": "rejected by a person; not in use",
    "superseded": "superseded by a newer version before anybody decided; not in use",
    "archived": "archived; not in use",
    "rolled_back": "rolled back; not in use",
}


@dataclass(frozen=True)
class Standing:
    """Where a version stands. The sequences are rows of the ops database, oldest first.

    `exceptions` are those from fairness rules, `reviews` those of the card; `cost` is the cost
    sheet of the use case.
    """

    state: str
    since: datetime
    waiting_for: str | None
    approvals: Sequence[Json] = ()
    events: Sequence[Json] = ()
    exceptions: Sequence[Json] = ()
    reviews: Sequence[Json] = ()
    cost: Json | None = None

    @property
    def last_review(self) -> datetime:
        """When the card was reviewed last; before the first time, when the state began."""
        return max((item["at"] for item in self.reviews), default=self.since)


@dataclass(frozen=True)
class Outcomes:
    """What becomes of so many typical cases."""

    cases: int
    positive: int
    flagged: int
    found: int

    @property
    def missed(self) -> int:
        """Positive cases that get a no."""
        return self.positive - self.found

    @property
    def wrong(self) -> int:
        """Negative cases that get a yes."""
        return self.flagged - self.found

    @property
    def left(self) -> int:
        """Negative cases that get a no."""
        return self.cases - self.flagged - self.missed


@dataclass(frozen=True)
class CardFacts:
    """The stored documents of one version, and its standing.

    Parameters
    ----------
    use_case : UseCase
        As it was when the version was registered.
    metadata, training, snapshot : mapping
        metadata.json, training.json and data_snapshot.json.
    evaluation, gate : mapping
        The two parts of evaluation.json.
    own : mapping
        card_facts.json: threshold, thresholds (where they differ between groups), calibration,
        libraries; and lock_sha256.
    shown_at : datetime
        When the card is written.
    standing : Standing or None
        None on the card that is registered with the version.
    """

    use_case: UseCase
    metadata: Json
    training: Json
    snapshot: Json
    evaluation: Json
    gate: Json
    own: Json
    shown_at: datetime
    standing: Standing | None = None

    @property
    def version(self) -> int:
        """The version in the registry."""
        return int(self.metadata["version"])

    @property
    def test(self) -> Json:
        """Periods, rows and share of positives of the test part."""
        part: Json = self.training["parts"]["test"]
        return part

    @property
    def registered_at(self) -> datetime:
        """When the version was registered."""
        return datetime.fromisoformat(self.snapshot["written_at"])

    @property
    def seconds(self) -> float:
        """How long fitting all candidates took."""
        return float(sum(item["seconds"] for item in self.training["candidates"]))

    @property
    def cost_threshold(self) -> float:
        """The threshold that the costs alone give."""
        costs = self.use_case.training.costs
        return threshold_from_costs(costs.false_positive, costs.false_negative)

    @property
    def is_from_costs(self) -> bool:
        """Whether the threshold is that of the costs."""
        return math.isclose(self.own["threshold"], self.cost_threshold, abs_tol=1e-9)

    @property
    def state_text(self) -> str:
        """The present state in words; before deployment, what the gate said."""
        standing = self.standing
        if standing is None:
            asks = "asks for" if self.gate["needs_review"] else "does not ask for"
            return f"registered; the gate passed and {asks} a person's approval"
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
        return f"A case is one {case.entity.name} at the start of one {case.grid.every}."

    def positive_words(self, *, is_short: bool = False) -> str:
        """Return what makes a case positive, from the label's definition."""
        label = self.use_case.label
        where = f" (of rows where {label.where})" if label.where and not is_short else ""
        if label.kind == "column":
            return f"{label.column} in {label.source} is {label.positive}{where}"
        word = "no row" if label.kind == "event_absent" else "a row"
        return f"{word} in {label.source} within {label.horizon_days} days{where}"

    def period(self, part: str) -> str:
        """Return the periods of a part as a person reads them."""
        periods = self.training["parts"][part]["periods"] or ["all periods"]
        return str(periods[0]) if len(periods) == 1 else f"{periods[0]} to {periods[-1]}"

    @property
    def protected_inputs(self) -> list[str]:
        """Protected attributes that the model is given."""
        return [name for name, item in self.use_case.protected.items() if item.as_input]

    @property
    def groups(self) -> list[tuple[str, bool, bool, Sequence[Json]]]:
        """(attribute, is an intersection, has calibration, groups) by attribute.

        Of an intersection, which has many small groups, the two that are furthest apart.
        """
        found = []
        for audit in self.evaluation["fairness"]:
            groups, is_crossed = audit["groups"], is_intersection(audit["attribute"])
            if is_crossed:
                known = [item for item in groups if item["selection_rate"]["value"] is not None]
                ordered = sorted(known, key=lambda item: item["selection_rate"]["value"])
                groups = ordered[:1] + ordered[1:][-1:]
            has_calibration = any(item.get("calibration") for item in groups)
            found.append((audit["attribute"], is_crossed, has_calibration, groups))
        return found

    @property
    def parity(self) -> list[tuple[str, bool]]:
        """(how far apart the shares of yes are, whether the gate allows less) by attribute."""
        return [self._parity(audit) for audit in self.evaluation["fairness"]]

    def _parity(self, audit: Json) -> tuple[str, bool]:
        gap, name = audit["demographic_parity_difference"], audit["attribute"]
        if gap["value"] is None:
            return f"{name}: not computable: {gap['reason']}", False
        text = f"{name}: the share of yes differs by {100 * gap['value']:.1f} percentage points"
        ratio = audit["demographic_parity_ratio"]["value"]
        if ratio is not None and ratio < FOUR_FIFTHS and not is_intersection(name):
            text += f" (a ratio of {ratio:.2f}, below four fifths)"
        limit = parity_limits(self.use_case).get(name)
        if limit is None:
            return text, False
        is_above = gap["value"] > limit
        word = "more than" if is_above else "within"
        return f"{text}, {word} the {100 * limit:.1f} allowed", is_above

    @property
    def mitigation_metrics(self) -> list[str]:
        """The figures that any variant of the mitigation has."""
        variants = self.evaluation["mitigation"]["variants"]
        return list(dict.fromkeys(name for item in variants for name in item["figures"]))

    @property
    def review_dates(self) -> list[tuple[str, str, date]]:
        """(review, how often, next date): from the configuration, and what was done."""
        rules, today, start = (
            self.use_case.governance.review,
            self.shown_at.date(),
            self.registered_at.date(),
        )
        as_of = date.fromisoformat(self.training["as_of"][:10])
        reviewed = self.standing.last_review.date() if self.standing else start
        months = rules.performance_months, rules.fairness_months
        dates = [
            *(next_date(start, step, today) for step in months),
            later(reviewed, rules.card_months),
            later(as_of, rules.retraining_months),
        ]
        what = ("performance on new labels", "fairness by group", "this card", "retraining")
        steps = (*months, rules.card_months, rules.retraining_months)
        often = [_every(step) for step in steps]
        return list(zip(what, often, dates, strict=True))


def outcomes(facts: CardFacts) -> Outcomes | None:
    """Return whole numbers of cases that make selection rate and recall easy to picture."""
    metrics, rate = facts.evaluation["metrics"], facts.test["positive_rate"]
    selected, recall = (metrics.get(name, {}).get("value") for name in ("selection_rate", "recall"))
    if selected is None or recall is None:
        return None
    cases = next((scale for scale in SCALES if rate * scale >= 10), SCALES[-1])
    positive, flagged = round(rate * cases), round(selected * cases)
    return Outcomes(cases, positive, flagged, round(recall * rate * cases))


def weakest_slices(evaluation: Json, count: int) -> list[Json]:
    """Return the slices with the lowest ROC AUC, the lowest first."""
    known = [
        item for item in evaluation["slices"] if item["metrics"]["roc_auc"]["value"] is not None
    ]
    return sorted(known, key=lambda item: item["metrics"]["roc_auc"]["value"])[:count]


def stress_losses(evaluation: Json) -> list[tuple[float, Json]]:
    """Return (change of ROC AUC, case) of every computable stress case, the worst first."""
    whole = evaluation["metrics"]["roc_auc"]["value"]
    known = [
        (case["metrics"]["roc_auc"]["value"] - whole, case)
        for case in evaluation["stress"]
        if whole is not None and case["metrics"]["roc_auc"]["value"] is not None
    ]
    return sorted(known, key=lambda pair: pair[0])


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
