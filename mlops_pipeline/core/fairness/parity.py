"""Whether disparities are within a limit: those of an evaluation, and those of live decisions.

Reading rows and recording audits is lifecycle/compliance/fairness_audits.py's, what follows a
refusal the gate's and mitigation's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from mlops_pipeline.config.modelling import Fairness, is_intersection
from mlops_pipeline.core.data.frame import Columns, Flags, Labels, Values
from mlops_pipeline.core.fairness.audit import GroupAudit, audit_attributes
from mlops_pipeline.core.metrics.metrics import SEVERITY, Estimate, Floats, Outcome, hold

Action = Literal["within_limits", "alert", "uncertain", "not_computable"]


@dataclass(frozen=True)
class Parity:
    """Whether selection rates are within a limit: of several attributes, the most severe outcome.

    An attribute passes or fails when a one-sided 95 % bound says so, and is uncertain between; of
    several, one fails by its bound at 1 - 0.05 / their number.
    `value` is the largest demographic parity difference, `above` the attributes beyond the limit.
    """

    outcome: Outcome
    value: float | None
    above: tuple[str, ...]
    reason: str
    width: float | None = None  # the widest, from bound to bound
    attributes: int = 1  # so many have to be within it


def evaluate_parity(
    audits: Sequence[GroupAudit], at_most: float, attributes: Sequence[str] = ()
) -> Parity:
    """Hold the demographic parity difference of each attribute against a limit.

    Without `attributes`, of every single one: the largest of many differences between the small
    groups of intersections is large by chance.
    """
    figures = {
        audit.attribute: audit.demographic_parity_difference
        for audit in audits
        if (audit.attribute in attributes if attributes else not is_intersection(audit.attribute))
    }
    if not figures:
        return Parity("not computable", None, (), "there is no protected attribute")
    ranked = sorted(figures.items(), key=lambda pair: -(pair[1].value or 0.0))
    outcomes = {name: hold(one, at_most, is_floor=False, among=len(ranked)) for name, one in ranked}
    known = [(name, one.value) for name, one in ranked if one.value is not None]
    words = [_words(name, one, outcomes[name]) for name, one in ranked]
    return Parity(
        min(outcomes.values(), key=SEVERITY.index),
        max((value for _, value in known), default=None),
        tuple(name for name, value in known if value > at_most),
        ", ".join(words),
        max((width for _, one in ranked if (width := one.width) is not None), default=None),
        len(ranked),
    )


def _words(name: str, figure: Estimate, outcome: Outcome) -> str:
    if outcome == "not computable":
        return f"{name} not computable ({figure.reason})"
    said = f"{name} {figure.value:.3f} (bounds {figure.lower:.3f} and {figure.upper:.3f})"
    if outcome == "uncertain":
        said += ", which so few rows cannot tell"
        if figure.by_chance is not None:
            said += f" (groups that are alike differ by up to {figure.by_chance:.3f} in them)"
    return said


@dataclass(frozen=True)
class LiveDecisions:
    """What one model version decided from `since` on; `label` counts where it is `known`."""

    version: int
    since: datetime
    as_of: datetime
    entity: Values
    probability: Floats
    decision: Flags
    protected: Columns
    label: Labels
    known: Flags


@dataclass(frozen=True)
class LiveAudit:
    """What follows from live decisions, a sentence that says why, and the figures behind it."""

    action: Action
    sentence: str
    limit: float
    version: int | None
    rows: int
    labelled: int
    parity: Parity
    audits: tuple[GroupAudit, ...]


def audit_decisions(settings: Fairness, found: LiveDecisions | None) -> LiveAudit:
    """Audit live decisions (None: there is no champion); what needs labels on labelled rows."""
    limit = settings.demographic_parity_at_most
    if found is None or len(found.decision) == 0:
        lacking, version = "there is no champion", None
        if found is not None:
            version = found.version
            lacking = f"version {version} has scored no row since {found.since.date()}"
        parity, sentence = Parity("not computable", None, (), lacking), f"not computable: {lacking}"
        return LiveAudit("not_computable", sentence, limit, version, 0, 0, parity, ())
    audits = audit_attributes(
        settings,
        found.protected,
        found.label,
        found.decision,
        scores=found.probability,
        known=found.known,
        entities=found.entity,
    )
    parity = evaluate_parity(audits, limit)
    rows, labelled, by = len(found.decision), int(found.known.sum()), found.as_of.date()
    outcomes: dict[Outcome, tuple[Action, str]] = {
        "passed": ("within_limits", f"within {limit:g}"),
        "failed": ("alert", f"above {limit:g} in {', '.join(parity.above)}"),
        "uncertain": ("uncertain", f"not told apart from {limit:g} by so few rows"),
        "not computable": ("not_computable", "not computable"),
    }
    action, outcome = outcomes[parity.outcome]
    labels = f"{labelled:,} with a label known by {by}"
    if not labelled:
        labels = f"of which no label is known by {by}: TPR, FPR, precision and calibration are "
        labels += "not computable yet"
    sentence = (
        f"demographic parity difference {outcome}: {parity.reason}; {rows:,} decisions of version "
        f"{found.version} since {found.since.date()}, {labels}"
    )
    return LiveAudit(action, sentence, limit, found.version, rows, labelled, parity, audits)
