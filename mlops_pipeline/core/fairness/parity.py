"""Whether disparities are within a limit: those of an evaluation, and those of live decisions.

Reading rows and recording audits is lifecycle/compliance/fairness_audits.py's, what follows a
refusal the gate's and mitigation's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlops_pipeline.config.modelling import Fairness, is_intersection
from mlops_pipeline.core.fairness.audit import GroupAudit, audit_attributes

Action = Literal["within_limits", "alert", "not_computable"]


@dataclass(frozen=True)
class Parity:
    """Whether selection rates are within a limit; `passed` is None when that is not known.

    That is when none is beyond it, and one at least is not computable.

    `value` is the largest demographic parity difference, `above` the attributes beyond the limit.
    """

    passed: bool | None
    value: float | None
    above: tuple[str, ...]
    reason: str


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
    known = {name: one.value for name, one in figures.items() if one.value is not None}
    unknown = [(name, one.reason) for name, one in figures.items() if one.value is None]
    lacking = [f"{name} not computable ({reason})" for name, reason in unknown]
    if not known:
        return Parity(None, None, (), "; ".join(lacking) or "there is no protected attribute")
    ranked = sorted(known.items(), key=lambda pair: -pair[1])
    above = tuple(name for name, value in ranked if value > at_most)
    reason = ", ".join([*(f"{name} {value:.3f}" for name, value in ranked), *lacking])
    passed = False if above else None if lacking else True
    return Parity(passed, ranked[0][1], above, reason)


@dataclass(frozen=True)
class LiveDecisions:
    """What one model version decided about rows with as_of from `since` on.

    `known` says of which rows the label is known at `as_of`; `label` means nothing elsewhere.
    """

    version: int
    since: datetime
    as_of: datetime
    entity: NDArray[Any]
    probability: NDArray[np.float64]
    decision: NDArray[np.bool_]
    protected: Mapping[str, NDArray[Any]]
    label: NDArray[np.int8]
    known: NDArray[np.bool_]


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


def audit_decisions(settings: Fairness, found: LiveDecisions | None, *, seed: int) -> LiveAudit:
    """Audit live decisions; selection rates of all rows, what needs labels on labelled ones.

    `found` None: there is no champion.
    """
    limit = settings.demographic_parity_at_most
    if found is None or len(found.decision) == 0:
        lacking, version = "there is no champion", None
        if found is not None:
            version = found.version
            lacking = f"version {version} has scored no row since {found.since.date()}"
        parity, sentence = Parity(None, None, (), lacking), f"not computable: {lacking}"
        return LiveAudit("not_computable", sentence, limit, version, 0, 0, parity, ())
    audits = audit_attributes(
        settings,
        found.protected,
        found.label,
        found.decision,
        scores=found.probability,
        known=found.known,
        entities=found.entity,
        seed=seed,
    )
    parity = evaluate_parity(audits, limit)
    rows, labelled, by = len(found.decision), int(found.known.sum()), found.as_of.date()
    outcomes: dict[bool | None, tuple[Action, str]] = {
        True: ("within_limits", f"within {limit:g}"),
        False: ("alert", f"above {limit:g} in {', '.join(parity.above)}"),
        None: ("not_computable", "not computable"),
    }
    action, outcome = outcomes[parity.passed]
    labels = f"{labelled:,} with a label known by {by}"
    if not labelled:
        labels = f"of which no label is known by {by}: TPR, FPR, precision and calibration are "
        labels += "not computable yet"
    sentence = (
        f"demographic parity difference {outcome}: {parity.reason}; {rows:,} decisions of version "
        f"{found.version} since {found.since.date()}, {labels}"
    )
    return LiveAudit(action, sentence, limit, found.version, rows, labelled, parity, audits)
