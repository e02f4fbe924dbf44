"""Data Docs: pages of Great Expectations about a bounded sample of each source, with an index."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.documents.pages import render_page
from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.lifecycle.ingest.validation import raw_table
from mlops_pipeline.stores.lake.engine import quoted
from mlops_pipeline.stores.pages import (
    SAMPLE_ROWS,
    ExpectationResult,
    judged_in_sql_only,
    write_data_docs_pages,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class DataDocs:
    """The pages that were written, and the verdicts; `sql_only` rules have no expectation."""

    index: Path
    verdicts: tuple[ExpectationResult, ...]
    sql_only: Mapping[str, tuple[str, ...]]


def sample_source(context: Context, name: str, rows: int = SAMPLE_ROWS) -> "pd.DataFrame":
    """Return a repeatable sample of a source's newest raw version, without superseded rows."""
    state = raw_table(context, name)
    one_in = max(1, -(-int(state.facts["rows"]) // rows))
    fields = ", ".join(quoted(column) for column in context.use_case.sources[name].columns)
    statement = (
        f"SELECT {fields} FROM {context.engine.scan(state)} WHERE _superseded_at IS NULL "
        f"AND hash(_row_no) % {one_in} = 0 ORDER BY _row_no LIMIT {rows}"
    )
    frame: pd.DataFrame = context.engine.arrow(statement).to_pandas()
    return frame


def write_data_docs(
    folder: Path, samples: Mapping[str, "pd.DataFrame"], use_case: UseCase, *, now: datetime
) -> DataDocs:
    """Judge each sample (of `sample_source`) by the rules of its source and write the pages.

    The folder is made when it does not exist; its index.html is the page to open.
    """
    verdicts, pages = write_data_docs_pages(folder, samples, use_case, now=now)
    sql_only = {name: judged_in_sql_only(use_case.sources[name]) for name in samples}
    docs = DataDocs(folder / "index.html", tuple(verdicts), sql_only)
    page = render_page("data_docs.html.jinja", docs=docs, pages=pages, now=now)
    docs.index.write_text(page, encoding="utf-8")
    return docs
