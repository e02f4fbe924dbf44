"""The model card: states, reviews and their dates, and its page, on which nothing is markup."""

import dataclasses
import re
from datetime import UTC, date, datetime
from html.parser import HTMLParser

import pytest

from mlops_pipeline.core.documents.model_card import Standing, later, model_card, next_date
from mlops_pipeline.core.documents.pages import escaped, render_html
from mlops_pipeline.core.rollout.records import Approval, RolloutEvent, RolloutState
from mlops_pipeline_tests.core.documents.card_example import (
    a_slice,
    audit,
    evaluation,
    explanation,
    facts,
    gate,
    group,
    metadata,
)
from mlops_pipeline_tests.core.documents.card_sections import SECTIONS, section

HOSTILE = "<script>alert(1)</script> **bold** [x](http://a.example) | `code` &lt; _em_ <b>"


class Texts(HTMLParser):
    """The texts of a page's body, without its navigation."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()
        self.hidden: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002 # fixed by the base
        self.tags.add(tag)
        if tag in {"head", "nav"}:
            self.hidden.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.hidden and tag == self.hidden[-1]:
            self.hidden.pop()

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.found.append(data)

    @property
    def words(self) -> list[str]:
        return " ".join(self.found).split()


def approval(by: str, reason: str) -> Approval:
    at = datetime(2025, 1, 11, tzinfo=UTC)
    return Approval(1, 1, "churn", 3, "production", "approved", by, reason, at, None)


def event(state: RolloutState, actor: str, reason: str) -> RolloutEvent:
    at = datetime(2025, 1, 11, tzinfo=UTC)
    return RolloutEvent(1, 1, "churn", 3, at, None, state, None, actor, reason, None)


def test_registered_card_says_what_the_gate_asked() -> None:
    text = section(model_card(facts()), "Approvals and state")
    assert "registered; it passed the gate and does not need a person's approval." in text
    assert "Nobody has decided on this version." in text


def test_present_card_tells_state_approvals_and_history() -> None:
    at = datetime(2025, 1, 11, tzinfo=UTC)
    said = approval("Ann", "good")
    standing = Standing(
        state="champion",
        since=at,
        waiting_for=None,
        approvals=[said, dataclasses.replace(said, expires_at=datetime(2025, 7, 1, tzinfo=UTC))],
        events=[event("awaiting_approval", "run d1", "asked")],
    )
    text = section(model_card(facts(standing=standing)), "Approvals and state")
    assert "Current state: in use (the champion), since 2025-01-11." in text
    assert "| 2025-01-11 | production | approved | Ann | good | never |" in text
    assert "| 2025-01-11 | production | approved | Ann | good | 2025-07-01 |" in text
    assert "| 2025-01-11 | waiting for a person's approval; not in use | run d1 | asked |" in text


def test_version_that_waits_says_for_whom() -> None:
    standing = Standing("awaiting_approval", datetime(2025, 1, 11, tzinfo=UTC), "Ben")
    assert "not in use, since 2025-01-11 (waits for Ben)." in model_card(facts(standing=standing))


def test_review_dates_follow_registration_as_of_and_the_last_review() -> None:
    text = section(model_card(facts()), "Reviews")  # registered 2025-01-10, shown 2025-02-10
    for line in [
        "| performance on new labels | monthly | 2025-03-10 |",
        "| fairness by group | quarterly | 2025-04-10 |",
        "| this card | quarterly | 2025-04-10 |",
        "| retraining | yearly | 2026-01-01 |",
    ]:
        assert line in text, line
    review = {"at": datetime(2024, 11, 1, tzinfo=UTC), "reason": "Ann: read"}
    standing = Standing("champion", datetime(2024, 6, 1, tzinfo=UTC), None, reviews=[review])
    rules = {"governance": {"review": {"card_months": 2, "retraining_months": 18}}}
    text = section(model_card(facts(case=rules, standing=standing)), "Reviews")
    assert "| this card | every 2 months | 2025-01-01 (overdue) |" in text
    assert "| retraining | every 18 months | 2026-07-01 |" in text
    assert "- 2024-11-01: Ann: read" in text


def test_later_keeps_within_the_month() -> None:
    assert later(date(2024, 1, 31), 1) == date(2024, 2, 29)
    assert later(date(2024, 11, 30), 3) == date(2025, 2, 28)
    assert later(date(2024, 12, 15), 12) == date(2025, 12, 15)


def test_next_date_is_after_today_on_the_same_grid() -> None:
    start = date(2024, 1, 31)
    assert next_date(start, 1, date(2024, 2, 28)) == date(2024, 2, 29)
    assert next_date(start, 1, date(2024, 2, 29)) == date(2024, 3, 31)


def test_card_shows_no_python_values() -> None:
    for card in (
        model_card(facts()),
        model_card(facts(evaluation=evaluation(fairness=(), explanations=explanation(shap={})))),
    ):
        assert not re.search(r"\b(None(?! recorded)|nan|True|False|Undefined)\b", card)
        assert "\n\n\n" not in card


def test_html_says_what_the_markdown_says() -> None:
    card = model_card(facts())
    markup = r"^#+ |^> |^- |^\|[ :|-]+\|$|\\|\|"
    spoken = re.sub(markup, " ", card, flags=re.M).split()
    assert Texts(render_html(card)).words == spoken


def test_html_fetches_nothing_and_links_to_its_own_sections() -> None:
    html = render_html(model_card(facts()))
    assert not re.search(r"https?:|src=|url\(|@import|<link|<script", html)
    targets = re.findall(r'href="#([^"]+)"', html)
    assert targets == re.findall(r'<h2 id="([^"]+)"', html)
    assert len(targets) == len(SECTIONS)


def test_markup_in_configuration_data_and_reasons_shows_as_typed() -> None:
    at = datetime(2025, 1, 11, tzinfo=UTC)
    standing = Standing(
        "champion",
        at,
        None,
        approvals=[approval(HOSTILE, HOSTILE)],
        events=[event("champion", HOSTILE, HOSTILE)],
        reviews=[{"at": at, "reason": HOSTILE}],
    )
    measured = evaluation(
        slices=[a_slice("plan", HOSTILE, 0.7)], fairness=[audit("region", 0.1, group(HOSTILE, 0.1))]
    )
    case = {"description": HOSTILE, "intended_use": HOSTILE, "out_of_scope": [HOSTILE]}
    card = model_card(
        facts(
            case={**case, "licence": HOSTILE},
            standing=standing,
            evaluation=measured,
            gate=gate((HOSTILE, "failed", "warn", HOSTILE)),
            metadata=metadata(changelog=HOSTILE),
        )
    )
    page = Texts(render_html(card))
    assert page.tags.isdisjoint({"script", "strong", "em", "code", "b"})
    assert page.tags == Texts(render_html(model_card(facts()))).tags
    assert "http://a.example" not in re.findall(r'href="([^"]+)"', render_html(card))
    assert "".join(page.found).count(HOSTILE) == 18  # every place that shows it


@pytest.mark.parametrize(
    "text",
    [
        "# x",
        "---",
        "-",
        "> x",
        "- x",
        "1. x",
        "+ x",
        "=== x",
        "a_b_c _d_",
        "x*y*z",
        "a | b",
        "~~x~~",
        "\\*",
        "`",
    ],
)
def test_escaped_text_shows_as_typed(text: str) -> None:
    page = Texts(render_html(f"# t\n\n{escaped(text)}\n"))
    assert page.words == ["t", *text.split()]
    assert page.tags.isdisjoint({"ul", "ol", "em", "code", "s", "h2"})
