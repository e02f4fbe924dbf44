import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.lifecycle.context import Context, open_context
from mlops_pipeline.lifecycle.ingest.ingestion import ingest
from mlops_pipeline.lifecycle.ingest.validation import (
    DataDocs,
    SourceValidation,
    sample_source,
    validate_source,
    write_data_docs,
)
from mlops_pipeline.stores.pages import judged_in_sql_only, judges_hidden
from mlops_pipeline.stores.settings import Settings

NOW = datetime(2026, 1, 1, tzinfo=UTC)
START = datetime(2025, 1, 1)  # noqa: DTZ001 # files hold naive UTC
TYPES = {"k": pa.int64(), "t": pa.timestamp("us"), "x": pa.float64()}
TYPES |= {"n": pa.int64(), "s": pa.string(), "b": pa.bool_()}
RULES: list[dict[str, Any]] = [
    {"rule": "not_null", "columns": ["x", "s"]},
    {"rule": "range", "column": "x", "min": 0, "max": 1.5},
    {"rule": "range", "column": "n", "max": 3},
    {"rule": "in_set", "column": "s", "values": ["a", "b"]},
    {"rule": "in_set", "column": "n", "values": [1, 2, 3]},
    {"rule": "in_set", "column": "b", "values": [True]},
    {"rule": "completeness", "column": "n", "at_least": 0.8},
    {"rule": "check", "name": "n_below_x", "expression": "n < x"},
    {"rule": "min_rows", "at_least": 1},
]


def use_case(rules: list[dict[str, Any]], key: list[str], **columns: Any) -> UseCase:
    types = {"k": "int64", "t": "timestamp", "x": "float64", "n": "int64"}
    source = {
        "uri": "facts.parquet",
        "columns": {**types, "s": "string", "b": "boolean", **columns},
        "key": key,
        "event_time": "t",
        "rules": rules,
        "max_quarantined": 1.0,
    }
    return UseCase.model_validate(
        {
            "name": "tiny",
            "description": "A use case for tests.",
            "owner": "tests",
            "intended_use": "Nothing but tests.",
            "entity": {"name": "thing", "key": "k"},
            "grid": {"every": "month", "start": "2025-02-01"},
            "population": {"source": "facts"},
            "sources": {"facts": source},
            "label": {"kind": "event_present", "source": "facts", "horizon_days": 30},
            "views": {
                "v": {"source": "facts", "columns": {"c": {"aggregate": "count", "dtype": "int64"}}}
            },
            "training": {"candidates": {"dummy": {"kind": "dummy"}}},
            "gates": [{"rule": "metric", "metric": "roc_auc", "at_least": 0.5}],
        }
    )


def settings_in(folder: Path) -> Settings:
    given = Settings.from_environment({"MLOPS_DATA_DIR": str(folder)})
    return replace(given, root=folder, threads=1, memory_limit="1GB", fixed_now=NOW)


def random_rows(seed: int, rows: int) -> dict[str, list[Any]]:
    """Rows with missing values, broken ranges and sets, and repeated keys at one time."""
    rng = np.random.default_rng(seed)
    keys = rng.integers(0, 4 * rows if seed % 2 else rows, rows).tolist()
    columns: dict[str, Any] = {
        "k": keys,
        "t": [START + timedelta(days=key % 3) for key in keys],
        "x": rng.choice(
            _any([None, -0.5, 0.0, 0.7, 1.5, 2.0]), rows, p=[0.1, 0.1, 0.2, 0.4, 0.1, 0.1]
        ),
        "n": rng.choice(_any([None, 1, 2, 3, 4]), rows, p=[0.1, 0.3, 0.2, 0.3, 0.1]),
        "s": rng.choice(_any([None, "a", "b", "c"]), rows, p=[0.05, 0.5, 0.4, 0.05]),
        "b": rng.choice(_any([None, True, False]), rows),
    }
    result = {name: list(values) for name, values in columns.items()}
    if seed == 1:  # nothing is wrong
        fine: dict[str, list[Any]] = {"k": list(range(rows)), "x": [1.0] * rows, "n": [2] * rows}
        result |= {**fine, "s": ["a"] * rows, "b": [True] * rows}
    if seed == 2:  # a column without values
        result["n"] = [None] * rows
    return result


@contextmanager
def ingested(folder: Path, case: UseCase, rows: dict[str, list[Any]]) -> Iterator[Context]:
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table({name: pa.array(values, TYPES[name]) for name, values in rows.items()})
    pq.write_table(table, folder / "facts.parquet")
    with open_context(case, settings_in(folder)) as work:
        ingest(work, "facts", now=NOW, finished_through=None)
        yield work


def _any(values: list[Any]) -> np.ndarray[Any, Any]:
    return np.array(values, dtype=object)


