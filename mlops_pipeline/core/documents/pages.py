"""Pages for people: the one Jinja environment, how figures read, the report, what changed.

An HTML page made from Markdown says the same as the Markdown. Every value that a template prints is
escaped, for HTML or for Markdown: markup in a configuration, in data or in a person's reason shows
as it was typed.

Belongs here: how pages are written, the sentences of the report and of a version's changelog. The
rest of what pages say is in the templates, the card's words in model_card.py.
"""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from mlops_pipeline.config.modelling import is_intersection
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.documents.records import SourceFacts, TrainingFacts
from mlops_pipeline.core.evaluation.evaluation import Evaluation, comparison_level, worst_slices
from mlops_pipeline.core.evaluation.outcomes import Gate, RuleResult
from mlops_pipeline.core.fairness.audit import GroupAudit
from mlops_pipeline.core.fairness.disparities import DISPARITIES
from mlops_pipeline.core.metrics.metrics import Estimate
from mlops_pipeline.spec.metrics import METRICS, shown_in
from mlops_pipeline.spec.rules import ParityRule

if TYPE_CHECKING:
    from jinja2 import Environment

NEEDS = "Needs a person's approval"
UNKNOWN, DASH, MINUS = "not computable", "\N{EN DASH}", "\N{MINUS SIGN}"
BETTER = {True: "higher is better", False: "lower is better", None: ""}
SMALL = 0.01  # below it three decimals leave less than two digits of a figure
H2 = re.compile(r"<h2>(.*?)</h2>")
SHOWN_KEYS = 20  # of the configuration; beyond, only their number


def render_page(template: str, **values: Any) -> str:
    """Return an HTML page (a template of this package), every value in it escaped."""
    return _environment().get_template(template).render(values)


