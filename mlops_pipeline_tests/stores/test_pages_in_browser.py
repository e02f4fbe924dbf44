"""Pages made of hostile names and values, as a real browser opens them."""

import dataclasses
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_pipeline.core.documents.model_card import Standing, model_card, technical_file
from mlops_pipeline.core.documents.pages import render_html, render_report
from mlops_pipeline.core.documents.records import SourceFacts
from mlops_pipeline.errors import DataError
from mlops_pipeline.lifecycle.ingest.validation import write_data_docs
from mlops_pipeline.stores.pages import write_drift_report, write_page
from mlops_pipeline_tests.core.documents import card_example
from mlops_pipeline_tests.core.documents.test_model_card_page import approval
from mlops_pipeline_tests.core.evaluation import example_evaluation
from mlops_pipeline_tests.lifecycle.ingest.test_data_docs import NOW, use_case

RAN = "document.documentElement.dataset.ran = 1"
HOSTILE = f"</script><script>{RAN}</script><img src=x onerror='{RAN}'>"
ALSO = f'"><svg onload="{RAN}"><a href="javascript:{RAN}">$column {{{{ 1 }}}}</a>'


class _Text(HTMLParser):
    """What a page shows: its text outside of scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[str] = []
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside not in ("script", "style"):
            self.shown.append(data)


@pytest.fixture(scope="module")
def browser() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        if os.environ.get("MLOPS_REQUIRE_BROWSER") == "1":
            pytest.fail("MLOPS_REQUIRE_BROWSER=1, but there is no chromium")
        pytest.skip("there is no chromium (Debian package chromium)")
    return found


def opened(browser: str, page: Path, profile: Path) -> str:
    """Return the text that a page shows; no script ran but the page's own."""
    dom = dumped(browser, page, profile)
    assert "data-ran" not in dom.partition("<head>")[0]
    parser = _Text()
    parser.feed(dom)
    return "".join(parser.shown).replace("\u2060", "")


def dumped(browser: str, page: Path, profile: Path) -> str:
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={profile}", "--virtual-time-budget=3000", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    return done.stdout


def test_script_without_policy_is_seen_to_run(browser: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(f"<html><head></head><body>{HOSTILE}</body></html>")
    assert "data-ran" in dumped(browser, page, tmp_path / "p").partition("<head>")[0]
    write_page(page, page.read_text())
    assert "data-ran" not in dumped(browser, page, tmp_path / "p").partition("<head>")[0]


def test_report_with_hostile_texts_shows_them_and_runs_nothing(
    browser: str, tmp_path: Path
) -> None:
    example = example_evaluation.facts(description=HOSTILE, intended_use=ALSO)
    measured = dataclasses.replace(
        example.evaluation,
        slices=(card_example.a_slice(ALSO, HOSTILE, 0.7),),
        fairness=(card_example.audit(HOSTILE, 0.1, card_example.group(ALSO, 0.1)),),
    )
    facts = dataclasses.replace(
        *(example,),
        evaluation=measured,
        gate=card_example.gate((HOSTILE, "failed", "warn", ALSO)),
        sources={HOSTILE: SourceFacts(1, 1)},
        provenance={HOSTILE: ALSO},
        links={HOSTILE: "evidently.html"},
        notes=(HOSTILE, ALSO),
    )
    write_page(tmp_path / "report.html", render_report(facts))
    text = opened(browser, tmp_path / "report.html", tmp_path / "p")
    assert text.count(HOSTILE) >= 5
    assert text.count(ALSO) >= 4


@pytest.mark.parametrize("name", ["card", "technical file"])
def test_card_with_hostile_texts_shows_them_and_runs_nothing(
    browser: str, tmp_path: Path, name: str
) -> None:
    facts = card_example.facts(
        case={"description": HOSTILE, "intended_use": ALSO, "out_of_scope": [HOSTILE]},
        gate=card_example.gate((HOSTILE, "failed", "warn", ALSO)),
        standing=Standing("champion", NOW, HOSTILE, approvals=[approval(HOSTILE, ALSO)]),
        evaluation=card_example.evaluation(
            fairness=(card_example.audit(HOSTILE, 0.1, card_example.group(ALSO, 0.1)),)
        ),
    )
    text = model_card(facts) if name == "card" else technical_file(facts, {})
    write_page(tmp_path / "page.html", render_html(text))
    shown = opened(browser, tmp_path / "page.html", tmp_path / "p")
    assert HOSTILE in shown
    assert ALSO in shown


def test_data_docs_with_hostile_names_and_values_show_them_and_run_nothing(
    browser: str, tmp_path: Path
) -> None:
    rules: list[dict[str, Any]] = [
        {"rule": "not_null", "columns": [HOSTILE, ALSO]},
        {"rule": "in_set", "column": HOSTILE, "values": [ALSO]},
        {"rule": "completeness", "column": ALSO, "at_least": 0.5},
    ]
    columns = {HOSTILE: "string", ALSO: "string"}
    frame = pd.DataFrame(
        {
            "k": [1, 2],
            "x": [0.1, 0.2],
            HOSTILE: [ALSO, HOSTILE],
            ALSO: ["\ud800\x00\x1b[2J", "\ue0000"],
        }
    )
    case = use_case(rules, [HOSTILE, ALSO], **columns)
    docs = write_data_docs(tmp_path / "docs", {"facts": frame}, case, now=NOW)
    assert {item.rule for item in docs.results} >= {f"not_null({HOSTILE})"}
    for page in (tmp_path / "docs").rglob("*.html"):
        assert HOSTILE in opened(browser, page, tmp_path / "p"), page


def test_drift_report_with_hostile_names_and_values_shows_them_and_runs_its_own_scripts_only(
    browser: str, tmp_path: Path
) -> None:
    values = np.array([HOSTILE, ALSO, "plain", "\u2028\ud800"], dtype=object)
    frames = [
        pd.DataFrame({HOSTILE: rng.choice(values, 60), ALSO: rng.random(60), "plan": "basic"})
        for rng in map(np.random.default_rng, (1, 2))
    ]
    summary = write_drift_report(tmp_path / "evidently.html", *frames, seed=1)
    assert set(summary.scores) == {HOSTILE, ALSO, "plan"}
    shown = opened(browser, tmp_path / "evidently.html", tmp_path / "p")
    assert HOSTILE in shown
    assert ALSO in shown
    page = (tmp_path / "evidently.html").read_text(encoding="utf-8")
    assert len(re.findall(r"'sha256-[^']+'", page)) == page.count("</script>")


def test_page_without_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no head"):
        write_page(tmp_path / "page.html", "<p>text</p>")
    assert not list(tmp_path.iterdir())