def both_results(
    folder: Path, case: UseCase, rows: dict[str, list[Any]]
) -> tuple[SourceValidation, DataDocs]:
    with ingested(folder, case, rows) as work:
        validation = validate_source(work, "facts", now=NOW)
        sample = sample_source(work, "facts")
        docs = write_data_docs(folder / "docs", {"facts": sample}, case, now=NOW)
    return validation, docs


@pytest.mark.parametrize("key", [["k"], ["k", "s"]])
def test_expectations_on_random_rows_agree_with_sql(tmp_path: Path, key: list[str]) -> None:
    case = use_case(RULES, key)
    for seed in range(5):
        validation, docs = both_results(tmp_path / str(seed), case, random_rows(seed, 40))
        assert len(docs.results) == 9
        for verdict in docs.results:
            if verdict.rule.startswith("unique"):
                assert verdict.passed == (verdict.rule not in validation.broken), (seed, verdict)
            elif not verdict.rule.startswith("completeness"):
                assert verdict.unexpected == validation.broken.get(verdict.rule, 0), (seed, verdict)
                assert verdict.passed == (verdict.unexpected == 0), (seed, verdict)


@pytest.mark.parametrize("missing", [0, 3, 4, 5, 19])
def test_completeness_without_quarantine_agrees_with_sql(tmp_path: Path, missing: int) -> None:
    case = use_case([{"rule": "completeness", "column": "n", "at_least": 0.8}], [])
    rows = random_rows(1, 20) | {"n": [None] * missing + [2] * (20 - missing)}
    validation, docs = both_results(tmp_path, case, rows)
    by_rule = {verdict.rule: verdict.passed for verdict in validation.results}
    assert [item.passed for item in docs.results] == [by_rule["completeness(n)"]]
    assert docs.results[0].passed == (missing <= 4)


def test_revision_of_a_key_is_no_duplicate(tmp_path: Path) -> None:
    case = use_case([], ["k"])
    days = [START, START + timedelta(days=1), START]
    rows = random_rows(1, 3) | {"k": [1, 1, 2], "t": days, "x": [0.1, 0.2, 0.3]}
    validation, docs = both_results(tmp_path, case, rows)
    assert not validation.broken
    assert [(item.rule, item.passed, item.rows) for item in docs.results] == [
        ("unique(k)", True, 2)
    ]


def test_pages_name_every_rule_and_fetch_nothing(tmp_path: Path) -> None:
    case = use_case(RULES, ["k"])
    _, docs = both_results(tmp_path, case, random_rows(0, 30))
    text = docs.index.read_text(encoding="utf-8")
    assert "range(x, 0..1.5)" in text
    assert "check(n_below_x): n &lt; x" in text
    for link in re.findall(r'href="([^"]+)"', text):
        assert (docs.index.parent / link).is_file()
    for page in docs.index.parent.rglob("*.html"):
        content = page.read_text(encoding="utf-8")
        assert not re.search(r"<(script|img|link)[^>]+https?://|url\('?https?://", content)


def test_personal_column_shows_no_value(tmp_path: Path) -> None:
    rules = [{"rule": "in_set", "column": "s", "values": ["a"]}]
    case = use_case(rules, [], s={"type": "string", "personal": True})
    rows = random_rows(1, 10) | {"s": ["a"] * 9 + ["Erika Mustermann"]}
    _, docs = both_results(tmp_path, case, rows)
    assert judges_hidden(case, "facts")
    assert docs.results[0].unexpected == 1
    for page in docs.index.parent.rglob("*.html"):
        assert "Mustermann" not in page.read_text(encoding="utf-8")


def test_empty_sample_is_documented(tmp_path: Path) -> None:
    case = use_case(RULES, ["k"])
    frame = pd.DataFrame({name: pd.Series([], dtype=object) for name in TYPES})
    docs = write_data_docs(tmp_path, {"facts": frame}, case, now=NOW)
    assert {verdict.rows for verdict in docs.results} == {0}


def test_sample_is_bounded_and_repeatable(tmp_path: Path) -> None:
    case = use_case([], [])
    with ingested(tmp_path, case, random_rows(1, 500)) as work:
        first, second = (sample_source(work, "facts", 50) for _ in range(2))
    assert 20 <= len(first) <= 50
    pd.testing.assert_frame_equal(first, second)


def test_sample_of_source_never_ingested_says_so(tmp_path: Path) -> None:
    case = use_case([], [])
    with (
        open_context(case, settings_in(tmp_path)) as work,
        pytest.raises(NotFoundError, match="never ingested"),
    ):
        sample_source(work, "facts")


def test_rules_without_expectation_are_named() -> None:
    named = judged_in_sql_only(use_case(RULES, ["k"]).sources["facts"])
    assert named[:2] == ("check(n_below_x): n < x", "min_rows")
    assert "not_in_the_future" in named
