"""Pages for people: one Markdown text from a template, and the HTML page that is made from it.

The HTML is rendered from the Markdown, so the two say the same. Every value that a template prints
is escaped for Markdown, and HTML in Markdown is off: markup in a configuration, in data or in a
person's reason shows as it was typed.

Belongs here: how pages are written and how figures read. What they say is in *.md.jinja.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from mlops_pipeline.core.documents.report import TITLES, number, share

if TYPE_CHECKING:
    from jinja2 import Environment

UNKNOWN = "not computable"
SMALL = 0.01  # below it three decimals leave less than two digits of a figure
H2 = re.compile(r"<h2>(.*?)</h2>")


def render_markdown(template: str, values: Mapping[str, Any]) -> str:
    """Return a page as Markdown (CommonMark with tables)."""
    text = _environment(finalize=_finalize).get_template(template).render(values)
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
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            title=Markup(title.removeprefix("<h1>")),  # noqa: S704 # as above
            lead=Markup(lead),  # noqa: S704 # as above
            sections=sections,
            body=Markup(opened + rest),  # noqa: S704 # as above
        )
    )


@cache
def _environment(finalize: Callable[[Any], Any] | None = None) -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("mlops_pipeline.core", "documents"),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        n=lambda value, digits=None: UNKNOWN if value is None else figure(value, digits),
        share=lambda value: UNKNOWN if value is None else share(value),
        count=lambda value: f"{value:,}",
        change=lambda value: ("+" if value >= 0.0005 else "") + number(value, 3),
        day=lambda moment: "never" if moment is None else f"{moment:%Y-%m-%d}",
        estimate=estimate,
        money=_money,
        plain=plain,
        sentence=lambda text: text if text.rstrip().endswith((".", "?", "!")) else f"{text}.",
        title=lambda name: TITLES.get(name, name.replace("_", " ")),
    )
    return environment


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


def decimals_of(value: float) -> int:
    """Return how many decimals show a figure: three, and four of one that they would hide."""
    return 3 if value == 0 or abs(value) >= SMALL else 4


def figure(value: float, digits: int | None = None) -> str:
    """Return a figure as a person reads it."""
    return number(value, decimals_of(value) if digits is None else digits)


def estimate(found: Mapping[str, Any], *, percent: bool = False) -> str:
    """Return a figure with its interval, or why there is none."""
    if found["value"] is None:
        return f"{UNKNOWN}: {found['reason']}"
    digits = decimals_of(found["value"])
    value, low, high = (
        None if (end := found.get(key)) is None else share(end) if percent else number(end, digits)
        for key in ("value", "low", "high")
    )
    return str(value) if low is None or high is None else f"{value} ({low} to {high})"


def plain(text: str) -> str:
    """Return a rule's text with the names of metrics as people write them."""
    names = {name: title for name, title in TITLES.items() if name != title}
    return re.sub(rf"\b({'|'.join(names)})\b", lambda match: names[match[1]], text)


def _money(value: float | None, currency: str) -> str:
    if value is None:
        return UNKNOWN
    shown = f"{value:,.4f}" if value >= 0.0001 or value == 0 else "under 0.0001"
    return f"{shown} {currency}"


def _finalize(value: Any) -> Any:
    from markupsafe import Markup

    if isinstance(value, Markup):  # what a macro of ours returns
        return value
    return Markup(escaped(str(value)))  # noqa: S704 # escaped for Markdown, which then makes HTML


def _literal(match: re.Match[str]) -> str:
    return f"\\{match[1]}" if match[1] else f"{match[2]}\\{match[3]}"
