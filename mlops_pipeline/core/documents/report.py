"""The evaluation report: everything that was measured, as one HTML page and as plain JSON.

Belongs here: what the page says and how numbers read. The figures come from evaluation.py, the
verdict from gates.py, the pictures from plots.py; the layout is report.html.jinja.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np

from mlops_pipeline.config.fairness import is_intersection
from mlops_pipeline.config.modelling import ParityRule
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.evaluation.evaluation import SLICE_METRICS, Evaluation, Slice
from mlops_pipeline.core.evaluation.gates import Gate, RuleResult, comparison_level
from mlops_pipeline.core.fairness.group_audit import GroupAudit
from mlops_pipeline.core.metrics.metrics import METRICS, Estimate
from mlops_pipeline.core.modelling.selection import Choice

TITLES: Mapping[str, str] = {
    "roc_auc": "ROC AUC",
    "pr_auc": "PR AUC",
    "log_loss": "log loss",
    "brier": "Brier",
    "ece": "ECE",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "selection_rate": "selection rate",
    "expected_cost": "expected cost",
}
SHOWN_SLICE_METRICS = ("roc_auc", "pr_auc", "brier", "log_loss", "ece", "recall")
STRESS_METRICS = ("roc_auc", "pr_auc", "brier", "log_loss", "ece")
CANDIDATE_METRICS = ("roc_auc", "pr_auc", "brier")
VARIANT_METRICS = ("expected_cost", "log_loss", "roc_auc", "recall")
DISPARITIES: Mapping[str, str] = {
    "demographic_parity_difference": "demographic parity difference",
    "demographic_parity_ratio": "demographic parity ratio",
    "equalized_odds_difference": "equalized odds difference",
    "equal_opportunity_difference": "equal opportunity difference",
}
TOP_SHAP = 15
DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


@dataclass(frozen=True)
class SourceFacts:
    """The accepted version of one source."""

    name: str
    version: int
    rows: int
    quarantined: int = 0


@dataclass(frozen=True)
class PartFacts:
    """One part of the split; `periods` reads as "2024-01-01 to 2024-09-01"."""

    name: str
    periods: str
    rows: int
    positive_rate: float | None


@dataclass(frozen=True)
class CandidateFacts:
    """One candidate on the validation part; `log_loss` is the figure that decides."""

    name: str
    kind: str
    log_loss: float
    validation: Mapping[str, Estimate]
    seconds: float
    cost: float


@dataclass(frozen=True)
class ReportFacts:
    """What the page is made of.

    Parameters
    ----------
    as_of : str
        As a person reads it, UTC.
    provenance : mapping of name to text
        Run ids, fingerprint, git commit, seed.
    threshold : str
        Probability from which the decision is positive, or the range where rows differ.
    plots : mapping of name to PNG bytes
        Shown in their sections: reliability, roc, precision_recall, scores, confusion, slices,
        shap, learning_curves, importance, fairness_<attribute>; any other one at the end.
    links : mapping of text to address
        For example "What changed (Evidently)": "evidently.html".
    notes : sequence of str
        What a reader must know to read the figures right.
    """

    use_case: UseCase
    as_of: str
    provenance: Mapping[str, str]
    sources: Sequence[SourceFacts]
    parts: Sequence[PartFacts]
    purged_rows: int
    candidates: Sequence[CandidateFacts]
    chosen: Choice
    threshold: str
    evaluation: Evaluation
    gate: Gate
    dropped: Mapping[str, str] = field(default_factory=dict)
    plots: Mapping[str, bytes] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Headline:
    """The verdict: its `tone` (good, review, bad), one sentence, and the rules that failed."""

    tone: str
    sentence: str
    failed: tuple[RuleResult, ...]


def render_report(facts: ReportFacts) -> str:
    """Return the page as self-contained HTML: styles and plots inside, nothing is fetched."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("mlops_pipeline.core", "documents"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number, signed=signed, share=share, count=_count, png=_base64, title=_title
    )
    evaluation = facts.evaluation
    return environment.get_template("report.html.jinja").render(
        facts=facts,
        use_case=facts.use_case,
        evaluation=evaluation,
        headline=headline(facts.gate, facts.use_case),
        gaps={name: _gap(evaluation, name) for name in evaluation.metrics},
        better=_better,
        comparison_level=comparison_level(facts.use_case.gates),
        worst={
            name: worst[0]
            for name in SHOWN_SLICE_METRICS
            if (worst := worst_slices(evaluation.slices, name, 1))
        },
        slice_metrics=SHOWN_SLICE_METRICS,
        stress_metrics=STRESS_METRICS,
        candidate_metrics=CANDIDATE_METRICS,
        variant_metrics=VARIANT_METRICS,
        disparities=DISPARITIES,
        singles=singles(evaluation.fairness),
        pairs=[audit for audit in evaluation.fairness if is_intersection(audit.attribute)],
        parity_limits=parity_limits(facts.use_case),
        shap=list(evaluation.explanations.shap.items())[:TOP_SHAP],
        descriptions=facts.use_case.descriptions,
        other_plots=_other_plots(facts),
    )