def render_markdown(template: str, **values: Any) -> str:
    """Return a page as Markdown (CommonMark with tables)."""
    text = _markdown_environment().get_template(template).render(values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def render_html(markdown: str) -> str:
    """Return the page as one HTML file: styles inside, nothing fetched."""
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    body = body.replace("<table>", '<div class="wide"><table>')
    body = body.replace("</table>", "</table></div>")
    titles = H2.findall(body)
    body = H2.sub(lambda match: f'<h2 id="{anchor(match[1])}">{match[1]}</h2>', body)
    head, opened, rest = body.partition("<h2")
    title, _, lead = head.removeprefix("<h1>").partition("</h1>")
    return render_page(
        "page.html.jinja",
        title=Markup(title),  # noqa: S704 # the renderer escaped everything
        lead=Markup(lead),  # noqa: S704 # as above
        sections=[(anchor(text), Markup(text)) for text in titles],  # noqa: S704 # as above
        content=Markup(opened + rest),  # noqa: S704 # as above
    )


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("mlops_pipeline.core", "documents"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number,
        signed=signed,
        share=share,
        n=lambda value, digits=None: UNKNOWN if value is None else figure(value, digits),
        percent=lambda value: UNKNOWN if value is None else share(value),
        count=lambda value: f"{value:,}",
        change=lambda value: ("+" if value >= 0.0005 else "") + number(value, 3),
        day=lambda time: "never" if time is None else f"{time:%Y-%m-%d}",
        estimate=estimate,
        money=_money,
        title=metric_title,
        plain=plain_words,
        better=lambda metric: BETTER[METRICS[metric].greater_is_better],
        passed={True: "passed", False: "failed", None: UNKNOWN}.get,
        sentence=lambda text: text if text.rstrip().endswith((".", "?", "!")) else f"{text}.",
        png=lambda picture: base64.b64encode(picture).decode("ascii"),
    )
    environment.globals.update(
        number=number, signed=signed, share=share, shown_in=shown_in, disparities=DISPARITIES
    )
    environment.tests["share"] = lambda metric: METRICS[metric].display == "share"
    return environment


@cache
def _markdown_environment() -> "Environment":
    from markupsafe import Markup

    def finalize(value: Any) -> Markup:
        if isinstance(value, Markup):  # what a macro of ours returns
            return value
        return Markup(escaped(str(value)))  # noqa: S704 # escaped for Markdown, which then makes HTML

    return _environment().overlay(finalize=finalize)


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


def figure(value: float, digits: int | None = None) -> str:
    """Return a figure with three decimals, or four where three would hide it."""
    return number(value, _decimals(value) if digits is None else digits)


def estimate(found: Estimate, *, percent: bool = False) -> str:
    """Return a figure with its interval and what chance alone gives, or why there is none."""
    if found.value is None:
        return f"{UNKNOWN}: {found.reason}"
    digits = _decimals(found.value)
    value, low, high, chance = (
        share(end) if percent else number(end, digits)
        for end in (found.value, found.low, found.high, found.by_chance)
    )
    if found.low is None or found.high is None:
        return value
    by_chance = "" if found.by_chance is None else f"{chance} by chance"
    return f"{value} ({'; '.join(filter(None, (f'{low} to {high}', by_chance, found.reason)))})"


def metric_title(metric: str) -> str:
    """Return the name of a metric as people write it."""
    return METRICS[metric].title if metric in METRICS else metric.replace("_", " ")


def plain_words(text: str) -> str:
    """Return a rule's text with the names of metrics as people write them."""
    return re.sub(rf"\b({'|'.join(METRICS)})\b", lambda match: METRICS[match[1]].title, text)


def anchor(title: str) -> str:
    """Return the address of a section, as GitHub makes it from its title."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def escaped(text: str) -> str:
    """Return a text in which nothing is Markdown or HTML, on one line."""
    flat = " ".join(text.split())
    flat = re.sub(r"&(?=#?\w+;)", "&amp;", flat).replace("<", "&lt;")
    flat = re.sub(r"([\\`*\[|~])", r"\\\1", flat)
    flat = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", flat)
    flat = re.sub(r"^(#|>|=+$|-+$|[+-](?=\s|$))", r"\\\1", flat)
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", flat)


def _decimals(value: float) -> int:
    return 3 if value == 0 or abs(value) >= SMALL else 4


def _money(value: float | None, currency: str) -> str:
    if value is None:
        return UNKNOWN
    shown = f"{value:,.4f}" if value >= 0.0001 or value == 0 else "under 0.0001"
    return f"{shown} {currency}"


@dataclass(frozen=True)
class ReportFacts:
    """What the report is made of; `plots` are PNG bytes by name, `links` addresses by text."""

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
    """The gate's result: its `tone` (good, review, bad), and one sentence."""

    tone: str
    sentence: str


def render_report(facts: ReportFacts) -> str:
    """Return the page as self-contained HTML: styles and plots inside, nothing is fetched."""
    evaluation, use_case = facts.evaluation, facts.use_case
    worst = {name: worst_slices(evaluation.slices, name, 1) for name in shown_in("slices")}
    return render_page(
        "report.html.jinja",
        facts=facts,
        use_case=use_case,
        training=facts.training,
        evaluation=evaluation,
        plots=dict(facts.plots),  # the page takes each out of it where it shows it
        headline=headline(facts.gate, use_case),
        gaps={name: _gap(evaluation, name) for name in evaluation.metrics},
        comparison_level=comparison_level(use_case.gates),
        worst={name: found[0] for name, found in worst.items() if found},
        singles=singles(evaluation.fairness),
        pairs=[audit for audit in evaluation.fairness if is_intersection(audit.attribute)],
        parity_limits=parity_limits(use_case),
    )


def headline(gate: Gate, use_case: UseCase) -> Headline:
    """Return the gate's result in one sentence, naming the rules that failed."""
    deciding = [rule for rule in gate.failed if rule.effect != "warn"]
    notes = [rule for rule in gate.failed if rule.effect == "warn"]
    warnings = [rule for rule in notes if rule.outcome != "uncertain"]
    words = "is a warning" if len(warnings) == 1 else "are warnings"
    beside = f" ({len(warnings)} more {words})" if warnings else ""
    tone, sentence = "good", f"Accepted: every rule passed ({len(gate.rules)})."
    if not gate.passed:
        blocking = [rule for rule in deciding if rule.blocks]
        tone, sentence = "bad", f"Refused: {_names(blocking)} failed{beside}."
    elif gate.needs_review:
        tone, sentence = "review", f"{NEEDS}: {_names(deciding)} did not pass{beside}."
    elif use_case.rollout.approval == "always":
        tone, sentence = "review", f"{NEEDS}: no rule objects, but every version requires one."
    elif warnings:
        sentence = f"Accepted, with a warning: {_names(warnings)} did not pass."
    elif notes:
        sentence = f"Accepted, with a note: too few rows to tell {_names(notes)}."
    return Headline(tone, sentence)


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


def _names(rules: Sequence[RuleResult]) -> str:
    quoted = [f"“{rule.name}”" for rule in rules]
    return " and ".join([*([", ".join(quoted[:-1])] if quoted[1:] else []), *quoted[-1:]])


def _gap(evaluation: Evaluation, metric: str) -> float | None:
    """Return how much better the metric is on the training part than on the test part."""
    train, test = evaluation.train_metrics.get(metric), evaluation.metrics[metric]
    greater = METRICS[metric].greater_is_better
    if train is None or train.value is None or test.value is None or greater is None:
        return None
    return (train.value - test.value) * (1 if greater else -1)


@dataclass(frozen=True)
class Recorded:
    """The documents of a version that its successor is compared with."""

    version: int
    config: Mapping[str, Any]
    inputs: frozenset[str]
    training: TrainingFacts
    evaluation: Evaluation


def changes(new: Recorded, old: Recorded | None) -> list[str]:
    """Return the differences of a version from the champion that it was compared with."""
    if old is None:
        return ["This is the first version."]
    kind = f"Same kind of model: {new.training.kind}."
    if new.training.kind != old.training.kind:
        kind = f"Different kind of model: {new.training.kind} instead of {old.training.kind}."
    ours, theirs = (
        (side.evaluation.mitigation and side.evaluation.mitigation.chosen) or "no mitigation"
        for side in (new, old)
    )
    fairness = f"{ours}, as before."
    if ours != theirs:
        fairness = f"{ours} instead of {theirs}: the two use different weights or thresholds."
    return [
        f"Compared with version {old.version}.",
        kind,
        f"Fairness: {fairness}",
        f"Data as of {new.training.as_of:%Y-%m-%d} instead of {old.training.as_of:%Y-%m-%d}.",
        *_changed_figures(new, old),
        *_changed_inputs(new.inputs, old.inputs),
        _changed_keys(new.config, old.config),
    ]


def _changed_figures(new: Recorded, old: Recorded) -> Iterator[str]:
    for name in shown_in("changes"):
        ours, theirs = (
            UNKNOWN if value is None else number(value, 3)
            for value in (side.evaluation.metrics[name].value for side in (new, old))
        )
        both = f"{ours}, against {theirs} of version {old.version}"
        yield f"{metric_title(name)}: {both}; each on its own test part."
    found = new.evaluation.champion
    if found is None or found.version != old.version:
        return
    if found.reason is not None:
        yield f"The two cannot be compared on the same cases: {found.reason}."
        return
    differences = [
        f"{metric_title(name)} {signed(value)}"
        for name in shown_in("changes")
        if name in found.differences and (value := found.differences[name].value) is not None
    ]
    yield f"On {found.rows:,} cases that neither had seen, it differs by: {', '.join(differences)}."


def _changed_inputs(new: frozenset[str], old: frozenset[str]) -> Iterator[str]:
    if new == old:
        yield "Same inputs."
    for word, names in (("Added", new - old), ("Removed", old - new)):
        if names:
            yield f"{word} inputs: {', '.join(sorted(names))}."


def _changed_keys(new: Mapping[str, Any], old: Mapping[str, Any]) -> str:
    ours, theirs = dict(_flat(new)), dict(_flat(old))
    changed = (k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
    names = sorted({_shown(key) for key in changed})
    if not names:
        return "Same configuration."
    more = f" and {len(names) - SHOWN_KEYS} more" if len(names) > SHOWN_KEYS else ""
    return f"Changed configuration keys: {', '.join(names[:SHOWN_KEYS])}{more}."


def _shown(key: str) -> str:
    """Return a key without the names of single columns or protected attributes."""
    parts = key.split(".")
    return ".".join(parts[: 1 if parts[0] == "protected" else 3])


def _flat(document: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(document, Mapping) and document:
        for key, value in document.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, document
