"""The technical documentation: every point of the annex, what is filled and what is not."""

import re

from mlops_pipeline.core.documents.model_card import POINTS, model_card, statuses, technical_file
from mlops_pipeline.core.documents.pages import render_html
from mlops_pipeline_tests.core.documents.card_example import facts

EVERYTHING: dict[str, str] = {
    point.slot: f"documents/{point.slot}.md" for point in POINTS if point.slot
}


def test_points_are_those_of_the_annex() -> None:
    lettered = [f"{number} ({letter})" for number in "12" for letter in "abcdefgh"]
    assert [point.number for point in POINTS] == [*lettered, *"3333456789"]
    page = technical_file(facts(), {})
    assert re.findall(r"^## (\d)\. ", page, flags=re.M) == list("123456789")
    headings = re.findall(r"^### (.+)$", page, flags=re.M)
    assert headings == [f"{point.number} {point.title}" for point in POINTS[:20]]


def test_overview_says_what_is_filled_and_what_a_person_has_to_add() -> None:
    page = technical_file(facts(), {})
    for line in [
        "| 1 (a) | Purpose, provider, version | partly filled | name and address of the provider |",
        "| 1 (c) | Versions of software | filled |  |",
        "| 8 | EU declaration of conformity | not provided | a copy of the declaration |",
        "Not provided: a copy of the declaration (governance.documents.declaration_of_conformity).",
    ]:
        assert line in page, line
    assert statuses({}) == {"filled": 13, "partly filled": 9, "not provided": 4}


def test_what_people_supply_is_linked_and_fills_its_point() -> None:
    page = technical_file(facts(), EVERYTHING)
    assert "Not provided" not in page
    assert statuses(EVERYTHING) == {"filled": len(POINTS)}
    for path in EVERYTHING.values():
        assert f"](<{path}>)" in page, path


def test_facts_stand_at_their_points() -> None:
    page = technical_file(facts(), {})
    for text in [
        "Purpose: Ranking customers for a retention offer, once a month.",
        "Python 3.11.9, lightgbm 4.6.0, numpy 2.3.1.",
        "Tested once on 1,000 cases of 2024-12-01",
        "ROC AUC 0.812 (0.790 to 0.830) on the test part.",
        "Every version is checked against: ROC AUC at least 0.72; demographic parity difference",
        "- [audit events of this use case](<audit.jsonl>)",
        "performance on new labels monthly, next 2025-03-10",
    ]:
        assert text in page, text


def test_links_into_the_card_lead_to_its_sections() -> None:
    wanted = re.findall(r"model_card\.html#([\w-]+)", technical_file(facts(), {}))
    assert set(wanted) <= set(re.findall(r'id="([^"]+)"', render_html(model_card(facts()))))
    assert len(wanted) > 8
