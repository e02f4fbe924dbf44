"""Pages for people: the one Jinja environment, how figures read, and HTML made from Markdown.

An HTML page made from Markdown says the same as the Markdown. Every value that a template prints is
escaped, for HTML or for Markdown: markup in a configuration, in data or in a person's reason shows
as it was typed.

Belongs here: how pages are written and how figures read. What they say is in the templates.
"""

import base64
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from mlops_pipeline.core.metrics.metrics import Estimate
from mlops_pipeline.spec.metrics import METRICS

if TYPE_CHECKING:
    from jinja2 import Environment

UNKNOWN, DASH, MINUS = "not computable", "\N{EN DASH}", "\N{MINUS SIGN}"
SMALL = 0.01  # below it three decimals leave less than two digits of a figure
H2 = re.compile(r"<h2>(.*?)</h2>")


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
    body = body.replace("<table>", '<div class="wide"><table>').replace(
        "</table>", "</table></div>"
    )
    sections = [(anchor(title), Markup(title)) for title in H2.findall(body)]  # noqa: S704 # escaped by the renderer
    body = H2.sub(lambda match: f'<h2 id="{anchor(match[1])}">{match[1]}</h2>', body)
    head, opened, rest = body.partition("<h2")
    title, _, lead = head.partition("</h1>")
    return render_page(
        "page.html.jinja",
        title=Markup(title.removeprefix("<h1>")),  # noqa: S704 # as above
        lead=Markup(lead),  # noqa: S704 # as above
        sections=sections,
        body=Markup(opened + rest),  # noqa: S704 # as above
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
        better=_better,
        verdict={True: "passed", False: "failed", None: UNKNOWN}.get,
        sentence=lambda text: text if text.rstrip().endswith((".", "?", "!")) else f"{text}.",
        png=lambda picture: base64.b64encode(picture).decode("ascii"),
    )
    environment.tests["share"] = lambda metric: METRICS[metric].display == "share"
    return environment


@cache
def _markdown_environment() -> "Environment":
    return _environment().overlay(finalize=_finalize)


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
    """Return a figure with its interval, or why there is none."""
    if found.value is None:
        return f"{UNKNOWN}: {found.reason}"
    digits = _decimals(found.value)
    value, low, high = (
        None if end is None else share(end) if percent else number(end, digits)
        for end in (found.value, found.low, found.high)
    )
    return str(value) if low is None or high is None else f"{value} ({low} to {high})"


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
    return re.sub(r"^(#|>|=+$|-+$|[+-](?=\s|$))|^(\d+)([.)])(?=\s|$)", _literal, flat)


def _literal(match: re.Match[str]) -> str:
    return f"\\{match[1]}" if match[1] else f"{match[2]}\\{match[3]}"


def _finalize(value: Any) -> Any:
    from markupsafe import Markup

    if isinstance(value, Markup):  # what a macro of ours returns
        return value
    return Markup(escaped(str(value)))  # noqa: S704 # escaped for Markdown, which then makes HTML


def _decimals(value: float) -> int:
    return 3 if value == 0 or abs(value) >= SMALL else 4


def _better(metric: str) -> str:
    greater = METRICS[metric].greater_is_better
    return {True: "higher is better", False: "lower is better", None: ""}[greater]


def _money(value: float | None, currency: str) -> str:
    if value is None:
        return UNKNOWN
    shown = f"{value:,.4f}" if value >= 0.0001 or value == 0 else "under 0.0001"
    return f"{shown} {currency}"
