"""The evaluation report: everything that was measured, as one HTML page and as plain JSON.

Belongs here: what the page says and how numbers read. The figures come from evaluation.py, the
verdict from gates.py, the pictures from plots.py; the layout is report.html.jinja.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlops_pipeline.config.modelling import is_intersection
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.documents.pages import render_page
from mlops_pipeline.core.documents.records import SourceFacts, TrainingFacts
from mlops_pipeline.core.evaluation.evaluation import Evaluation, worst_slices
from mlops_pipeline.core.evaluation.gates import Gate, RuleResult, comparison_level
from mlops_pipeline.core.fairness.audit import GroupAudit
from mlops_pipeline.spec.metrics import METRICS, shown_in
from mlops_pipeline.spec.rules import ParityRule

DISPARITIES: Mapping[str, str] = {
    "demographic_parity_difference": "demographic parity difference",
    "demographic_parity_ratio": "demographic parity ratio",
    "equalized_odds_difference": "equalized odds difference",
    "equal_opportunity_difference": "equal opportunity difference",
}
TOP_SHAP = 15


@dataclass(frozen=True)
class ReportFacts:
    """What the page is made of.

    Parameters
    ----------
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
    training: TrainingFacts
    provenance: Mapping[str, str]
    sources: Mapping[str, SourceFacts]
    threshold: str
    evaluation: Evaluation
    gate: Gate
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
    evaluation = facts.evaluation
    return render_page(
        "report.html.jinja",
        facts=facts,
        use_case=facts.use_case,
        training=facts.training,
        evaluation=evaluation,
        headline=headline(facts.gate, facts.use_case),
        gaps={name: _gap(evaluation, name) for name in evaluation.metrics},
        comparison_level=comparison_level(facts.use_case.gates),
        worst={
            name: worst[0]
            for name in shown_in("slices")
            if (worst := worst_slices(evaluation.slices, name, 1))
        },
        slice_metrics=shown_in("slices"),
        stress_metrics=shown_in("stress"),
        candidate_metrics=shown_in("candidates"),
        variant_metrics=("expected_cost", *shown_in("variants")),
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
    words = "is a warning" if len(warnings) == 1 else "are warnings"
    beside = f" ({len(warnings)} more {words})" if warnings else ""
    if not gate.passed:
        blocking = [rule.name for rule in deciding if rule.blocks]
        return Headline("bad", f"Refused: {_joined(blocking)} failed{beside}.", gate.failed)
    if gate.needs_review:
        names = _joined([rule.name for rule in deciding])
        sentence = f"Needs a person's approval: {names} did not pass{beside}."
        return Headline("review", sentence, gate.failed)
    if use_case.rollout.approval == "always":
        sentence = "Needs a person's approval: no rule objects, but every version requires one."
        return Headline("review", sentence, gate.failed)
    if warnings:
        names = _joined([rule.name for rule in warnings])
        return Headline("good", f"Accepted, with a warning: {names} did not pass.", gate.failed)
    return Headline("good", f"Accepted: every rule passed ({len(gate.rules)}).", ())


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