def headline(gate: Gate, use_case: UseCase) -> Headline:
    """Return the verdict in one sentence, naming the rules that failed."""
    deciding = tuple(rule for rule in gate.failed if rule.effect != "warn")
    warnings = tuple(rule for rule in gate.failed if rule.effect == "warn")
    verb = "warns" if len(warnings) == 1 else "warn"
    beside = f" ({len(warnings)} more only {verb})" if warnings else ""
    if not gate.passed:
        blocking = [rule.name for rule in deciding if rule.blocks]
        return Headline("bad", f"Refused: {_joined(blocking)} failed{beside}.", gate.failed)
    if gate.needs_review:
        names = _joined([rule.name for rule in deciding])
        sentence = f"Needs a person's approval: {names} did not pass{beside}."
        return Headline("review", sentence, gate.failed)
    if use_case.rollout.approval == "always":
        sentence = "Needs a person's approval: no rule stands against it, and this use case asks "
        return Headline("review", sentence + "for approval of every version.", gate.failed)
    if warnings:
        names = _joined([rule.name for rule in warnings])
        return Headline("good", f"Accepted, with a warning: {names} did not pass.", gate.failed)
    return Headline("good", f"Accepted: every rule passed ({len(gate.rules)}).", ())


def worst_slices(slices: Sequence[Slice], metric: str, count: int = 3) -> list[Slice]:
    """Return the slices with the worst value of a metric, the worst first."""
    sign = 1 if METRICS[metric].greater_is_better else -1
    known = [
        (sign * value, index, item)
        for index, item in enumerate(slices)
        if metric in item.metrics and (value := item.metrics[metric].value) is not None
    ]
    return [item for _, _, item in sorted(known, key=lambda entry: entry[:2])[:count]]


def parity_limits(use_case: UseCase) -> dict[str, float]:
    """Return {protected attribute: the strictest demographic parity difference a rule allows}."""
    limits: dict[str, float] = {}
    for rule in use_case.gates:
        if isinstance(rule, ParityRule):
            for name in rule.attributes or use_case.protected:
                limits[name] = min(rule.at_most, limits.get(name, rule.at_most))
    return limits


def singles(audits: Sequence[GroupAudit]) -> list[GroupAudit]:
    """Return the audits of single attributes, without intersections."""
    return [audit for audit in audits if not is_intersection(audit.attribute)]


def evaluation_to_dict(evaluation: Evaluation) -> dict[str, Any]:
    """Return an evaluation's figures as plain JSON values, without what is row-wise."""
    plain: dict[str, Any] = {
        item.name: _plain(getattr(evaluation, item.name))
        for item in fields(evaluation)
        if item.name != "decided"
    }
    plain["worst_slices"] = {
        name: {"column": item.column, "group": item.group, "value": item.metrics[name].value}
        for name in SLICE_METRICS
        for item in worst_slices(evaluation.slices, name, 1)
    }
    return plain


def number(value: float | None, digits: int = 4) -> str:
    """Return a figure as a person reads it: four decimals below 10, fewer beyond; or a dash."""
    if value is None:
        return DASH
    decimals = digits if abs(value) < 10 else min(digits, 2)
    text = f"{abs(value):,.{decimals if abs(value) < 1_000 else 0}f}"
    return f"{MINUS}{text}" if value < 0 and text.strip("0.") else text


def signed(value: float | None) -> str:
    """Return a difference with its sign; what rounds to zero has none."""
    text = number(value)
    return f"+{text}" if value is not None and value > 0 and text.strip("0.") else text


def share(value: float | None) -> str:
    """Return a share in percent: one decimal, below 1 % two; or a dash."""
    if value is None:
        return DASH
    return f"{value:.1%}" if abs(value) >= 0.01 or value == 0 else f"{value:.2%}"


def _count(value: int) -> str:
    return f"{value:,}"


def _title(metric: str) -> str:
    return TITLES.get(metric, metric.replace("_", " "))


def _better(metric: str) -> str:
    greater = METRICS[metric].greater_is_better
    return {True: "higher is better", False: "lower is better", None: ""}[greater]


def _base64(picture: bytes) -> str:
    return base64.b64encode(picture).decode("ascii")


def _joined(names: Sequence[str]) -> str:
    quoted = [f"“{name}”" for name in names]
    return " and ".join([*([", ".join(quoted[:-1])] if quoted[1:] else []), *quoted[-1:]])


def _gap(evaluation: Evaluation, metric: str) -> float | None:
    """Return how much better the metric is on the training part than on the test part."""
    train = evaluation.train_metrics.get(metric)
    test = evaluation.metrics[metric]
    if train is None or train.value is None or test.value is None:
        return None
    greater = METRICS[metric].greater_is_better
    return None if greater is None else (train.value - test.value) * (1 if greater else -1)


def _other_plots(facts: ReportFacts) -> list[str]:
    placed = {"reliability", "roc", "precision_recall", "scores", "confusion", "slices", "shap"}
    placed |= {"learning_curves", "importance", "mitigation"}
    placed |= {f"fairness_{audit.attribute}" for audit in facts.evaluation.fairness}
    return [name for name in facts.plots if name not in placed]


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
