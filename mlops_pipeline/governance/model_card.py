"""The model card of a version, in Markdown, from the facts of its run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.training.gates import Gate
from mlops_pipeline.training.metrics import Estimate


@dataclass(frozen=True)
class CardFacts:
    """What a model card tells beyond the configuration."""

    version: int
    kind: str
    as_of: str
    parts: Mapping[str, Mapping[str, Any]]
    data: Mapping[str, Mapping[str, Any]]
    metrics: Mapping[str, Estimate]
    gate: Gate
    decision: str
    limitations: Sequence[str]
    refit_rows: int | None
    git_commit: str
    fingerprint: str


def render_card(use_case: UseCase, facts: CardFacts) -> str:
    """Return the model card as Markdown."""
    sections = [
        f"# {use_case.name}, version {facts.version}",
        use_case.description,
        f"Owner: {use_case.owner}. Model: {facts.kind}. Data up to {facts.as_of[:10]}.",
        "## Intended use",
        use_case.intended_use,
        *_bullets("Not meant for", use_case.out_of_scope),
        "## Data",
        _table(
            ["source", "version", "rows", "quarantined"],
            [
                [name, item["version"], f"{item['rows']:,}", f"{item['quarantined']:,}"]
                for name, item in facts.data.items()
            ],
        ),
        _table(
            ["part", "periods", "rows", "positive"],
            [
                [name, _span(item["periods"]), f"{item['rows']:,}", f"{item['positive_rate']:.1%}"]
                for name, item in facts.parts.items()
            ],
        ),
        "## Performance on the test part",
        "Figures of the evaluated model, with 95 % intervals"
        + (
            f"; the registered model is the same recipe refitted on {facts.refit_rows:,} "
            "labelled rows."
            if facts.refit_rows
            else "."
        ),
        _table(
            ["metric", "value", "95 % interval"],
            [[name, *_figure(item)] for name, item in facts.metrics.items()],
        ),
        facts.decision,
        "## Gate",
        _table(
            ["rule", "effect", "verdict", "reason"],
            [
                [rule.name, rule.effect, _verdict(rule.passed), rule.reason]
                for rule in facts.gate.rules
            ],
        ),
        *_bullets("Limitations found", facts.limitations),
        "## Origin",
        f"Commit `{facts.git_commit}`, run fingerprint `{facts.fingerprint}`.",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _bullets(title: str, items: Sequence[str]) -> list[str]:
    return [f"## {title}", "\n".join(f"- {item}" for item in items)] if items else []


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _figure(estimate: Estimate) -> tuple[str, str]:
    if estimate.value is None:
        return f"not computable: {estimate.reason}", ""
    interval = ""
    if estimate.low is not None and estimate.high is not None:
        interval = f"{estimate.low:.4f} to {estimate.high:.4f}"
    return f"{estimate.value:.4f}", interval


def _span(periods: Sequence[str]) -> str:
    return periods[0] if len(periods) == 1 else f"{periods[0]} to {periods[-1]}"


def _verdict(passed: bool | None) -> str:
    return {True: "passed", False: "failed", None: "not computable"}[passed]
